"""A bounded reader of the TLS ClientHello: server name and ALPN, over any cut.

RFC 8446 4.1.2 (ClientHello), 4.2 (extensions), 5.1 (records); RFC 6066 3 (server_name);
RFC 7301 3.1 (ALPN). It checks the structure as far as it reads it; what it calls bad no TLS
server could answer.
"""

from __future__ import annotations

from dataclasses import dataclass

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ALPN = 16
_RECORD_HEADER = 5
_RECORD_MAX = 1 << 14  # RFC 8446 5.1
_RANDOM = 32


@dataclass(frozen=True, slots=True)
class ClientHello:
    server_name: str | None  #: lower-case, without trailing dot; None: not sent
    alpn: tuple[str, ...]  #: as offered, decoded as Latin-1


@dataclass(frozen=True, slots=True)
class BadHello:
    """What came is no ClientHello."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """More bytes than the limit before its end."""

    reason: str


class _Malformed(Exception):
    """Leaves this module only as a BadHello."""


class HelloReader:
    """Feed it everything from the first record on, again and again: `feed(data)`.

    Each byte is read once, however it arrives. `limit` counts bytes of the stream.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._position = 0  # first byte of the stream that has not been read
        self._left = 0  # payload bytes that the current record still owes
        self._message = bytearray()  # handshake bytes, record headers removed

    def feed(self, data: bytes | bytearray) -> ClientHello | BadHello | TooLarge | None:
        """None: not complete yet. What it answers depends on a shortest prefix only."""
        try:
            if self._complete(data):
                return _parse(_Fields(bytes(self._message[4 : 4 + self._length()])))
        except _Malformed as problem:
            return BadHello(str(problem))
        too_large = len(data) > self._limit or self._length() > self._limit
        return TooLarge(f"ClientHello of more than {self._limit} bytes") if too_large else None

    def _length(self) -> int:
        """Length of the message's body; 0 until it is known."""
        return int.from_bytes(self._message[1:4], "big") if len(self._message) >= 4 else 0

    def _complete(self, data: bytes | bytearray) -> bool:
        """Read on; whether the whole message is there."""
        end = min(len(data), self._limit)
        while True:
            if len(self._message) >= 4 and len(self._message) >= 4 + self._length():
                return True
            if self._length() > self._limit:
                return False
            if self._left == 0:
                if end - self._position < _RECORD_HEADER:
                    return False
                self._open_record(data)
            taken = min(self._wanted(), self._left, end - self._position)
            if taken == 0:
                return False
            self._message += data[self._position : self._position + taken]
            self._position += taken
            self._left -= taken
            if self._message[0] != _CLIENT_HELLO:
                raise _Malformed(f"handshake message {self._message[0]} instead of ClientHello")

    def _wanted(self) -> int:
        """Bytes up to the next thing to know: the message's length, then its end."""
        known = len(self._message) >= 4
        return (4 + self._length() if known else 4) - len(self._message)

    def _open_record(self, data: bytes | bytearray) -> None:
        header = data[self._position : self._position + _RECORD_HEADER]
        length = int.from_bytes(header[3:], "big")
        if header[0] != _HANDSHAKE or header[1] != 3:
            raise _Malformed("a record inside the ClientHello is not a handshake record")
        if not 0 < length <= _RECORD_MAX:
            raise _Malformed(f"handshake record of {length} bytes")
        self._position += _RECORD_HEADER
        self._left = length


class _Fields:
    """Reads length-prefixed fields from front to back; raises _Malformed beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, n: int) -> bytes:
        field = self._data[self._at : self._at + n]
        if len(field) != n:
            raise _Malformed(f"ends {n - len(field)} bytes too early")
        self._at += n
        return field

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int, minimum: int = 0) -> bytes:
        """A field behind its length of `prefix` bytes."""
        field = self.take(self.number(prefix))
        if len(field) < minimum:
            raise _Malformed(f"a field of {len(field)} bytes, {minimum} are the least")
        return field


def _parse(hello: _Fields) -> ClientHello:
    if hello.number(2) >> 8 != 3:
        raise _Malformed("legacy_version is not 3.x")
    hello.take(_RANDOM)
    if len(hello.vector(1)) > 32:
        raise _Malformed("session id of more than 32 bytes")
    if len(hello.vector(2, 2)) % 2:
        raise _Malformed("odd length of the cipher suites")
    hello.vector(1, 1)  # compression methods
    extensions = _extensions(_Fields(hello.vector(2))) if hello else {}
    if hello:
        raise _Malformed("bytes after the extensions")
    name = extensions.get(_SERVER_NAME)
    offer = extensions.get(_ALPN)
    return ClientHello(
        _server_name(_list(name)) if name is not None else None,
        _protocols(_list(offer)) if offer is not None else (),
    )


def _extensions(fields: _Fields) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while fields:
        kind = fields.number(2)
        if kind in found:
            raise _Malformed(f"extension {kind} twice")  # RFC 8446 4.2
        found[kind] = fields.vector(2)
    return found


def _list(extension: bytes) -> _Fields:
    """The one vector<1..2^16-1> that an extension consists of."""
    outer = _Fields(extension)
    inner = _Fields(outer.vector(2, 1))
    if outer:
        raise _Malformed("bytes after the list in an extension")
    return inner


def _server_name(names: _Fields) -> str | None:
    """The host_name entry: exactly one is allowed (RFC 6066 3); other types are skipped."""
    found: str | None = None
    while names:
        kind, value = names.number(1), names.vector(2, 1)
        if kind != 0:
            continue
        if found is not None:
            raise _Malformed("two server names")
        if not all(0x21 <= byte <= 0x7E for byte in value):
            raise _Malformed("server name that is not printable ASCII")
        found = value.decode("ascii").lower().rstrip(".")
    return found


def _protocols(names: _Fields) -> tuple[str, ...]:
    found = []
    while names:
        found.append(names.vector(1, 1).decode("latin-1"))
    return tuple(found)
