"""What one coding's decoder is, as the chain in `codings` uses it.

A stage is fed coded bytes and yields what they decode to, in pieces; it raises Broken when the
bytes cannot be what they claim to be. INVARIANT: everything that the bytes before the wrong
one decode to is yielded before Broken is raised, so that the content does not depend on how
the stream was cut (`unbrotli` says where that cannot be had).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Protocol

PIECE = 65536  #: decoded bytes yielded at once, at most


class Fault(enum.StrEnum):
    """Why a body could not be decoded to its end; the values are anomaly ids."""

    UNKNOWN = "body.coding_unknown"  #: a coding that is not supported, or too many of them
    INVALID = "body.coding_invalid"  #: not what the coding's name says, or bytes behind its end
    TRUNCATED = "body.coding_truncated"  #: ended before the coded stream did
    BOMB = "body.bomb"  #: decodes to more than the limits allow


class Broken(Exception):
    """Ends a decoding. Never leaves `proxy.content`."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Parts:
    """How many members, frames or blocks there may be: each costs as much time as a lot of content
    does, and in a coding that is coded itself they cost no bytes. Any number up to `free`, beyond
    that one for each `per` bytes of content before it."""

    def __init__(self, what: str, free: int = 1024, per: int = 64) -> None:
        self._what = what
        self._free = free
        self._per = per
        self._count = 0
        self.content = 0  #: bytes so far

    def begin(self) -> None:
        """Another one begins. Raises Broken."""
        self._count += 1
        if self._count > self._free + self.content // self._per:
            detail = f"{self._what}: {self._count} of them for {self.content} bytes"
            raise Broken(Fault.BOMB, detail)

    @property
    def any(self) -> bool:
        return self._count > 0


class Stage(Protocol):
    """Decodes one coding. `feed`'s iterator must be used up before the next call."""

    @property
    def whole(self) -> bool:
        """Whether the stream may end here. Not asked of a stage that was never fed."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` decodes to, in pieces of at most PIECE bytes. Raises Broken."""
