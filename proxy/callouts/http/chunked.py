"""A strict, streaming scanner of chunked bodies (RFC 9112 7.1): finds boundaries, holds nothing.

It is shown what the stage holds, from the first byte not yet passed, and answers how many
leading bytes it has proved. A size line, a chunk's CRLF and the trailer section are proved
whole, chunk data as it comes. It follows no cut of the stream: the same bytes give the same
answer in any pieces.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.callouts.http.lines import TOKEN, EndOfHead, Finding, section_is_canonical

_LINE = re.compile(rb"(0*+)([0-9A-Fa-f]*)([^\r\n]*)\r\n")
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_EXTENSIONS = re.compile(
    rb"(?:[ \t]*;[ \t]*"
    + TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*[ \t]*"
)
# Whole chunks of up to 15 bytes without extension: a run of them is proved at the speed of the
# expression. Otherwise one-byte chunks would cost a hundred times what their bytes do.
_SMALL = re.compile(b"|".join(rb"[%x%X]\r\n.{%d}\r\n" % (n, n, n) for n in range(1, 16)), re.DOTALL)
_RUN = re.compile(rb"(?:" + _SMALL.pattern + rb")++", re.DOTALL)
_SMALL_OVERHEAD = len(b"1\r\n\r\n")
_MAX_DIGITS = 15  # significant ones: below 2**60

# Fields that a recipient must not merge from a trailer: framing, routing, request modifiers,
# credentials, and what says how to read the content (RFC 9110 6.5.1).
FORBIDDEN_TRAILERS = frozenset(
    b"age authorization cache-control connection content-encoding content-length content-range"
    b" content-type content_length cookie date expect expires host if-match if-modified-since"
    b" if-none-match if-range if-unmodified-since keep-alive location max-forwards"
    b" proxy-authenticate proxy-authorization proxy-connection range retry-after set-cookie te"
    b" trailer transfer-encoding transfer_encoding upgrade vary via www-authenticate".split()
)


class _At(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    CRLF = enum.auto()
    TRAILER = enum.auto()
    DONE = enum.auto()


@dataclass(slots=True)
class Scan:
    """What one look proved. Spans are offsets into the bytes shown.

    `consumed` leading bytes are proved, `size` of them are content; `payload` are the spans of
    chunk data among them (if asked for), `cuts` what repair takes out; `trailer` is the trailer
    section without its empty line.
    """

    consumed: int = 0
    size: int = 0
    payload: list[tuple[int, int]] = field(default_factory=list)
    cuts: list[tuple[int, int]] = field(default_factory=list)
    trailer: bytes = b""


class ChunkScanner:
    """One body. `fault` is set, once everything before it was consumed, and stays.

    `repairs(finding)` is asked for what could be repaired; False refuses it. `spans`: whether
    `Scan.payload` is wanted.
    """

    def __init__(
        self,
        line_bytes: int,
        trailer_bytes: int,
        repairs: Callable[[Finding], bool],
        *,
        spans: bool = True,
    ) -> None:
        self.spans = spans
        self.done = False
        self.fault: Finding | None = None
        self._line_bytes = line_bytes
        self._repairs = repairs
        self._at = _At.SIZE
        self._left = 0
        self._end = EndOfHead(trailer_bytes)
        self._looked = 0  # bytes of an incomplete size line without LF

    def scan(self, data: bytes | bytearray) -> Scan:
        """Prove as much as can be. Nothing consumed: more is needed, or `fault` says why not."""
        scan = Scan()
        while not self.done and self.fault is None:
            before = scan.consumed
            _STEPS[self._at](self, data, scan)
            if scan.consumed == before:
                break
        return scan

    def _size(self, data: bytes | bytearray, scan: Scan) -> None:
        if not self.spans and not self._looked:
            self._small_ones(data, scan)
        start = scan.consumed
        limit = start + self._line_bytes
        end = data.find(b"\n", start + self._looked, limit) + 1
        if not end:
            self._looked = min(len(data) - start, self._line_bytes)
            if len(data) >= limit:
                self.fault = Finding("http1.chunk_line_too_long", f"{self._line_bytes} bytes")
            return
        self._looked = 0
        match = _LINE.fullmatch(data, start, end)
        if match is None or not match[1] + match[2] or len(match[2]) > _MAX_DIGITS:
            self.fault = _line_fault(bytes(data[start:end]))
            return
        if match[3] and not self._extension(bytes(match[3])):
            return
        size = int(match[2] or b"0", 16)
        if len(match[1]) > _MAX_DIGITS:  # valid, but more than some parsers count
            scan.cuts.append((match.start(1), match.end(1) - (not size)))
        if match[3]:
            scan.cuts.append(match.span(3))
        self._left = size
        self._at = _At.DATA if size else _At.TRAILER
        scan.consumed = end

    def _small_ones(self, data: bytes | bytearray, scan: Scan) -> None:
        run = _RUN.match(data, scan.consumed)
        if run is not None:
            scan.consumed = run.end()
            count = len(_SMALL.findall(run[0]))
            scan.size += len(run[0]) - count * _SMALL_OVERHEAD

    def _extension(self, text: bytes) -> bool:
        if not _EXTENSIONS.fullmatch(text):
            id_ = (
                "http1.chunk_ext_invalid" if text.lstrip(b" \t")[:1] == b";" else "http1.chunk_size"
            )
            self.fault = Finding(id_, ascii(text[:60])[2:-1])
            return False
        finding = Finding("http1.chunk_ext", ascii(text[:60])[2:-1])
        if not self._repairs(finding):
            self.fault = finding
        return self.fault is None

    def _data(self, data: bytes | bytearray, scan: Scan) -> None:
        start = scan.consumed
        end = min(start + self._left, len(data))
        if end == start:
            return
        scan.size += end - start
        if self.spans:
            scan.payload.append((start, end))
        self._left -= end - start
        scan.consumed = end
        if not self._left:
            self._at = _At.CRLF

    def _crlf(self, data: bytes | bytearray, scan: Scan) -> None:
        ahead = data[scan.consumed : scan.consumed + 2]
        if ahead == b"\r\n":
            scan.consumed += 2
            self._at = _At.SIZE
        elif ahead not in (b"", b"\r"):
            wrong = ahead if ahead.startswith(b"\r") else ahead[:1]
            self.fault = Finding("http1.chunk_crlf", ascii(bytes(wrong))[2:-1])

    def _trailer(self, data: bytes | bytearray, scan: Scan) -> None:
        """Everything after the last chunk, judged when its empty line is there."""
        start = scan.consumed
        held = data if not start else data[start:]
        if held[:2] == b"\r\n":
            length: int | None = 2
        elif held[:1] == b"\n":
            self.fault = Finding("http1.chunk_crlf", "\\n")
            return
        else:
            length = self._end.find(held)
        if length is None:
            if len(held) >= self._end.limit:
                self.fault = Finding("http1.trailer_too_large", f"{self._end.limit} bytes")
            return
        self._end_of_trailer(bytes(held[:length]), scan)

    def _end_of_trailer(self, section: bytes, scan: Scan) -> None:
        if not section_is_canonical(section):
            self.fault = Finding("http1.trailer_field", ascii(section[:60])[2:-1])
            return
        at, kept = scan.consumed, []
        for line in section[:-2].splitlines(keepends=True):
            name = line.partition(b":")[0]
            if name.lower() not in FORBIDDEN_TRAILERS:
                kept.append(line)
            elif self._repairs(finding := Finding("http1.trailer_forbidden", name.decode())):
                scan.cuts.append((at, at + len(line)))
            else:
                self.fault = finding
                return
            at += len(line)
        scan.trailer = b"".join(kept)
        scan.consumed += len(section)
        self.done = True
        self._at = _At.DONE


def _line_fault(line: bytes) -> Finding:
    """Why a size line does not parse."""
    shown = ascii(line[:60])[2:-1]
    if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
        return Finding("http1.chunk_crlf", shown)
    return Finding("http1.chunk_size", shown)


_STEPS: dict[_At, Callable[[ChunkScanner, bytes | bytearray, Scan], None]] = {
    _At.SIZE: ChunkScanner._size,
    _At.DATA: ChunkScanner._data,
    _At.CRLF: ChunkScanner._crlf,
    _At.TRAILER: ChunkScanner._trailer,
}
