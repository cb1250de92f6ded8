"""The server's direction: interim and final responses, their bodies, and where they end.

Bytes that answer no request are never passed on; a body that ends early ends early for the
client too (RFC 9112 8), and a server that goes before a byte of its answer was delivered is
answered for with 502.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from proxy.callouts.http import banner, edits, framing, writer
from proxy.callouts.http.body import (
    Body,
    ChunkDecoder,
    ChunkedBody,
    CloseBody,
    CloseDecoder,
    Decoder,
    EditedBody,
    Editor,
    LengthBody,
    LengthDecoder,
)
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.exchange import SERVER_FIN, Answered, Exchange, OnFin
from proxy.callouts.http.lines import EndOfHead, Finding
from proxy.callouts.http.parse import parse_response
from proxy.callouts.http.session import IN, Session
from proxy.contract import (
    PERMIT_FIN,
    AllowConnection,
    Block,
    Defer,
    DropConnection,
    How,
    NeedMoreData,
    Permit,
    Replace,
    StreamData,
    Verdict,
)
from proxy.heads import ResponseHead
from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import Ruling

SNIFF_TIMER = "sniff"
SNIFFED = "content_type.sniffed"
_MAX_INTERIM = 100
_BAD_GATEWAY = "The server closed the connection without a complete answer."


@dataclass(slots=True)
class _Held:
    """A final head that waits for the first bytes of its body."""

    head: ResponseHead
    length: int  #: of the head as it came
    decoder: Decoder
    looked: int = 0  #: body bytes already decoded for a look
    sample: bytearray = field(default_factory=bytearray)


class ResponseSide:
    """Classifies INBOUND."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._end = EndOfHead(session.limits.head_bytes)
        self._body: Body | None = None
        self._held: _Held | None = None
        self._sniff_over = False

    def classify(self, data: StreamData) -> Verdict:
        session, exchange = self._session, self._session.exchange
        if session.tunnel:
            return AllowConnection()
        if data.disconnect:
            return self._fin(data, exchange)
        if session.closing:
            return Block(len(data.data))
        if exchange is None:
            return self._unasked()
        if self._body is not None:
            return self._step(exchange, self._body, data)
        if exchange.answered is Answered.WHOLE:
            return self._extra("http1.extra_bytes")
        return self._head(exchange, data)

    def _unasked(self) -> Verdict:
        """No exchange is in work. A pipelined request that waits goes first: what is here may
        be its answer, and how the reads fell must not decide."""
        session = self._session
        waiting = session.deferred[IN.opposite] or session.resuming
        if waiting and session.dialling is None:
            session.hold(IN)
            return Defer()
        return self._extra("http1.extra_bytes" if session.count else "http1.server_spoke_first")

    def _extra(self, id_: str) -> Verdict:
        session = self._session
        finding = Finding(id_)
        session.repairs(finding, IN)
        exchange = session.exchange
        if exchange is not None:  # answered, but its request is still being sent
            exchange.detail = id_
            exchange.must_close = True
            session.end(exchange, "forwarded")
        return session.refuse(finding, IN, 1)

    # --- heads

    def _head(self, exchange: Exchange, data: StreamData) -> Verdict:
        if self._held is not None:
            return self._sniff(exchange, self._held, data)
        length = self._end.find(data.data)
        if length is None:
            return self._incomplete(exchange, data)
        raw = bytes(data.data[:length])
        parsed = parse_response(raw, self._session.limits.head_fields)
        finding = self._session.first_refused(parsed, IN)
        if finding is not None or parsed.head is None:
            return self._session.refuse(finding or parsed.findings[0], IN, length)
        head = parsed.head
        if head.status < 200 and head.status != 101:
            return self._interim(exchange, head, raw)
        if head.status == 101 and not _offered(exchange, head):
            return self._refuse(Finding("http1.unasked_101"), length)
        exchange.response = head
        if any(f.id == "http1.te_and_cl" for f in parsed.findings):
            exchange.must_close = True
        return self._final(exchange, head, raw, data)

    def _refuse(self, finding: Finding, n: int) -> Verdict:
        self._session.repairs(finding, IN)
        return self._session.refuse(finding, IN, n)

    def _incomplete(self, exchange: Exchange, data: StreamData) -> Verdict:
        limit = self._session.limits.head_bytes
        if len(data.data) >= limit or data.buffer_limit_reached:
            return self._refuse(
                Finding("http1.head_too_large", f"{limit} bytes"), min(len(data.data), limit)
            )
        if data.no_more_data:
            self._bad_gateway(exchange)
            return Block(len(data.data))
        return NeedMoreData(1)

    def _bad_gateway(self, exchange: Exchange) -> None:
        exchange.detail = exchange.detail or "server closed before its answer"
        self._session.answer(exchange, 502, _BAD_GATEWAY, "failed", close=True)

    def _interim(self, exchange: Exchange, head: ResponseHead, raw: bytes) -> Verdict:
        """1xx goes through end to end; HTTP/1.0 clients never see one (RFC 9110 15.2)."""
        exchange.interim += 1
        if exchange.interim > _MAX_INTERIM:
            return self._refuse(Finding("http1.too_many_interim", str(_MAX_INTERIM)), len(raw))
        request = exchange.request
        if request is None or request.version == b"1.0":
            return Replace(len(raw), b"")
        wire = writer.write_response(head)
        return Permit(len(raw)) if wire == raw else Replace(len(raw), wire)

    # --- sniffing

    def _final(
        self, exchange: Exchange, head: ResponseHead, raw: bytes, data: StreamData
    ) -> Verdict:
        kind = framing.of_response(head, exchange.method)
        wanted = exchange.policy.wants_field(Layer.HTTP_RESPONSE, SNIFFED)
        if not wanted or isinstance(kind, framing.NoBody):
            return self._judge(exchange, head, len(raw), data, raw)
        if head.tokens(b"content-encoding") not in ((), (b"identity",)):
            return self._judge(exchange, head, len(raw), data, raw, coded=True)
        if head.content_type == "text/event-stream":
            return self._judge(exchange, head, len(raw), data, raw)
        limits = self._session.limits
        scanner = ChunkScanner(limits.chunk_line_bytes, limits.trailer_bytes, lambda _: True)
        self._held = _Held(head, len(raw), _decoder(kind, scanner))
        self._session.flow.set_timer(SNIFF_TIMER, limits.sniff_seconds)
        return self._sniff(exchange, self._held, data)

    def _sniff(self, exchange: Exchange, held: _Held, data: StreamData) -> Verdict:
        """Hold the head until enough of the body has come, or time is up."""
        decoder = held.decoder
        consumed, content = decoder.decode(data.data[held.length + held.looked :])
        held.looked += consumed
        held.sample += content
        limit = self._session.limits.sniff_bytes
        enough = len(held.sample) >= limit or decoder.done or decoder.fault is not None
        over = self._sniff_over or data.no_more_data or data.buffer_limit_reached
        if not enough and not over:
            return NeedMoreData(1)
        self._held, self._sniff_over = None, False
        self._session.flow.set_timer(SNIFF_TIMER, None)
        sniffed = banner.sniff(bytes(held.sample[:limit]), held.head.content_type)
        raw = bytes(data.data[: held.length])
        return self._judge(exchange, held.head, held.length, data, raw, sniffed=sniffed)

    def stop_sniffing(self) -> None:
        """Time is up: judge on what is there."""
        if self._held is not None:
            self._sniff_over = True
            self._session.flow.proceed(IN)

    # --- policy

    def _judge(
        self,
        exchange: Exchange,
        head: ResponseHead,
        n: int,
        data: StreamData,
        raw: bytes,
        *,
        sniffed: str | None = None,
        coded: bool = False,
    ) -> Verdict:
        session = self._session
        facts = Facts(
            session.flow.info,
            session.wall(),
            exchange.request,
            head,
            IN,
            sniffed,
            frozenset({SNIFFED}) if coded else frozenset(),
        )
        ruling = session.rule(exchange, facts, Layer.HTTP_RESPONSE)
        if ruling is not None:
            match ruling.action:
                case ast.Block() as block if ruling.blocked:
                    return session.block(exchange, block, n, close=True)
                case ast.Redirect() as redirect:
                    return session.redirect(exchange, redirect, n, close=True)
        return self._deliver(exchange, head, n, data, raw, ruling)

    def _deliver(
        self,
        exchange: Exchange,
        head: ResponseHead,
        n: int,
        data: StreamData,
        raw: bytes,
        ruling: Ruling | None,
    ) -> Verdict:
        kind = framing.of_response(head, exchange.method)
        if head.status == 101 or (exchange.method == b"CONNECT" and head.status < 300):
            return self._switch(exchange, head, raw)
        original = head
        editor: Editor | None = None
        for planned in ruling.edits if ruling is not None else ():
            match planned.edit:
                case ast.Headers() as edit:
                    exchange.note_edit("headers")
                    head = edits.edit_headers(head, edit)
                case ast.InjectBanner() as edit:
                    editor = editor or banner.editor_for(exchange, original, kind, edit)
        head, self._body = self._frame(exchange, head, kind, editor, data.offset + n)
        head = self._persistence(exchange, original, head, kind)
        exchange.status = head.status
        exchange.answered = _ANSWERED[type(kind)]
        if exchange.answered is Answered.WHOLE:
            self._session.finish_if_over(exchange)
        wire = writer.write_response(head)
        return Permit(n) if wire == raw else Replace(n, wire)

    def _frame(
        self,
        exchange: Exchange,
        head: ResponseHead,
        kind: framing.Framing,
        editor: Editor | None,
        start: int,
    ) -> tuple[ResponseHead, Body | None]:
        """The body's way, and the framing fields that go with it."""
        request = exchange.request
        old_client = request is not None and request.version == b"1.0"
        if editor is None and not (old_client and isinstance(kind, framing.Chunked)):
            return head, self._untouched(kind, start)
        head = replace(head, fields=framing.without_framing(head.fields))
        chunk = not old_client
        if chunk:
            field_ = writer.make_field(b"Transfer-Encoding", b"chunked")
            head = replace(head, version=b"1.1", fields=(*head.fields, field_))
        else:
            exchange.must_close = True  # RFC 9112 6.3 rule 8: the end of the body is the FIN
        if editor is not None:
            head = banner.weaken(head)
        decoder = _decoder(kind, self._session.chunk_scanner(IN))
        return head, EditedBody(decoder, editor, chunk=chunk)

    def _untouched(self, kind: framing.Framing, start: int) -> Body | None:
        match kind:
            case framing.Length(n):
                return LengthBody(start, n)
            case framing.Chunked():
                return ChunkedBody(self._session.chunk_scanner(IN))
            case framing.UntilClose():
                return CloseBody(start)
        return None

    def _persistence(
        self,
        exchange: Exchange,
        original: ResponseHead,
        head: ResponseHead,
        kind: framing.Framing,
    ) -> ResponseHead:
        """Whether the connection outlives this exchange (RFC 9112 9.3), and saying so."""
        request = exchange.request
        ours = exchange.must_close or self._session.draining
        theirs = request is None or not framing.keeps_open(request)
        theirs = theirs or not framing.keeps_open(original)
        theirs = theirs or isinstance(kind, framing.UntilClose)
        exchange.must_close = ours or theirs
        if not ours or b"close" in head.tokens(b"connection"):
            return head
        tokens = [t for t in head.tokens(b"connection") if t != b"keep-alive"]
        kept = edits.without(head, frozenset({b"connection", b"keep-alive"})).fields
        value = b", ".join([*tokens, b"close"])
        return replace(head, fields=(*kept, writer.make_field(b"Connection", value)))

    def _switch(self, exchange: Exchange, head: ResponseHead, raw: bytes) -> Verdict:
        """101, or CONNECT's 2xx: what follows on both sides is another protocol."""
        exchange.status = head.status
        self._session.go_raw()
        wire = writer.write_response(head)
        return Permit(len(raw)) if wire == raw else Replace(len(raw), wire)

    # --- body and end

    def _step(self, exchange: Exchange, body: Body, data: StreamData) -> Verdict:
        verdict = body.step(data)
        if verdict is None:
            assert body.fault is not None
            self._body = None
            return self._refuse(body.fault, 1)
        exchange.response_bytes = body.size(data.offset + len(data.data))
        if body.done:
            self._whole(exchange)
        return verdict

    def _whole(self, exchange: Exchange) -> None:
        self._body = None
        exchange.answered = Answered.WHOLE
        self._session.finish_if_over(exchange)

    def _fin(self, data: StreamData, exchange: Exchange | None) -> Verdict:
        session, body = self._session, self._body
        if exchange is None:
            session.close()
            return PERMIT_FIN
        if body is not None:
            exchange.response_bytes = body.size(data.offset)
        match SERVER_FIN[exchange.answered]:
            case OnFin.BAD_GATEWAY:
                self._bad_gateway(exchange)
            case OnFin.COMPLETE:
                self._complete(exchange, body)
            case OnFin.CUT:
                return self._cut(exchange, body)
            case OnFin.CLOSE:
                exchange.must_close = True
                session.end(exchange, "forwarded")
        return PERMIT_FIN

    def _complete(self, exchange: Exchange, body: Body | None) -> None:
        rest = body.flush() if body is not None else b""
        if rest:
            self._session.flow.inject(IN, rest)
        exchange.must_close = True
        self._whole(exchange)

    def _cut(self, exchange: Exchange, body: Body | None) -> Verdict:
        """The client sees a short body; where FIN would mean 'complete', it sees RST."""
        exchange.detail = exchange.detail or "response cut short by the server"
        exchange.must_close = True
        if isinstance(body, EditedBody) and not body.chunked:
            return DropConnection(How.RESET)
        self._body = None
        self._session.end(exchange, "aborted")
        return PERMIT_FIN


def _offered(exchange: Exchange, head: ResponseHead) -> bool:
    """Whether the 101 takes up what the request offered (RFC 9110 7.8)."""
    request = exchange.request
    if request is None or b"upgrade" not in request.tokens(b"connection"):
        return False
    offered = request.tokens(b"upgrade")
    taken = head.tokens(b"upgrade")
    return bool(taken) and all(token in offered for token in taken)


def _decoder(kind: framing.Framing, scanner: ChunkScanner) -> Decoder:
    match kind:
        case framing.Length(n):
            return LengthDecoder(n)
        case framing.Chunked():
            return ChunkDecoder(scanner)
    return CloseDecoder()


_ANSWERED = {
    framing.NoBody: Answered.WHOLE,
    framing.Length: Answered.LENGTH,
    framing.Chunked: Answered.LENGTH,
    framing.UntilClose: Answered.CLOSE,
}
