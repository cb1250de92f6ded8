"""gzip and deflate: RFC 1952, RFC 1950 and RFC 1951, by zlib.

Strict where decoders differ, because content that we read otherwise than its recipient does
is content that nobody looked at:

- Bytes behind the end are a fault. Browsers drop them, other clients show or refuse them.
  Zeros behind the last gzip member are let through: no reader makes anything of them, and
  gzip(1) documents them as padding.
- Several gzip members are one content (RFC 1952 2.2), though some browsers show the first.
- `deflate` is zlib (RFC 9110 8.4.1.2) when its first two bytes are a zlib header, else raw
  RFC 1951, which many servers send. There is no second try: a stream that begins like zlib and
  fails is a fault, where browsers would start again as raw.
- A stream that begins like zlib *and* like raw stored data is a fault, too: a recipient that
  knows only raw would read something else. Chance makes one in 65,536 zlib streams look so.
"""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Generator, Iterator

from proxy.content.stages import PIECE, Broken, Fault, Parts

_GZIP, _ZLIB, _RAW = 31, 15, -15  # what zlib calls wbits


class _Stream:
    """One wrapped RFC 1951 stream. zlib checks its header, its check sum and its length."""

    def __init__(self, coding: str, wbits: int) -> None:
        self.size = 0  #: of the content so far
        self._coding = coding
        self._zlib = zlib.decompressobj(wbits)

    @property
    def ended(self) -> bool:
        return self._zlib.eof

    def feed(self, data: bytes) -> Generator[bytes, None, bytes]:
        """Yields content; returns what lies behind the stream's end."""
        while True:
            before = self._zlib.copy()
            try:
                content = self._zlib.decompress(data, PIECE)
            except zlib.error as error:
                if content := _longest(before, data):
                    yield content
                detail = f"{self._coding}: {_reason(error)}"
                raise Broken(Fault.INVALID, detail) from error
            if content:
                self.size += len(content)
                yield content
            if self._zlib.eof:
                return self._zlib.unused_data
            data = self._zlib.unconsumed_tail
            if not data and len(content) < PIECE:
                return b""


def _longest(state: zlib._Decompress, data: bytes) -> bytes:
    """What comes of `data` up to the byte that is wrong: zlib drops it with the error.

    Bounded by PIECE: the error came before so many bytes were decoded.
    """

    def fails(last: int) -> bool:
        try:
            state.copy().decompress(data[: last + 1])
        except zlib.error:
            return True
        return False

    wrong = bisect.bisect_left(range(len(data)), True, key=fails)
    return state.decompress(data[:wrong])


def _reason(error: zlib.error) -> str:
    """'Error -3 while decompressing data: invalid block type' -> 'invalid block type'"""
    text = str(error)
    return text.rpartition(": ")[2] if ": " in text else "a preset dictionary is wanted"


class Gzip:
    """RFC 1952: members one behind the other, then zeros at most."""

    def __init__(self) -> None:
        self._member: _Stream | None = None
        self._members = Parts("gzip members")
        self._padding = False

    @property
    def whole(self) -> bool:
        return self._member is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                data = self._between(data)
                if self._member is None:
                    return
            data = yield from self._member.feed(data)
            if self._member.ended:
                self._members.content += self._member.size
                self._member = None

    def _between(self, data: bytes) -> bytes:
        """Starts the next member, or takes zeros away."""
        if self._members.any and (self._padding or data[0] == 0):
            self._padding = True
            data = data.lstrip(b"\0")
        if data:
            if self._members.any and (self._padding or data[0] != 0x1F):
                raise Broken(Fault.INVALID, "gzip: bytes behind the end")
            self._members.begin()
            self._member = _Stream("gzip", _GZIP)
        return data


class Deflate:
    """RFC 1950, or RFC 1951 without a wrapper: the first bytes decide, once."""

    def __init__(self) -> None:
        self._stream: _Stream | None = None
        self._start = b""

    @property
    def whole(self) -> bool:
        return self._stream is not None and self._stream.ended

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            data = self._start = self._start + data
            wbits = _wrapper(data)
            if wbits is None:
                return
            self._stream = _Stream("deflate", wbits)
        if data and (self._stream.ended or (yield from self._stream.feed(data))):
            raise Broken(Fault.INVALID, "deflate: bytes behind the end")


def _wrapper(start: bytes) -> int | None:
    """wbits for a stream that starts so; None: more bytes are needed."""
    if len(start) < 2:
        return None
    # RFC 1950 2.2: CM is 8, CINFO at most 7, and CMF and FLG together a multiple of 31.
    if start[0] & 0x8F != 0x08 or int.from_bytes(start[:2], "big") % 31:
        return _RAW
    if len(start) < 5:
        return None
    # RFC 1951 3.2.4: a stored block, whose LEN is followed by its complement. The bits that a
    # zlib header has set in the first byte are ignored padding there.
    length, complement = start[1:3], start[3:5]
    if all(a ^ b == 0xFF for a, b in zip(length, complement, strict=True)):
        raise Broken(Fault.INVALID, "deflate: may be read as zlib and as raw data")
    return _ZLIB
