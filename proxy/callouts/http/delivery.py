"""How a final response goes to its client: edits, framing, and what becomes of the connection."""

from __future__ import annotations

from dataclasses import replace

from proxy.callouts.http import banner, edits, framing, writer
from proxy.callouts.http.body import (
    Body,
    ChunkedBody,
    CloseBody,
    EditedBody,
    Editor,
    LengthBody,
    decoder_for,
)
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.exchange import Exchange
from proxy.heads import ResponseHead
from proxy.policy import ast
from proxy.policy.ruling import Ruling

_CONNECTION = frozenset({b"connection", b"keep-alive"})


def edit(
    exchange: Exchange, head: ResponseHead, kind: framing.Framing, ruling: Ruling | None
) -> tuple[ResponseHead, tuple[Editor, ...]]:
    """What policy changes: the head now, and the editors for the body."""
    original, editors = head, []
    for planned in ruling.edits if ruling is not None else ():
        match planned.edit:
            case ast.Headers() as change:
                exchange.note_edit("headers")
                head = edits.edit_headers(head, change)
            case ast.InjectBanner() as inject:
                editor = banner.editor_for(exchange, original, kind, inject)
                editors += [editor] if editor is not None else []
    return head, tuple(editors)


def frame(
    exchange: Exchange,
    head: ResponseHead,
    kind: framing.Framing,
    editors: tuple[Editor, ...],
    scanner: ChunkScanner,
    start: int,
) -> tuple[ResponseHead, Body | None]:
    """The body's way, with the framing fields that go with it; `start`: its first offset.

    Untouched bodies keep their framing. An edited one has no known length: it goes in chunks,
    or to an HTTP/1.0 client until close; that client also gets chunks taken off (9112 6.1).
    """
    request = exchange.request
    old_client = request is not None and request.version == b"1.0"
    if not editors and not (old_client and isinstance(kind, framing.Chunked)):
        return head, _untouched(kind, scanner, start)
    head = replace(head, fields=framing.without_framing(head.fields))
    if old_client:
        exchange.must_close = True
    else:
        coding = writer.make_field(b"Transfer-Encoding", b"chunked")
        head = replace(head, version=b"1.1", fields=(*head.fields, coding))
    if editors:
        head = banner.weaken(head)
    return head, EditedBody(decoder_for(kind, scanner), editors, chunked=not old_client)


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
