"""One request and its response: what is known so far, and its one record.

What may not be decided elsewhere: when an exchange is over, and what the end of the server's
stream means at each point of it (`SERVER_FIN`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from proxy.heads import RequestHead, ResponseHead
from proxy.model import Protocol
from proxy.policy.ruling import Policy, Ruling
from proxy.records import ExchangeEnded


class Answered(enum.Enum):
    """How far the final response has come."""

    NOT = enum.auto()  #: no byte of it has been delivered
    LENGTH = enum.auto()  #: head delivered, body of known end (length or chunks) not complete
    CLOSE = enum.auto()  #: head delivered, body ends with the connection
    WHOLE = enum.auto()


class OnFin(enum.Enum):
    """What the server's FIN means (RFC 9112 8)."""

    BAD_GATEWAY = enum.auto()  #: nothing was delivered: 502
    COMPLETE = enum.auto()  #: it is the end of the body
    CUT = enum.auto()  #: the client must see that the body is short
    CLOSE = enum.auto()  #: the connection is over, no exchange suffers


SERVER_FIN = {
    Answered.NOT: OnFin.BAD_GATEWAY,
    Answered.LENGTH: OnFin.CUT,
    Answered.CLOSE: OnFin.COMPLETE,
    Answered.WHOLE: OnFin.CLOSE,
}


@dataclass(slots=True)
class Exchange:
    """Mutable while it lives; only the HTTP stage touches it."""

    number: int
    policy: Policy  #: the generation it began with, also for its response
    started: float  #: monotonic seconds
    request: RequestHead | None = None  #: as the client sent it; rules and records see this one
    response: ResponseHead | None = None
    sent: bool = False  #: the whole request has been passed on
    answered: Answered = Answered.NOT
    must_close: bool = False  #: the connection ends with this exchange
    interim: int = 0
    outcome: str = "aborted"
    status: int | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    rule: str | None = None
    rules: list[str] = field(default_factory=list)
    shadow_rules: list[str] = field(default_factory=list)
    edits: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    detail: str = ""

    @property
    def over(self) -> bool:
        return self.sent and self.answered is Answered.WHOLE

    @property
    def method(self) -> bytes:
        return self.request.method if self.request is not None else b""

    def note(self, ruling: Ruling) -> None:
        """Remember what a ruling did, for the record."""
        for hit in ruling.hits:
            rules = self.shadow_rules if hit.shadow else self.rules
            if hit.rule not in rules:
                rules.append(hit.rule)
        self.tags += [tag for tag in ruling.tags if tag not in self.tags]
        if ruling.rule is not None:
            self.rule = ruling.rule

    def note_edit(self, kind: str) -> None:
        if kind not in self.edits:
            self.edits.append(kind)

    def record(self, now: float) -> ExchangeEnded:
        """The record of this exchange; the caller writes it exactly once."""
        request, response = self.request, self.response
        agents = request.all(b"user-agent") if request is not None else ()
        return ExchangeEnded(
            number=self.number,
            protocol=Protocol.HTTP1,
            outcome=self.outcome,
            generation=self.policy.number,
            method=self.method,
            host=request.host if request is not None else "",
            target=request.target if request is not None else b"",
            version=request.version if request is not None else b"",
            status=self.status,
            upstream_status=response.status if response is not None else None,
            request_bytes=self.request_bytes,
            response_bytes=self.response_bytes,
            request_content_type=request.content_type if request is not None else "",
            response_content_type=response.content_type if response is not None else "",
            user_agent=agents[0] if agents else b"",
            started=self.started,
            seconds=now - self.started,
            rule=self.rule,
            rules=tuple(self.rules),
            shadow_rules=tuple(self.shadow_rules),
            edits=tuple(self.edits),
            tags=tuple(self.tags),
            detail=self.detail,
        )
