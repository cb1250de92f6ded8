"""Ask the users' own callouts about a message before it goes: its head, then its whole body.

The message waits in the stage, its head first in what is held; `step` is called with all that
is held until it answers None. Then `head`, `content` and `pieces` say what goes on. The order
for bodies is: callouts, then the rules of policy, which so judge what really goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from proxy.api import BlockMessage, Forward, Interest, Message, RespondWith
from proxy.callouts.http import bodyrules, framing, given
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.gather import Gathered, Gatherer, opaque
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.panel import Member, Round
from proxy.callouts.http.session import Session
from proxy.callouts.registration import POLICY, rule_of
from proxy.contract import Block, Defer, NeedMoreData, StreamData, Verdict
from proxy.errors import ContractError
from proxy.heads import Head, RequestHead, ResponseHead
from proxy.limits import Cause
from proxy.model import Direction, Layer
from proxy.records import Decided

_FAILED = "A filter of this proxy could not decide."
_CUT = "The server closed the connection without a complete answer."


@dataclass(frozen=True, slots=True)
class Side:
    """What differs between requests and responses."""

    direction: Direction
    layer: Layer
    method: str
    head: Interest
    body: Interest
    data: Interest


OF_REQUEST = Side(
    Direction.OUTBOUND,
    Layer.HTTP_REQUEST,
    "request",
    Interest.REQUEST,
    Interest.REQUEST_BODY,
    Interest.REQUEST_DATA,
)
OF_RESPONSE = Side(
    Direction.INBOUND,
    Layer.HTTP_RESPONSE,
    "response",
    Interest.RESPONSE,
    Interest.RESPONSE_BODY,
    Interest.RESPONSE_DATA,
)


def wanted(session: Session, side: Side) -> bool:
    """Whether any callout wants to be asked about such messages."""
    panel = session.panel
    return bool(panel) and bool(panel.interested(side.head | side.body | side.data))


class Consulting:
    """One message. `original` as it came, `head` as it is to go but for its framing."""

    def __init__(
        self,
        session: Session,
        exchange: Exchange,
        side: Side,
        original: Head,
        head: Head,
        kind: framing.Framing,
        length: int,
    ) -> None:
        self.exchange = exchange
        self.head = head
        self.content: bytes | None = None  #: what takes the place of the whole body
        self.pieces: list[Member] = []  #: who is to be shown the body as it goes by
        self._session = session
        self._side = side
        self.original = original
        self._kind = kind
        self._length = length
        self._skipping: set[Member] = set()
        self._said: tuple[Member, BlockMessage | RespondWith] | None = None
        self._gatherer: Gatherer | None = None
        self._bodies: list[Member] = []
        self._round: Round[Any] = self._of_heads()
        self._phase: Callable[[StreamData], Verdict | None] | None = self._ask_heads

    def step(self, data: StreamData) -> Verdict | None:
        """The verdict on what is held; None: everybody has been asked."""
        while self._phase is not None:
            verdict = self._phase(data)
            if verdict is not None:
                return verdict
        return None

    def message(self) -> Message:
        """What a callout is told of the message."""
        return self._message(self.head)

    def _message(self, head: Head) -> Message:
        exchange, info = self.exchange, self._session.flow.info
        if isinstance(head, RequestHead):
            return Message(info, exchange.number, head)
        assert exchange.request is not None
        assert isinstance(head, ResponseHead)
        return Message(info, exchange.number, exchange.request, head)

    # --- the head

    def _of_heads(self) -> Round[Any]:
        panel, side = self._session.panel, self._side
        members = panel.interested(side.head)
        return Round(panel, members, self.head, side.method, self._about_head, self._on_head)

    def _about_head(self, head: Head) -> tuple[Message]:
        return (self._message(head),)

    def _on_head(self, member: Member, answer: object, head: Head) -> Head:
        said: BlockMessage | RespondWith
        match answer:
            case Forward(changed, skip_body):
                if skip_body:
                    self._skipping.add(member)
                return head if changed is None else given.forwarded(head, changed)
            case BlockMessage():
                said = given.page(answer)
            case RespondWith():
                given.own(answer)
                said = answer
            case _:
                raise ContractError(f"{answer!r} is not Forward, BlockMessage or RespondWith")
        if not member.only_looks:
            self._said = member, said
            self._round.stop()
        return head

    def _ask_heads(self, data: StreamData) -> Verdict | None:
        verdict = self._turn()
        if verdict is not None:
            return verdict
        if self._said is not None:
            return self._carry_out(*self._said)
        if self._round.value is not self.head:
            self.head = self._round.value
            self.exchange.note_edit("callout")
        return self._to_the_body()

    def _to_the_body(self) -> Verdict | None:
        self._phase = None
        if isinstance(self._kind, framing.NoBody):
            return None
        self.pieces = self._not_skipping(self._side.data)
        self._bodies = self._not_skipping(self._side.body)
        if self._bodies:
            self._phase = self._gather
        elif self.pieces and (fault := opaque(self.original)) is not None:
            return self._opaque(fault)
        return None

    def _not_skipping(self, interest: Interest) -> list[Member]:
        members = self._session.panel.interested(interest)
        return [member for member in members if member not in self._skipping]

    # --- a whole body

    def _gather(self, data: StreamData) -> Verdict | None:
        if self.original.content_type == "text/event-stream":
            return self._too_long("an event stream")
        if self._gatherer is None:
            most = max(member.registration.body_bytes for member in self._bodies)
            limits = self._session.limits
            self._gatherer = Gatherer(self.original, self._kind, self._length, most, limits)
        match self._gatherer.look(data):
            case Gathered.MORE:
                return NeedMoreData(1)
            case Gathered.WHOLE:
                return self._whole(bytes(self._gatherer.content))
            case Gathered.TOO_LONG:
                return self._too_long("a longer body")
            case Gathered.CUT:
                return self._cut(data)
            case Gathered.OPAQUE:
                assert self._gatherer.fault is not None
                return self._opaque(self._gatherer.fault)
            case Gathered.MISFRAMED:
                self._phase = None
        return None

    def _whole(self, content: bytes) -> Verdict | None:
        fitting = []
        for member in self._bodies:
            if len(content) <= member.registration.body_bytes:
                fitting.append(member)
            elif self._session.panel.closes(member, Cause.BUFFER_LIMIT, "a longer body"):
                return self._refuse(member)
        self._round = self._of_content(fitting, content, "body", (self.message(),), ())
        self._phase = self._ask_bodies
        return None

    def _of_content(
        self,
        members: list[Member],
        content: bytes,
        method: str,
        before: tuple[Any, ...],
        after: tuple[Any, ...],
    ) -> Round[Any]:
        def arguments(value: bytes) -> tuple[Any, ...]:
            return (*before, value, *after)

        return Round(self._session.panel, members, content, method, arguments, on_content)

    def _ask_bodies(self, data: StreamData) -> Verdict | None:
        """And those who would have it in pieces get it in one."""
        verdict = self._turn()
        if verdict is None:
            content, message = self._round.value, (self.message(),)
            self._round = self._of_content(self.pieces, content, "data", message, (True,))
            self.pieces = []
            self._phase = self._ask_pieces
        return verdict

    def _ask_pieces(self, data: StreamData) -> Verdict | None:
        verdict = self._turn()
        if verdict is None:
            self._phase = None
            assert self._gatherer is not None
            if self._round.value != self._gatherer.content:
                self.content = self._round.value
                self.exchange.note_edit("callout")
        return verdict

    def _too_long(self, detail: str) -> Verdict | None:
        """Nobody who wants the whole body can be shown it; the others may still see pieces."""
        for member in self._bodies:
            if self._session.panel.closes(member, Cause.BUFFER_LIMIT, detail):
                return self._refuse(member)
        self._phase = None
        fault = opaque(self.original) if self.pieces else None
        return self._opaque(fault) if fault is not None else None

    def _opaque(self, fault: Finding) -> Verdict | None:
        """No callout can be shown this content."""
        self._phase, self.pieces = None, []
        if not bodyrules.undecodable(self._session, fault, self._side.direction):
            return None
        return self._session.deny(fault, self._side.direction, self._length)

    def _cut(self, data: StreamData) -> Verdict:
        """The sender will not send the rest: nothing of the message has gone, nor will it."""
        exchange, session = self.exchange, self._session
        if self._side is OF_RESPONSE:
            exchange.detail = exchange.detail or "response cut short by the server"
            session.answer(exchange, 502, _CUT, "failed", close=True)
        else:
            exchange.detail = exchange.detail or "request cut short by the client"
            exchange.must_close = True
            session.end(exchange, "aborted")
        return Block(len(data.data))

    # --- answers

    def _turn(self) -> Verdict | None:
        if not self._round.turn():
            return Defer()
        return self._refuse(self._round.refused) if self._round.refused is not None else None

    def _refuse(self, member: Member) -> Verdict:
        """An exception policy says closed."""
        self.exchange.detail = f"callout {member.name} could not decide"
        self._session.answer(self.exchange, 503, _FAILED, "refused", close=True)
        return Block(self._length)

    def _carry_out(self, member: Member, said: BlockMessage | RespondWith) -> Verdict:
        exchange, session = self.exchange, self._session
        close = self._side is OF_RESPONSE or not isinstance(self._kind, framing.NoBody)
        verdict = "block" if isinstance(said, BlockMessage) else "respond"
        exchange.rule = rule_of(member.name)
        exchange.rules.append(exchange.rule)
        detail = said.reason if isinstance(said, BlockMessage) else ""
        decided = Decided(
            self._side.layer, verdict, exchange.rule, POLICY, exchange.policy.number, POLICY
        )
        session.flow.emit(replace(decided, detail=detail, exchange=exchange.number))
        if isinstance(said, BlockMessage):
            session.answer(exchange, said.status, said.reason, "blocked", close=close)
        else:
            fields, body = given.own(said)
            session.own_answer(exchange, said.status, fields, body, "responded", close=close)
        return Block(self._length)


def on_content(member: Member, answer: object, content: bytes) -> bytes:
    """What a callout makes of content. Raises ContractError."""
    if not isinstance(answer, bytes | bytearray | memoryview):
        raise ContractError(f"{type(answer).__name__} in the place of content; expected bytes")
    return bytes(answer)
