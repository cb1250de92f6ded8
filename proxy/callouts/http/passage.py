"""A permitted message on its way, in either direction: held back, followed, stopped.

`upload` and `download` say what is particular to requests and responses: when the head goes,
and what the end of the stream means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.callouts.http import bodyplan, bodyrules, framing, holding
from proxy.callouts.http.body import Body
from proxy.callouts.http.bodyplan import BodyPlan, Planner
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.filtered import FilteredBody
from proxy.callouts.http.holding import Holder
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.session import Session
from proxy.contract import NeedMoreData, StreamData, Verdict
from proxy.heads import Head
from proxy.model import Direction
from proxy.policy import ast
from proxy.policy.ruling import Ruling

H = TypeVar("H", bound=Head)


@dataclass(frozen=True, slots=True)
class Waiting(Generic[H]):
    """A message whose head has not gone yet."""

    original: H
    head: H  #: as it will go, but for its framing
    raw: bytes  #: as it came
    kind: framing.Framing
    plan: BodyPlan


class Passage(ABC, Generic[H]):
    """The message of one direction that is in work; one object per flow and direction."""

    def __init__(self, session: Session, direction: Direction) -> None:
        self._session = session
        self._direction = direction
        self._timer = f"hold_{direction.label}"
        self._waiting: Waiting[H] | None = None
        self._body: Body | None = None
        self._plan = BodyPlan()
        self._holder: Holder | None = None

    @property
    def active(self) -> bool:
        """Whether a message is in it."""
        return self._waiting is not None or self._body is not None

    def begin(
        self, exchange: Exchange, planner: Planner, waiting: Waiting[H], data: StreamData
    ) -> Verdict:
        """Take over a message whose head stands first in `data`."""
        if holding.worth_it(waiting.original, planner.kind, waiting.plan):
            limits, length = self._session.limits, len(waiting.raw)
            self._holder = Holder(waiting.original, planner, waiting.plan, length, limits)
            self._session.flow.set_timer(self._timer, limits.hold_seconds)
        return self._wait(exchange, waiting, data)

    def step(self, exchange: Exchange, data: StreamData) -> Verdict:
        """The verdict on what is shown of the message in work."""
        if self._waiting is not None:
            return self._wait(exchange, self._waiting, data)
        assert self._body is not None
        return self._step(exchange, self._body, data)

    def abandon(self) -> None:
        """The exchange is answered otherwise: forget the message."""
        self._waiting = self._body = self._holder = None

    @abstractmethod
    def _send(self, exchange: Exchange, waiting: Waiting[H], data: StreamData) -> Verdict:
        """The head may go. NeedMoreData with `_waiting` set: not yet."""

    @abstractmethod
    def _count(self, exchange: Exchange, size: int) -> None:
        """Take note of the body's size so far."""

    @abstractmethod
    def _whole(self, exchange: Exchange) -> None:
        """The body is through."""

    def timer_fired(self, name: str) -> bool:
        """Time to hold a message back is up; False: it is another timer."""
        if name != self._timer:
            return False
        if self._holder is not None:
            self._holder.time_is_up = True
            self._session.flow.proceed(self._direction)
        return True

    # --- before the head has gone

    def _wait(self, exchange: Exchange, waiting: Waiting[H], data: StreamData) -> Verdict:
        holder = self._holder
        self._waiting = waiting
        if holder is not None:
            if not holder.look(data):
                return NeedMoreData(1)
            self._holder = None
            self._session.flow.set_timer(self._timer, None)
            if holder.ruling is not None:
                return self.blocked(exchange, holder.ruling, data)
        self._waiting = None
        return self._send(exchange, waiting, data)

    # --- behind the head

    def _step(self, exchange: Exchange, body: Body, data: StreamData) -> Verdict:
        verdict = body.step(data)
        if verdict is None:
            if not (isinstance(body, FilteredBody) and body.stopped):
                return self._misframed(body.fault)
            verdict = self._stopped(exchange, body, data)
        if self._body is None:
            return verdict
        if body.sees_all or body.done:
            self._count(exchange, body.size(data.offset + len(data.data)))
        if body.done:
            self._over(exchange)
        return verdict

    def _over(self, exchange: Exchange) -> None:
        self._body = None
        bodyplan.check(exchange, self._plan.editors)
        self._whole(exchange)

    def _misframed(self, fault: Finding | None) -> Verdict:
        assert fault is not None
        self._body = None
        self._session.repairs(fault, self._direction)
        return self._session.refuse(fault, self._direction, 1)

    def _stopped(self, exchange: Exchange, body: FilteredBody, data: StreamData) -> Verdict:
        """A rule blocks, or the content cannot be decoded."""
        if body.ruling is not None:
            if body.last:
                self._session.flow.inject(self._direction, body.last)
            return self.blocked(exchange, body.ruling, data)
        assert body.chain is not None
        return self.undecodable(body.chain.fault, data, body)

    def undecodable(
        self, fault: Finding | None, data: StreamData, body: FilteredBody | None = None
    ) -> Verdict:
        """The exception table says whether `body` goes on as it came; if it still can."""
        assert fault is not None
        if not bodyrules.undecodable(self._session, fault, self._direction):
            verdict = body.open_up() if body is not None else None
            if verdict is not None:
                return verdict
        self.abandon()
        return self._session.deny(fault, self._direction, len(data.data))

    def blocked(self, exchange: Exchange, ruling: Ruling, data: StreamData) -> Verdict:
        """A rule of the body layer found something."""
        self.abandon()
        assert isinstance(ruling.action, ast.Block)
        return self._session.block(exchange, ruling.action, len(data.data), close=True)
