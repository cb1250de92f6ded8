"""Takes the framing off a body: from bytes of the stream to bytes of content.

Content is given as it comes; where the message ends is found here for bodies that are shown
whole. Nothing is held: what is not consumed is shown again.
"""

from __future__ import annotations

from typing import Protocol

from proxy.callouts.http import framing
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.lines import Finding


class Unframer(Protocol):
    """Takes the framing off: `decode` answers (bytes consumed, content)."""

    trailer: bytes

    @property
    def done(self) -> bool: ...

    @property
    def fault(self) -> Finding | None: ...

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]: ...


class LengthUnframer:
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


class CloseUnframer:
    fault: Finding | None = None
    trailer = b""
    done = False

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]:
        return len(data), bytes(data)


class ChunkUnframer:
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


def unframer_for(kind: framing.Framing, scanner: ChunkScanner) -> Unframer:
    """What takes this framing off."""
    match kind:
        case framing.Length(n):
            return LengthUnframer(n)
        case framing.Chunked():
            return ChunkUnframer(scanner)
    return CloseUnframer()
