"""A whole body read ahead of its message, for the callouts that want to see it complete.

The head waits in the stage meanwhile, and the body behind it: nothing is consumed here. Each
byte is unframed and decoded once. Bounded by the largest body that a callout wants.
"""

from __future__ import annotations

import enum

from proxy.callouts.http import framing
from proxy.callouts.http.bodyplan import coding_limits
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.unframe import unframer_for
from proxy.content.codings import Decoder, codings_of, unsupported
from proxy.contract import StreamData
from proxy.heads import Head, ResponseHead
from proxy.limits import Limits


class Gathered(enum.Enum):
    MORE = enum.auto()  #: it goes on
    WHOLE = enum.auto()
    TOO_LONG = enum.auto()
    CUT = enum.auto()  #: the stream has ended before the body did
    OPAQUE = enum.auto()  #: it cannot be decoded; `fault` says why
    MISFRAMED = enum.auto()  #: for the body's own way to refuse


class Gatherer:
    """`length`: of the head as it came; `most`: decoded bytes."""

    def __init__(
        self, head: Head, kind: framing.Framing, length: int, most: int, limits: Limits
    ) -> None:
        self.content = bytearray()
        self.fault: Finding | None = opaque(head)
        self._kind = kind
        self._length = length
        self._most = most
        scanner = ChunkScanner(limits.chunk_line_bytes, limits.trailer_bytes, lambda _: True)
        self._unframer = unframer_for(kind, scanner)
        codings = codings_of(head.all(b"content-encoding"))
        self._coded = bool(codings)
        self._decoder = Decoder(codings if self.fault is None else (), coding_limits(limits))
        self._looked = 0

    def look(self, data: StreamData) -> Gathered:
        """Take in what is new."""
        if self.fault is not None:
            return Gathered.OPAQUE
        if isinstance(self._kind, framing.Length) and not self._coded and self._kind.n > self._most:
            return Gathered.TOO_LONG
        consumed, content = self._unframer.decode(data.data[self._length + self._looked :])
        self._looked += consumed
        for piece in self._decoder.feed(content):
            self.content += piece
            if len(self.content) > self._most:
                return Gathered.TOO_LONG
        ended = isinstance(self._kind, framing.UntilClose) and data.no_more_data
        if ended or self._unframer.done:
            for piece in self._decoder.finish():
                self.content += piece
        if self._decoder.fault is not None:
            self.fault = Finding(self._decoder.fault.value, self._decoder.detail)
            return Gathered.OPAQUE
        if self._unframer.fault is not None:
            return Gathered.MISFRAMED
        if ended or self._unframer.done:
            return Gathered.WHOLE
        if data.no_more_data:
            return Gathered.CUT
        return Gathered.TOO_LONG if data.buffer_limit_reached else Gathered.MORE


def opaque(head: Head) -> Finding | None:
    """Why the content behind a head cannot be shown, as far as the head tells."""
    if isinstance(head, ResponseHead) and head.status == 206:
        return Finding("body.partial")
    unknown = unsupported(codings_of(head.all(b"content-encoding")))
    return Finding("body.coding_unknown", unknown) if unknown is not None else None
