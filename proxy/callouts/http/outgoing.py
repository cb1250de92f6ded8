"""How a request goes to its server: edits of its head, framing, and the way of its body."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy.callouts.http import edits, framing, stale, writer
from proxy.callouts.http.body import Body, ChunkedBody, LengthBody
from proxy.callouts.http.bodyplan import BodyPlan, NewContent
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.filtered import FilteredBody, Frame, SwallowedBody
from proxy.callouts.http.unframe import unframer_for
from proxy.heads import RequestHead
from proxy.model import Endpoint
from proxy.policy import ast
from proxy.policy.ruling import Ruling


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request ready to go: its head, what follows it at once, and the way of its body."""

    head: RequestHead
    content: bytes = b""
    body: Body | None = None


def edit_head(exchange: Exchange, head: RequestHead, ruling: Ruling | None) -> RequestHead:
    """What policy changes in the head."""
    for planned in ruling.edits if ruling is not None else ():
        match planned.edit:
            case ast.Headers() as change:
                exchange.note_edit("headers")
                head = edits.edit_headers(head, change)
            case ast.RewriteUrl() as change:
                exchange.note_edit("rewrite_url")
                head = edits.rewrite_url(head, change)
    return head


def frame(
    head: RequestHead,
    kind: framing.Framing,
    plan: BodyPlan,
    scanner: ChunkScanner,
    start: int,
    server: Endpoint,
) -> Outgoing:
    """The body's way, with the framing fields that go with it; `start`: its first offset.

    An edited body of unknown length goes in chunks, which needs HTTP/1.1: an HTTP/1.0 request
    is sent as that then, with the Host that it may lack.
    """
    if plan.content is not None:
        return _other_content(head, kind, plan.content, scanner)
    if plan.untouched:
        return Outgoing(head, body=_untouched(kind, scanner, start))
    if not plan.edited:
        same = Frame.LENGTH if isinstance(kind, framing.Length) else Frame.CHUNKS
        return Outgoing(head, body=FilteredBody(unframer_for(kind, scanner), plan.chain, same))
    head = stale.without_digests(head)
    coding = writer.make_field(b"Transfer-Encoding", b"chunked")
    head = replace(head, fields=(*framing.without_framing(head.fields), coding))
    body = plan.body(unframer_for(kind, scanner), Frame.CHUNKS)
    return Outgoing(_modern(head, server), body=body)


def gathered(head: RequestHead, content: bytes) -> Outgoing:
    """A small edited body, whole: it keeps a Content-Length, which every server takes."""
    fields = framing.without_framing(stale.without_digests(head).fields)
    length = writer.make_field(b"Content-Length", b"%d" % len(content))
    return Outgoing(replace(head, fields=(*fields, length)), content)


def may_gather(head: RequestHead, kind: framing.Framing, plan: BodyPlan, limit: int) -> bool:
    """Whether an edited body is worth waiting for: small, and the client sends it unasked."""
    small = isinstance(kind, framing.Length) and kind.n <= limit
    editing = plan.edited and plan.chain is not None and plan.asked is None
    return small and editing and not head.all(b"expect")


def _modern(head: RequestHead, server: Endpoint) -> RequestHead:
    if head.version != b"1.0":
        return head
    fields = head.fields
    if not head.all(b"host"):
        fields = (writer.make_field(b"Host", str(server).encode("ascii", "replace")), *fields)
    return replace(head, version=b"1.1", fields=fields)


def _other_content(
    head: RequestHead, kind: framing.Framing, content: NewContent, scanner: ChunkScanner
) -> Outgoing:
    """Content of ours goes at once; the client's is read to its end and dropped."""
    fields = stale.fields_for(head.fields, content.content_type, len(content.data))
    head = replace(head, fields=fields)
    if isinstance(kind, framing.NoBody):
        return Outgoing(head, content.data)
    return Outgoing(head, content.data, SwallowedBody(unframer_for(kind, scanner)))


def _untouched(kind: framing.Framing, scanner: ChunkScanner, start: int) -> Body | None:
    match kind:
        case framing.Length(n):
            return LengthBody(start, n)
        case framing.Chunked():
            return ChunkedBody(scanner)
    return None
