"""A permitted request on its way to the server: held or gathered if need be, then its body.

The head goes as soon as its framing is known. It waits for content only where a rule wants the
first of it searched (`hold`), or where an edited body is so small that it can keep a length.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.callouts.http import bodyplan, framing, outgoing, writer
from proxy.callouts.http.bodyplan import BodyPlan, Planner
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.passage import Passage
from proxy.callouts.http.session import OUT, Session
from proxy.contract import Block, NeedMoreData, Permit, Replace, StreamData, Verdict
from proxy.heads import RequestHead


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request whose head has not gone yet."""

    head: RequestHead  #: as it will go, but for its framing
    raw: bytes  #: as it came
    kind: framing.Framing
    plan: BodyPlan


class Upload(Passage):
    def __init__(self, session: Session) -> None:
        super().__init__(session, OUT)
        self._waiting: _Waiting | None = None

    @property
    def active(self) -> bool:
        return self._waiting is not None or self._body is not None

    def begin(
        self,
        exchange: Exchange,
        planner: Planner,
        plan: BodyPlan,
        head: RequestHead,
        raw: bytes,
        data: StreamData,
    ) -> Verdict:
        """Take over a request whose head `raw` stands first in `data`; `head` is to go."""
        self._hold(head, planner, plan, len(raw))
        return self._wait(exchange, _Waiting(head, raw, planner.kind, plan), data)

    def step(self, exchange: Exchange, data: StreamData) -> Verdict:
        """The verdict on what is shown of the request in work."""
        if self._waiting is not None:
            return self._wait(exchange, self._waiting, data)
        assert self._body is not None
        return self._step(exchange, self._body, data)

    def abandon(self) -> None:
        self._waiting = self._body = self._holder = None

    def cut(self, exchange: Exchange, offset: int) -> None:
        """The client's FIN came first."""
        if self._body is not None:
            exchange.request_bytes = self._body.size(offset)
        exchange.detail = exchange.detail or "request cut short by the client"

    def _wait(self, exchange: Exchange, waiting: _Waiting, data: StreamData) -> Verdict:
        self._waiting = waiting
        held = self._held(exchange, data)
        if not isinstance(held, bool):
            return held
        if held:
            return NeedMoreData(1)
        limit = self._session.limits.gather_bytes
        if outgoing.may_gather(waiting.head, waiting.kind, waiting.plan, limit):
            return self._gather(exchange, waiting, data)
        self._waiting = None
        return self._send(exchange, waiting, data.offset + len(waiting.raw))

    def _send(self, exchange: Exchange, waiting: _Waiting, start: int) -> Verdict:
        session, raw = self._session, waiting.raw
        going = outgoing.frame(
            waiting.head,
            waiting.kind,
            waiting.plan,
            session.chunk_scanner(OUT),
            start,
            session.flow.info.redirect.original_dst,
        )
        self._body, self._plan = going.body, waiting.plan
        exchange.sent = self._body is None
        wire = writer.write_request(going.head) + going.content
        return Permit(len(raw)) if wire == raw else Replace(len(raw), wire)

    def _gather(self, exchange: Exchange, waiting: _Waiting, data: StreamData) -> Verdict:
        """Edit a small body whole, so that the server gets its length."""
        chain, kind = waiting.plan.chain, waiting.kind
        assert chain is not None
        assert isinstance(kind, framing.Length)
        begin = len(waiting.raw)
        end = begin + kind.n
        if len(data.data) < end:
            return self._short(exchange, data) or NeedMoreData(end - len(data.data))
        self._waiting = None
        content = chain.feed(bytes(data.data[begin:end]))
        if chain.ruling is None and chain.fault is None:
            content += chain.finish()
        if chain.ruling is not None:
            return self.blocked(exchange, chain.ruling, data)
        if chain.fault is not None:
            return self.undecodable(chain.fault, data)
        bodyplan.check(exchange, waiting.plan.editors)
        exchange.request_bytes, exchange.sent = kind.n, True
        going = outgoing.gathered(waiting.head, content)
        return Replace(end, writer.write_request(going.head) + going.content)

    def _short(self, exchange: Exchange, data: StreamData) -> Verdict | None:
        """The client will not send the rest: nothing of this request has gone, nor will it."""
        if not (data.no_more_data or data.buffer_limit_reached):
            return None
        self._waiting = None
        self.cut(exchange, data.offset)
        exchange.must_close = True
        self._session.end(exchange, "aborted")
        return Block(len(data.data))

    def _count(self, exchange: Exchange, size: int) -> None:
        exchange.request_bytes = size

    def _whole(self, exchange: Exchange) -> None:
        exchange.sent = True
        self._session.finish_if_over(exchange)
