"""Bodies on their way: how many bytes of a stream may pass, and where the message ends.

The untouched ones (`LengthBody`, `ChunkedBody`, `CloseBody`) pass the original bytes. A body
of known length permits ahead all but its last byte, which comes back to be seen: so the end
of the message is noticed even when the kernel has moved the rest.

What looks into content or changes it stands in `filtered`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
        """The verdict on what is shown; None when it stops here. Never with `disconnect`."""

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
