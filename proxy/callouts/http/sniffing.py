"""What a body is by its first bytes: when that is worth waiting for, and for how long.

The head of the response is held meanwhile, so the wait has three ends: enough bytes, the end
of the body, or a short timer. An event stream never waits. Of a body that cannot be decoded
the type is unknown.
"""

from __future__ import annotations

import enum

from proxy.callouts.http import framing
from proxy.callouts.http.bodyplan import coding_limits
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.unframe import unframer_for
from proxy.content.codings import Decoder, codings_of, unsupported
from proxy.content.sniff import sniff
from proxy.contract import StreamData
from proxy.heads import ResponseHead
from proxy.limits import Limits
from proxy.model import Layer
from proxy.policy.ruling import Policy

FIELD = "content_type.sniffed"


class Need(enum.Enum):
    NO = enum.auto()  #: no rule asks, or there is nothing to look at
    UNKNOWN = enum.auto()  #: a rule asks and the content cannot be decoded
    YES = enum.auto()


def need(policy: Policy, head: ResponseHead, kind: framing.Framing) -> Need:
    """Whether the first bytes of this response's body are to be waited for."""
    if not policy.wants_field(Layer.HTTP_RESPONSE, FIELD) or isinstance(kind, framing.NoBody):
        return Need.NO
    if unsupported(codings_of(head.all(b"content-encoding"))) is not None:
        return Need.UNKNOWN
    return Need.NO if head.content_type == "text/event-stream" else Need.YES


class Sniffer:
    """Looks at the body behind a held head; each byte is decoded once."""

    def __init__(
        self, head: ResponseHead, length: int, kind: framing.Framing, limits: Limits
    ) -> None:
        self.head = head
        self.length = length  #: of the head as it came
        self.time_is_up = False
        scanner = ChunkScanner(limits.chunk_line_bytes, limits.trailer_bytes, lambda _: True)
        self._unframer = unframer_for(kind, scanner)
        codings = codings_of(head.all(b"content-encoding"))
        self._decoder = Decoder(codings, coding_limits(limits)) if codings else None
        self._limit = limits.sniff_bytes
        self._looked = 0
        self._sample = bytearray()

    def look(self, data: StreamData) -> bool:
        """Take note of what is held now; True when that must do."""
        consumed, content = self._unframer.decode(data.data[self.length + self._looked :])
        self._looked += consumed
        pieces = self._decoder.feed(content) if self._decoder is not None else (content,)
        for piece in pieces:
            self._sample += piece
            if len(self._sample) >= self._limit:
                break
        unframer = self._unframer
        enough = len(self._sample) >= self._limit or unframer.done or unframer.fault is not None
        enough = enough or self.undecodable
        return enough or self.time_is_up or data.no_more_data or data.buffer_limit_reached

    @property
    def undecodable(self) -> bool:
        """The content is not coded as its head says."""
        return self._decoder is not None and self._decoder.fault is not None

    def result(self) -> str | None:
        """The media type by content; None when the bytes do not tell."""
        return sniff(bytes(self._sample[: self._limit]), self.head.content_type)
