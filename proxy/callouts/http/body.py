"""Bodies on their way: how many bytes of a stream may pass, and where the message ends.

The untouched ones (`LengthBody`, `ChunkedBody`, `CloseBody`) pass the original bytes. A body
of known length permits ahead all but its last byte, which comes back to be seen: so the end
of the message is noticed even when the kernel has moved the rest.

An edited body (`EditedBody`) is decoded, edited and framed anew. It is passed on as it comes,
never gathered: so the *chunk boundaries* of an edited body follow the reads of the stream.
That is the one relaxation of the invariance law; its decoded content does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxy.callouts.http import framing
from proxy.callouts.http.chunked import ChunkScanner, Scan
from proxy.callouts.http.lines import Finding
from proxy.contract import (
    Block,
    DropConnection,
    How,
    NeedMoreData,
    Permit,
    Replace,
    StreamData,
    Verdict,
)

ENDLESS = 1 << 62  #: credit for a body that ends with the connection

Repairs = Callable[[Finding], bool]


class Body(Protocol):
    """One message body, fed from the byte after its head.

    `sees_all`: every byte is shown, so `size` is known at any time. Of a body that is
    permitted ahead it is known at its end and at FIN; a count in between would tell how the
    stream was cut.
    """

    sees_all: bool

    @property
    def done(self) -> bool: ...

    @property
    def fault(self) -> Finding | None: ...

    def step(self, data: StreamData) -> Verdict | None:
        """The verdict on what is shown; None when the fault is met. Never with `disconnect`."""

    def size(self, offset: int) -> int:
        """Content bytes passed when the stream stands at `offset`."""

    def flush(self) -> bytes:
        """What is still to be written when the connection's end completes the body."""


class Editor(Protocol):
    """Changes content in flight (a body filter). Bounded memory."""

    @property
    def inserted(self) -> bool: ...

    @property
    def outcome(self) -> str: ...

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class LengthBody:
    """Content-Length bytes, from `start` on (offset in the stage's input)."""

    fault: Finding | None = None
    sees_all = False

    def __init__(self, start: int, length: int) -> None:
        self.done = False
        self._start = start
        self._end = start + length

    def step(self, data: StreamData) -> Verdict | None:
        left = self._end - data.offset
        have = len(data.data)
        if have >= left:
            self.done = True
            return Permit(left)
        return Permit(max(have, left - 1))

    def size(self, offset: int) -> int:
        return min(offset, self._end) - self._start

    def flush(self) -> bytes:
        return b""


class CloseBody:
    """Everything until FIN."""

    fault: Finding | None = None
    sees_all = False
    done = False

    def __init__(self, start: int) -> None:
        self._start = start

    def step(self, data: StreamData) -> Verdict | None:
        return Permit(ENDLESS)

    def size(self, offset: int) -> int:
        return offset - self._start

    def flush(self) -> bytes:
        return b""


class ChunkedBody:
    """Chunks as they came, each proved; extensions and forbidden trailers taken out."""

    sees_all = True

    def __init__(self, scanner: ChunkScanner) -> None:
        scanner.spans = False
        self._scanner = scanner
        self._size = 0

    @property
    def done(self) -> bool:
        return self._scanner.done

    @property
    def fault(self) -> Finding | None:
        return self._scanner.fault

    def step(self, data: StreamData) -> Verdict | None:
        scan = self._scanner.scan(data.data)
        if not scan.consumed:
            return None if self.fault else hold(data)
        self._size += scan.size
        if scan.cuts:
            return Replace(scan.consumed, _without(data.data, scan))
        return Permit(scan.consumed)

    def size(self, offset: int) -> int:
        return self._size

    def flush(self) -> bytes:
        return b""


class Decoder(Protocol):
    """Takes the framing off: `decode` answers (bytes consumed, content)."""

    trailer: bytes

    @property
    def done(self) -> bool: ...

    @property
    def fault(self) -> Finding | None: ...

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]: ...


class LengthDecoder:
    fault: Finding | None = None
    trailer = b""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]:
        taken = bytes(data[: self._left])
        self._left -= len(taken)
        self.done = not self._left
        return len(taken), taken


class CloseDecoder:
    fault: Finding | None = None
    trailer = b""
    done = False

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]:
        return len(data), bytes(data)


class ChunkDecoder:
    def __init__(self, scanner: ChunkScanner) -> None:
        self._scanner = scanner
        self.trailer = b""

    @property
    def done(self) -> bool:
        return self._scanner.done

    @property
    def fault(self) -> Finding | None:
        return self._scanner.fault

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]:
        scan = self._scanner.scan(data)
        self.trailer = scan.trailer
        return scan.consumed, b"".join([bytes(data[a:b]) for a, b in scan.payload])


class EditedBody:
    """Decoded, edited, and written as chunks (`chunked`) or bare, to end with the connection."""

    sees_all = True

    def __init__(self, decoder: Decoder, editors: tuple[Editor, ...], *, chunked: bool) -> None:
        self.editors = editors
        self.chunked = chunked
        self._decoder = decoder
        self._size = 0

    @property
    def done(self) -> bool:
        return self._decoder.done

    @property
    def fault(self) -> Finding | None:
        return self._decoder.fault

    def step(self, data: StreamData) -> Verdict | None:
        consumed, content = self._decoder.decode(data.data)
        if not consumed:
            return None if self.fault else hold(data)
        self._size += len(content)
        for editor in self.editors:
            content = editor.feed(content)
        out = self._write(content)
        return Replace(consumed, out + self.flush() if self.done else out)

    def size(self, offset: int) -> int:
        return self._size

    def flush(self) -> bytes:
        content = b""
        for editor in self.editors:
            content = editor.feed(content) + editor.finish()
        rest = self._write(content)
        return rest + b"0\r\n" + self._decoder.trailer + b"\r\n" if self.chunked else rest

    def _write(self, content: bytes) -> bytes:
        if not self.chunked or not content:
            return content
        return b"%x\r\n%b\r\n" % (len(content), content)


def decoder_for(kind: framing.Framing, scanner: ChunkScanner) -> Decoder:
    """What takes this framing off."""
    match kind:
        case framing.Length(n):
            return LengthDecoder(n)
        case framing.Chunked():
            return ChunkDecoder(scanner)
    return CloseDecoder()


def hold(data: StreamData) -> Verdict:
    """Ask for more; what can never be completed is dropped, so that the FIN shows the cut."""
    if data.no_more_data:
        return Block(len(data.data))
    return DropConnection(How.RESET) if data.buffer_limit_reached else NeedMoreData(1)


def _without(data: bytes | bytearray, scan: Scan) -> bytes:
    pieces, at = [], 0
    for start, end in scan.cuts:
        pieces.append(bytes(data[at:start]))
        at = end
    pieces.append(bytes(data[at : scan.consumed]))
    return b"".join(pieces)
