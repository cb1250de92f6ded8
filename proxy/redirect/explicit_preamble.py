"""What a client of an explicit proxy says first: a pure, bounded parser.

`CONNECT host:port` (RFC 9110 9.3.6): the head is consumed, what follows is the tunnel's.
Absolute-form (RFC 9112 3.2.2): only the authority is read here, and nothing is consumed: the
HTTP callout judges the request itself. Anything else is refused with an answer that says why.
The result does not depend on how the bytes were cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import h11

from proxy.errors import BadPreamble
from proxy.model import Endpoint
from proxy.redirect.authority import parse_authority

MAX_BYTES = 65536

# RFC 9112 3: method SP request-target SP HTTP-version. Strict: one space, no control bytes.
_REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r?"
)
_TOKEN_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")
_HEAD_END = re.compile(rb"\n\r?\n")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)")

_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


def reply(status: int, text: str, *fields: str) -> bytes:
    """A whole HTTP answer that ends the connection. `text` and `fields` are our own words."""
    body = text.encode() + b"\n"
    head = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        *fields,
        "Connection: close",
    ]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + body


def refusal(status: int, text: str) -> BadPreamble:
    """The exception that answers `status` and says why."""
    return BadPreamble(text, reply(status, text))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client wants. `leftover` is everything that was fed and not consumed."""

    target: Endpoint
    connect: bool
    leftover: bytes


class ExplicitPreamble:
    """feed() until it answers; it raises BadPreamble, and holds at most MAX_BYTES."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0  # no line end (or head end, once the line is known) before this
        self._connect: Endpoint | None = None
        self._start = 0  # RFC 9112 2.2: empty lines before the request line are ignored

    @property
    def empty(self) -> bool:
        """Has the client said nothing at all?"""
        return not self._buffer

    def feed(self, data: bytes) -> Asked | None:
        """Take more bytes; None: not yet."""
        self._buffer += data
        if self._connect is None:
            asked = self._read_line()
            if asked is not None or self._connect is None:
                return asked
        return self._read_head(self._connect)

    def _read_line(self) -> Asked | None:
        buffer = self._buffer
        self._skip_empty_lines()
        if self._start < len(buffer) and not _TOKEN_START.match(buffer, self._start):
            raise _not_http(buffer[self._start])
        end = buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(buffer)
            self._check_size(414, "the request line is too long")
            return None
        if end >= MAX_BYTES:
            raise refusal(414, f"the request line is too long (limit {MAX_BYTES} bytes)")
        self._scanned = end
        method, target = _split_line(bytes(buffer[self._start : end]))
        if method == b"CONNECT":
            self._connect = _endpoint(target, default_port=None)
            return None
        return Asked(_absolute_target(target), connect=False, leftover=bytes(buffer))

    def _skip_empty_lines(self) -> None:
        known = min(len(self._buffer), MAX_BYTES)
        while self._start < known and self._buffer[self._start] in b"\r\n":
            self._start += 1
        if self._start == MAX_BYTES:
            raise refusal(414, "there are only empty lines")
        self._scanned = max(self._scanned, self._start)

    def _read_head(self, target: Endpoint) -> Asked | None:
        found = _HEAD_END.search(self._buffer, self._scanned)
        if found is None:
            # The end may begin with the last two bytes: \n \r | \n
            self._scanned = max(self._scanned, len(self._buffer) - 2)
            self._check_size(431, "the header fields are too large")
            return None
        if found.end() > MAX_BYTES:
            raise refusal(431, f"the header fields are too large (limit {MAX_BYTES} bytes)")
        _check_connect(bytes(self._buffer[self._start : found.end()]))
        return Asked(target, connect=True, leftover=bytes(self._buffer[found.end() :]))

    def _check_size(self, status: int, text: str) -> None:
        if len(self._buffer) >= MAX_BYTES:
            raise refusal(status, f"{text} (limit {MAX_BYTES} bytes)")


def _split_line(line: bytes) -> tuple[bytes, bytes]:
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise refusal(400, "this is not an HTTP/1.1 request line")
    if found[3] != b"1":
        raise refusal(505, "this proxy's listener speaks HTTP/1.1")
    return found[1], found[2]


def _absolute_target(target: bytes) -> Endpoint:
    found = _ABSOLUTE.match(target)
    if found is None:
        raise refusal(
            400,
            "this is a proxy, not a web server: ask with an absolute URL "
            "(GET http://host/path) or with CONNECT host:port",
        )
    scheme = found[1].lower()
    if scheme != b"http":
        hint = "use CONNECT host:443" if scheme == b"https" else "only http:// is"
        raise refusal(501, f"this scheme is not served by absolute URL: {hint}")
    return _endpoint(found[2], default_port=80)


def _endpoint(authority: bytes, default_port: int | None) -> Endpoint:
    try:
        return parse_authority(authority, default_port)
    except ValueError as error:
        raise refusal(400, str(error)) from error


def _check_connect(head: bytes) -> None:
    """Refuse a CONNECT head that h11 refuses, or that announces content it cannot have."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BYTES)
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        status = error.error_status_hint if error.error_status_hint in _REASONS else 400
        raise refusal(status, "the head of this CONNECT request is malformed") from error
    if not isinstance(event, h11.Request):
        raise refusal(400, "the head of this CONNECT request is malformed")
    for name, value in event.headers:
        # RFC 9110 9.3.6: a CONNECT request has no content; what follows is the tunnel's.
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            raise refusal(400, "a CONNECT request has no content")


def _not_http(first: int) -> BadPreamble:
    """TLS and SOCKS clients would not understand an HTTP answer."""
    other = {0x16: "TLS", 0x04: "SOCKS4", 0x05: "SOCKS5"}.get(first)
    if other is None:
        return refusal(400, "this is not an HTTP/1.1 request")
    return BadPreamble(f"the client speaks {other}; this listener is an HTTP proxy")
