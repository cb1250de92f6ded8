"""Heads to bytes, from the parsed form alone: original spelling and order, one canonical form.

The version is the sender's own. A proxy would send its own (RFC 9110 6.2), but either end of a
redirected connection believes that it speaks to the other: told "1.1" by us, an HTTP/1.0
client's server would answer with chunks and interim responses that this client cannot read.
"""

from __future__ import annotations

from proxy.heads import Field, RequestHead, ResponseHead


def write_request(head: RequestHead) -> bytes:
    return b"%b %b HTTP/%b\r\n%b\r\n" % (
        head.method,
        head.target,
        head.version,
        write_fields(head.fields),
    )


def write_response(head: ResponseHead) -> bytes:
    return b"HTTP/%b %d %b\r\n%b\r\n" % (
        head.version,
        head.status,
        head.reason,
        write_fields(head.fields),
    )


def write_fields(fields: tuple[Field, ...]) -> bytes:
    """`Name: value` lines; an empty value keeps the blank, as h11 and most senders write it."""
    return b"".join([b"%b: %b\r\n" % (field.name, field.value) for field in fields])


def make_field(name: bytes, value: bytes) -> Field:
    return Field(name, name.lower(), value)
