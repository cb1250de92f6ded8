"""A permitted request on its way to the server: held or gathered if need be, then its body.

The head goes as soon as its framing is known. It waits for content only where a rule wants the
first of it searched (`hold`), or where an edited body is so small that it can keep a length.
"""

from __future__ import annotations

from proxy.callouts.http import bodyplan, framing, outgoing, writer
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.passage import Passage, Waiting
from proxy.callouts.http.session import OUT, Session
from proxy.contract import Block, NeedMoreData, Permit, Replace, StreamData, Verdict
from proxy.heads import RequestHead


class Upload(Passage[RequestHead]):
    def __init__(self, session: Session) -> None:
        super().__init__(session, OUT)

    def cut(self, exchange: Exchange, offset: int) -> None:
        """The client's FIN came first."""
        if self._body is not None:
            exchange.request_bytes = self._body.size(offset)
        exchange.detail = exchange.detail or "request cut short by the client"

    def _send(self, exchange: Exchange, waiting: Waiting[RequestHead], data: StreamData) -> Verdict:
        session, raw = self._session, waiting.raw
        limit = session.limits.gather_bytes
        if outgoing.may_gather(waiting.head, waiting.kind, waiting.plan, limit):
            return self._gather(exchange, waiting, data)
        going = outgoing.frame(
            waiting.head,
            waiting.kind,
            waiting.plan,
            session.chunk_scanner(OUT),
            data.offset + len(raw),
            session.flow.info.redirect.original_dst,
        )
        self._body, self._plan = going.body, waiting.plan
        exchange.sent = self._body is None
        wire = writer.write_request(going.head) + going.content
        return Permit(len(raw)) if wire == raw else Replace(len(raw), wire)

    def _gather(
        self, exchange: Exchange, waiting: Waiting[RequestHead], data: StreamData
    ) -> Verdict:
        """Edit a small body whole, so that the server gets its length."""
        chain, kind = waiting.plan.chain, waiting.kind
        assert chain is not None
        assert isinstance(kind, framing.Length)
        begin = len(waiting.raw)
        end = begin + kind.n
        if len(data.data) < end:
            self._waiting = waiting
            return self._short(exchange, data) or NeedMoreData(end - len(data.data))
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
