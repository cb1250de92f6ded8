"""How long is a message's body: our own table of RFC 9112 6.3, the one owner of framing.

It is asked after the strict layer: at most one Content-Length, a plain decimal; at most one
Transfer-Encoding, `chunked`; never both. Proved by test against h11 fed whole messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.heads import Field, Head, RequestHead, ResponseHead


@dataclass(frozen=True, slots=True)
class NoBody:
    """The message ends with its head."""


@dataclass(frozen=True, slots=True)
class Length:
    """Exactly n bytes, n > 0."""

    n: int


@dataclass(frozen=True, slots=True)
class Chunked:
    """Chunks, then a trailer section (RFC 9112 7.1)."""


@dataclass(frozen=True, slots=True)
class UntilClose:
    """Everything until the server's FIN."""


Framing = NoBody | Length | Chunked | UntilClose

FRAMING_FIELDS = frozenset({b"content-length", b"transfer-encoding"})


def of_request(head: RequestHead) -> Framing:
    """RFC 9112 6.3 rules 4, 6 and 7."""
    return _declared(head) or NoBody()


def of_response(head: ResponseHead, method: bytes) -> Framing:
    """RFC 9112 6.3 rules 1, 2, 4, 6 and 8; `method` is the request's."""
    if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return NoBody()
    if method == b"CONNECT" and head.status < 300:
        return NoBody()  # rule 2: the tunnel begins, whatever the fields say
    return _declared(head) or UntilClose()


def _declared(head: Head) -> Framing | None:
    length: bytes | None = None
    for field in head.fields:
        if field.key == b"transfer-encoding":
            return Chunked()
        if field.key == b"content-length":
            length = field.value
    if length is None:
        return None
    n = int(length)
    return Length(n) if n else NoBody()


def without_framing(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple(field for field in fields if field.key not in FRAMING_FIELDS)


def keeps_open(head: Head) -> bool:
    """Whether the sender of this head means the connection to persist (RFC 9112 9.3)."""
    tokens = head.tokens(b"connection")
    if b"close" in tokens:
        return False
    return head.version != b"1.0" or b"keep-alive" in tokens
