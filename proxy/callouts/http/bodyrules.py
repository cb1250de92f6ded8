"""Ask the rules of the body layers, and the exception table when content cannot be read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.session import Session
from proxy.limits import Cause, OnException
from proxy.model import Direction, Layer
from proxy.policy.facts import BodyFacts, Facts
from proxy.policy.ruling import BodyWatch, Ruling
from proxy.records import AnomalySeen, ExceptionApplied


def watch(exchange: Exchange, layer: Layer, facts: Facts) -> BodyWatch | None:
    """What the rules of a body layer look for in this message; None: nothing."""
    policy = exchange.policy
    return policy.watch(layer, facts) if policy.wants(layer) else None


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks the rules of a body layer about one message (`chain.Judge`)."""

    session: Session
    exchange: Exchange
    facts: Facts
    layer: Layer
    preview: bool  #: it will be asked again: only a block counts

    def __call__(self, body: BodyFacts) -> Ruling | None:
        """The ruling if it blocks. Others count, and are reported, once the body is complete."""
        ruling = self.exchange.policy.decide(self.layer, replace(self.facts, body=body))
        if ruling.blocked or (body.complete and not self.preview):
            self.session.report(self.exchange, ruling)
        return ruling if ruling.blocked else None


def undecodable(session: Session, finding: Finding, direction: Direction) -> bool:
    """Content that was to be looked into cannot be decoded; True: the message is refused."""
    action = session.exceptions.undecodable
    exchange = session.exchange
    number = exchange.number if exchange is not None else None
    done = "refuse" if action is OnException.CLOSED else "open"
    session.flow.emit(AnomalySeen(finding.id, direction, done, finding.detail, number))
    session.flow.emit(ExceptionApplied(Cause.UNDECODABLE, action, "http", finding.id))
    return action is OnException.CLOSED
