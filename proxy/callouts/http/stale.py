"""What a head says of its content that does not hold any more once the content is changed.

A strong validator names exact bytes, so it becomes weak (RFC 9110 8.8.1); digests go (RFC 9530
2 and 3, RFC 3230, RFC 1864), and so does the offer of ranges (RFC 9110 14.3), for a part of the
original would not fit the parts that the client has. A signature over a digest (RFC 9421) fails
to verify then, as it should: it is left for the recipient to see.
"""

from __future__ import annotations

from dataclasses import replace

from proxy.callouts.http import framing
from proxy.callouts.http.writer import make_field
from proxy.heads import Field, RequestHead, ResponseHead

STALE = frozenset({b"content-md5", b"digest", b"repr-digest", b"content-digest", b"accept-ranges"})
#: Of the old content, when other content takes its place.
_OF_CONTENT = (
    STALE
    | framing.FRAMING_FIELDS
    | {
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-range",
        b"etag",
        b"last-modified",
    }
)


def weaken(head: ResponseHead) -> ResponseHead:
    """The head of a response whose content changes on its way."""
    return replace(head, fields=tuple(_weak(f) for f in head.fields if f.key not in STALE))


def without_digests(head: RequestHead) -> RequestHead:
    """The same for a request."""
    return replace(head, fields=tuple(f for f in head.fields if f.key not in STALE))


def fields_for(fields: tuple[Field, ...], content_type: str, length: int) -> tuple[Field, ...]:
    """The fields of a head that gets other content."""
    kept = [field for field in fields if field.key not in _OF_CONTENT]
    if content_type:
        kept.append(make_field(b"Content-Type", content_type.encode("latin-1", "replace")))
    kept.append(make_field(b"Content-Length", b"%d" % length))
    return tuple(kept)


def _weak(field: Field) -> Field:
    if field.key != b"etag" or field.value.startswith(b"W/"):
        return field
    return field._replace(value=b"W/" + field.value)
