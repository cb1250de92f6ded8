"""A permitted response on its way to the client: held if need be, its body, and its end."""

from __future__ import annotations

from proxy.callouts.http import delivery, framing, writer
from proxy.callouts.http.exchange import Answered, Exchange
from proxy.callouts.http.filtered import FilteredBody, Frame
from proxy.callouts.http.passage import Passage, Waiting
from proxy.callouts.http.pieces import AskedBody
from proxy.callouts.http.session import IN, Session
from proxy.contract import (
    PERMIT_FIN,
    DropConnection,
    How,
    Permit,
    Replace,
    StreamData,
    Verdict,
)
from proxy.heads import ResponseHead

_ANSWERED = {
    framing.NoBody: Answered.WHOLE,
    framing.Length: Answered.LENGTH,
    framing.Chunked: Answered.LENGTH,
    framing.UntilClose: Answered.CLOSE,
}


class Download(Passage[ResponseHead]):
    def __init__(self, session: Session) -> None:
        super().__init__(session, IN)

    def measure(self, exchange: Exchange, offset: int) -> None:
        """Take note of how much of the body there was when the stream ended."""
        if self._body is not None:
            exchange.response_bytes = self._body.size(offset)

    def ending(self) -> Verdict | None:
        """The server's FIN: the verdict on it while callouts are asked about the last of a body."""
        return self._body.ending() if isinstance(self._body, AskedBody) else None

    def complete(self, exchange: Exchange, data: StreamData) -> Verdict:
        """The server's FIN is the end of the body."""
        body = self._body
        rest = body.flush() if body is not None else b""
        if isinstance(body, FilteredBody) and body.stopped:
            verdict = self._stopped(exchange, body, data)
            if not isinstance(verdict, Replace):
                return verdict
            rest = verdict.data
        if rest:
            self._session.flow.inject(IN, rest)
        exchange.must_close = True
        self._over(exchange)
        return PERMIT_FIN

    def cut(self, exchange: Exchange) -> Verdict:
        """The client sees a short body; where FIN would mean 'complete', it sees RST."""
        body = self._body
        exchange.detail = exchange.detail or "response cut short by the server"
        exchange.must_close = True
        if isinstance(body, FilteredBody) and body.frame is Frame.UNTIL_CLOSE:
            return DropConnection(How.RESET)
        self._body = None
        self._session.end(exchange, "aborted")
        return PERMIT_FIN

    def _send(
        self, exchange: Exchange, waiting: Waiting[ResponseHead], data: StreamData
    ) -> Verdict:
        session, raw, kind = self._session, waiting.raw, waiting.kind
        start = data.offset + len(raw)
        scanner = session.chunk_scanner(IN)
        going = delivery.frame(exchange, waiting.head, kind, waiting.plan, scanner, start)
        self._body, self._plan = going.body, waiting.plan
        head = delivery.persist(exchange, waiting.original, going.head, kind, session.draining)
        exchange.status = head.status
        exchange.answered = _ANSWERED[type(kind)]
        if exchange.answered is Answered.WHOLE:
            session.finish_if_over(exchange)
        wire = writer.write_response(head) + going.content
        return Permit(len(raw)) if wire == raw else Replace(len(raw), wire)

    def _count(self, exchange: Exchange, size: int) -> None:
        exchange.response_bytes = size

    def _whole(self, exchange: Exchange) -> None:
        exchange.answered = Answered.WHOLE
        self._session.finish_if_over(exchange)
