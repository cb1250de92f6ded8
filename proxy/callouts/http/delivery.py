"""How a final response goes to its client: edits, framing, and what becomes of the connection."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy.callouts.http import banner, edits, framing, stale, writer
from proxy.callouts.http.body import Body, ChunkedBody, CloseBody, LengthBody
from proxy.callouts.http.bodyplan import BodyPlan, NewContent
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.filtered import FilteredBody, Frame, SwallowedBody
from proxy.callouts.http.unframe import unframer_for
from proxy.heads import ResponseHead
from proxy.policy import ast
from proxy.policy.ruling import Ruling

_CONNECTION = frozenset({b"connection", b"keep-alive"})


def edit_head(exchange: Exchange, head: ResponseHead, ruling: Ruling | None) -> ResponseHead:
    """What policy changes in the head."""
    for planned in ruling.edits if ruling is not None else ():
        if isinstance(planned.edit, ast.Headers):
            exchange.note_edit("headers")
            head = edits.edit_headers(head, planned.edit)
    return head


@dataclass(frozen=True, slots=True)
class Delivery:
    """A response ready to go: its head, what follows it at once, and the way of its body."""

    head: ResponseHead
    content: bytes = b""
    body: Body | None = None


def frame(
    exchange: Exchange,
    head: ResponseHead,
    kind: framing.Framing,
    plan: BodyPlan,
    scanner: ChunkScanner,
    start: int,
) -> Delivery:
    """The body's way, with the framing fields that go with it; `start`: its first offset.

    Bodies that are not edited keep their framing. An edited one has no known length: it goes
    in chunks, or to an HTTP/1.0 client until close; that client also gets chunks taken off
    (9112 6.1).
    """
    if plan.content is not None:
        return _other_content(exchange, head, kind, plan.content, scanner)
    request = exchange.request
    old_client = request is not None and request.version == b"1.0"
    strip = old_client and isinstance(kind, framing.Chunked)
    if plan.untouched and not strip:
        return Delivery(head, body=_untouched(kind, scanner, start))
    unframer = unframer_for(kind, scanner)
    if not (plan.edited or strip):
        return Delivery(head, body=FilteredBody(unframer, plan.chain, _SAME[type(kind)]))
    head = replace(head, fields=framing.without_framing(head.fields))
    if old_client:
        exchange.must_close = True
    else:
        coding = writer.make_field(b"Transfer-Encoding", b"chunked")
        head = replace(head, version=b"1.1", fields=(*head.fields, coding))
    if plan.edited:
        head = banner.allow(stale.weaken(head), [editor for _, editor in plan.editors])
    out = Frame.UNTIL_CLOSE if old_client else Frame.CHUNKS
    return Delivery(head, body=plan.body(unframer, out))


_SAME = {
    framing.Length: Frame.LENGTH,
    framing.Chunked: Frame.CHUNKS,
    framing.UntilClose: Frame.UNTIL_CLOSE,
}


def _other_content(
    exchange: Exchange,
    head: ResponseHead,
    kind: framing.Framing,
    content: NewContent,
    scanner: ChunkScanner,
) -> Delivery:
    """Content of ours goes at once; the server's is read to its end and dropped."""
    status, reason = (200, b"OK") if head.status == 206 else (head.status, head.reason)
    fields = stale.fields_for(head.fields, content.content_type, len(content.data))
    head = replace(head, status=status, reason=reason, fields=fields)
    data = b"" if exchange.method == b"HEAD" else content.data
    if isinstance(kind, framing.NoBody):
        return Delivery(head, data)
    return Delivery(head, data, SwallowedBody(unframer_for(kind, scanner)))


def _untouched(kind: framing.Framing, scanner: ChunkScanner, start: int) -> Body | None:
    match kind:
        case framing.Length(n):
            return LengthBody(start, n)
        case framing.Chunked():
            return ChunkedBody(scanner)
        case framing.UntilClose():
            return CloseBody(start)
    return None


def persist(
    exchange: Exchange,
    original: ResponseHead,
    head: ResponseHead,
    kind: framing.Framing,
    draining: bool,
) -> ResponseHead:
    """Decide whether the connection outlives this exchange (RFC 9112 9.3).

    When it is our decision, the response says so.
    """
    request = exchange.request
    theirs = (
        request is None
        or not framing.keeps_open(request)
        or not framing.keeps_open(original)
        or isinstance(kind, framing.UntilClose)
    )
    ours = exchange.must_close or draining or (theirs and head.version != original.version)
    exchange.must_close = ours or theirs
    tokens = head.tokens(b"connection")
    if not ours or b"close" in tokens:
        return head
    value = b", ".join([*(t for t in tokens if t != b"keep-alive"), b"close"])
    kept = edits.without(head, _CONNECTION).fields
    return replace(head, fields=(*kept, writer.make_field(b"Connection", value)))
