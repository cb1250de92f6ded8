"""zstd: RFC 8878 with the window of RFC 9659, by the standard library's module.

The frame and block headers are read here, too: the library checks the window only when a
frame does not come in one go, and drops what it has decoded in a call that meets an error. So
it is given one block at a time, and what it says does not depend on how the stream was cut.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator

from proxy.content.stages import PIECE, Broken, Fault

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW = 8 * 1024 * 1024  #: RFC 9659 3: of the content coding, at most
_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878 3.1.1
_SKIPPABLE = b"\x2a\x4d\x18"  # RFC 8878 3.1.2: behind a byte from 0x50 to 0x5F
_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW.bit_length() - 1}
_BLOCK_MAX = 128 * 1024  # RFC 8878 3.1.1.2.4
_CHECKSUM = 4
_LARGEST_HEADER = 18


class _Next(enum.Enum):
    """What comes when the present block is over."""

    FRAME = enum.auto()  #: or the end
    BLOCK = enum.auto()
    CHECKSUM = enum.auto()


class Zstd:
    """Frames one behind the other (RFC 8878 3.1); skippable ones are left out."""

    def __init__(self) -> None:
        self._next = _Next.FRAME
        self._held = b""  # of a header that is not complete: less than _LARGEST_HEADER
        self._left = 0  # bytes of a block, or of a skippable frame
        self._skips = False
        self._checked = False  # a check sum ends this frame
        self._frame = zstd.ZstdDecompressor(options=_OPTIONS)

    @property
    def whole(self) -> bool:
        return self._next is _Next.FRAME and not self._held and not self._left

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._held + data
        self._held = b""
        at = 0
        while at < len(data):
            if self._left:
                size = min(self._left, len(data) - at)
                self._left -= size
            else:
                size = self._header(data[at : at + _LARGEST_HEADER])
                if not size:
                    self._held = data[at:]
                    return
            if not self._skips:
                yield from self._decode(data[at : at + size])
            at += size

    def _decode(self, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                content = self._frame.decompress(data, PIECE)
            except (zstd.ZstdError, EOFError) as error:
                reason = str(error).rpartition(": ")[2]
                raise Broken(Fault.INVALID, f"zstd: {reason}") from error
            if content:
                yield content
            if self._frame.needs_input or self._frame.eof:
                return
            data = b""

    # --- headers: each takes what there is and answers its size, or 0 when more is needed

    def _header(self, data: bytes) -> int:
        match self._next:
            case _Next.FRAME:
                return self._frame_header(data)
            case _Next.BLOCK:
                return self._block_header(data)
            case _Next.CHECKSUM:
                if len(data) < _CHECKSUM:
                    return 0
                self._next = _Next.FRAME
                return _CHECKSUM

    def _frame_header(self, data: bytes) -> int:
        """RFC 8878 3.1.1.1 and 3.1.2."""
        skippable = data[0] & 0xF0 == 0x50 and _SKIPPABLE.startswith(data[1:4])
        if not skippable and not _MAGIC.startswith(data[:4]):
            raise Broken(Fault.INVALID, "zstd: no frame where one must begin")
        if skippable:
            if len(data) < 8:
                return 0
            self._skips, self._left = True, int.from_bytes(data[4:8], "little")
            return 8
        if len(data) < 5:
            return 0
        size = _header_size(data[4])
        if len(data) < size:
            return 0
        _check_header(data[4:size])
        self._skips, self._checked = False, bool(data[4] & 0x04)
        self._frame = zstd.ZstdDecompressor(options=_OPTIONS)
        self._next = _Next.BLOCK
        return size

    def _block_header(self, data: bytes) -> int:
        """RFC 8878 3.1.1.2. A block of one byte repeated holds it once."""
        if len(data) < 3:
            return 0
        header = int.from_bytes(data[:3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3 or size > _BLOCK_MAX:
            raise Broken(Fault.INVALID, "zstd: bad block header")
        self._left = 1 if kind == 1 else size
        if last:
            self._next = _Next.CHECKSUM if self._checked else _Next.FRAME
        return 3


def _header_size(descriptor: int) -> int:
    """Of a frame's header with its magic number, by its fifth byte (RFC 8878 3.1.1.1.1)."""
    single = descriptor & 0x20
    content_size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    return 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + content_size


def _check_header(header: bytes) -> None:
    """Raises Broken for what no recipient can be expected to read (RFC 8878 3.1.1.1)."""
    descriptor = header[0]
    single = bool(descriptor & 0x20)
    dictionary_at = 1 if single else 2
    content_at = dictionary_at + (0, 1, 2, 4)[descriptor & 3]
    if descriptor & 0x08:
        raise Broken(Fault.INVALID, "zstd: reserved bit in a frame's header")
    if any(header[dictionary_at:content_at]):
        raise Broken(Fault.INVALID, "zstd: a dictionary is wanted")
    if single:
        # The content is its own window; of two bytes 256 is taken off (3.1.1.1.4).
        window = int.from_bytes(header[content_at:], "little")
        window += 256 if descriptor >> 6 == 1 else 0
    else:
        base = 1 << 10 + (header[1] >> 3)
        window = base + base // 8 * (header[1] & 7)
    if window > WINDOW:
        raise Broken(Fault.INVALID, f"zstd: window of {window} bytes, above {WINDOW}")
