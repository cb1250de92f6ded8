"""zstd: RFC 8878 with the window of RFC 9659, by the standard library's module.

The frame and block headers are read here, too: the library checks the window only when a
frame does not come in one go, and drops what it has decoded in a call that meets an error. So
it is given one compressed block at a time, and what it says does not depend on how the stream
was cut.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator

from proxy.content.stages import PIECE, Broken, Fault, Parts

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW = 8 * 1024 * 1024  #: RFC 9659 3: of the content coding, at most
_MAGIC = b"\x28\xb5\x2f\xfd"  # RFC 8878 3.1.1
_SKIPPABLE = b"\x2a\x4d\x18"  # RFC 8878 3.1.2: behind a byte from 0x50 to 0x5F
_BLOCK_MAX = 128 * 1024  # RFC 8878 3.1.1.2.4
_CHECKSUM = 4
_LARGEST_HEADER = 18
_RAW, _REPEATED, _COMPRESSED = range(3)  # RFC 8878 3.1.1.2.2


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
        self._alone = True  # what comes next may be wrong: nothing else is decoded with it
        self._checked = False  # a check sum ends this frame
        self._block_max = 0
        self._content_max: int | None = None  # where this frame must end, if it says so
        self._kind = _COMPRESSED  # of the present block
        self._repeats = 0  # of its byte
        self._scanned = 0  # bytes of content that are scanned and not decoded
        self._frames = Parts("zstd frames")
        # A stream that is flushed for every event has a block for each.
        self._blocks = Parts("zstd blocks", free=65536, per=8)
        self._frame = zstd.ZstdDecompressor()

    @property
    def whole(self) -> bool:
        return self._next is _Next.FRAME and not self._held and not self._left

    def feed(self, data: bytes) -> Iterator[bytes]:
        data = self._held + data
        self._held = b""
        begin = at = 0  # what lies between them has been scanned, and cannot be wrong
        while at < len(data):
            try:
                size = self._scan(data, at)
            except Broken:
                yield from self._decode(data[begin:at])
                raise
            if not size:
                self._held = data[at:]
                break
            if self._skips:
                begin = at + size
            elif self._alone:
                yield from self._decode(data[begin:at])
                begin = at + size
                yield from self._decode(data[at:begin])
            at += size
        yield from self._decode(data[begin:at])

    def _scan(self, data: bytes, at: int) -> int:
        """How many bytes from `at` on belong together; 0: more are needed."""
        if not self._left:
            return self._header(data[at : at + _LARGEST_HEADER])
        size = min(self._left, len(data) - at)
        if self._alone and self._kind == _RAW and size == self._left > 1:
            size -= 1  # with its last byte a frame may turn out to have the wrong size
        self._left -= size
        return size

    def _decode(self, data: bytes) -> Iterator[bytes]:
        more = bool(data)
        while more:
            try:
                content = self._frame.decompress(data, PIECE)
            except (zstd.ZstdError, EOFError) as error:
                reason = str(error).rpartition(": ")[2]
                raise Broken(Fault.INVALID, f"zstd: {reason}") from error
            if content:
                self._frames.content += len(content)
                yield content
            more = not self._frame.needs_input and not self._frame.eof
            data = b""
        self._scanned = (self._left, self._left and self._repeats, 0)[self._kind]

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
            self._frames.begin()
            self._skips, self._left = True, int.from_bytes(data[4:8], "little")
            return 8
        if len(data) < 5:
            return 0
        size = _header_size(data[4])
        if len(data) < size:
            return 0
        self._frames.begin()
        window, content = _window_and_content(data[4:size])
        self._block_max = min(window, _BLOCK_MAX)
        self._content_max = None if content is None else self._frames.content + content
        self._kind = _COMPRESSED
        self._skips, self._checked = False, bool(data[4] & 0x04)
        self._frame = zstd.ZstdDecompressor()
        self._next = _Next.BLOCK
        return size

    def _block_header(self, data: bytes) -> int:
        """RFC 8878 3.1.1.2. A block of one byte repeated holds it once."""
        if len(data) < 3:
            return 0
        self._blocks.content = self._frames.content + self._scanned
        self._blocks.begin()
        header = int.from_bytes(data[:3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind > _COMPRESSED or size > self._block_max:
            raise Broken(Fault.INVALID, "zstd: bad block header")
        if kind != _COMPRESSED:
            self._scanned += size
            so_far = self._frames.content + self._scanned
            if self._content_max is not None and so_far > self._content_max:
                raise Broken(Fault.INVALID, "zstd: more content than the frame's header says")
        self._kind, self._repeats = kind, size
        self._left = 1 if kind == _REPEATED else size
        self._alone = kind == _COMPRESSED or bool(last)
        if last:
            self._next = _Next.CHECKSUM if self._checked else _Next.FRAME
        return 3


def _header_size(descriptor: int) -> int:
    """Of a frame's header with its magic number, by its fifth byte (RFC 8878 3.1.1.1.1)."""
    single = descriptor & 0x20
    content_size = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    return 5 + (not single) + (0, 1, 2, 4)[descriptor & 3] + content_size


def _window_and_content(header: bytes) -> tuple[int, int | None]:
    """Sizes of a frame, by its header from the descriptor on (RFC 8878 3.1.1.1); None: not said.

    Raises Broken for what no recipient can be expected to read.
    """
    descriptor = header[0]
    single = bool(descriptor & 0x20)
    dictionary_at = 1 if single else 2
    content_at = dictionary_at + (0, 1, 2, 4)[descriptor & 3]
    if descriptor & 0x08:
        raise Broken(Fault.INVALID, "zstd: reserved bit in a frame's header")
    if any(header[dictionary_at:content_at]):
        raise Broken(Fault.INVALID, "zstd: a dictionary is wanted")
    content = None
    if content_at < len(header):
        # Of two bytes 256 is taken off (3.1.1.1.4).
        content = int.from_bytes(header[content_at:], "little")
        content += 256 if descriptor >> 6 == 1 else 0
    base = 1 << 10 + (header[1] >> 3) if not single else 0
    window = content if single and content is not None else base + base // 8 * (header[1] & 7)
    if window > WINDOW:
        raise Broken(Fault.INVALID, f"zstd: window of {window} bytes, above {WINDOW}")
    return window, content
