"""Bodies that do not pass untouched: looked into, edited, or swallowed.

Their framing is taken off and written anew, for the content as it leaves.

They are passed on as they come, never gathered. So these follow the reads of the stream, and
are the relaxations of the invariance law: the *chunk boundaries* of such a body, the *flush
points* of a coding that is put on anew, and *how much had gone on* of a coded body that is then
blocked or found undecodable, or of a body that is blocked for its digest or size. The decoded
content of a body that goes through does not depend on them, and what a rule looks for never
goes whole.
"""

from __future__ import annotations

import enum

from proxy.callouts.http.body import hold
from proxy.callouts.http.chain import Chain
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.stale import STALE
from proxy.callouts.http.unframe import Unframer
from proxy.contract import Replace, StreamData, Verdict
from proxy.policy.ruling import Ruling


class Frame(enum.Enum):
    """How content is framed as it leaves."""

    CHUNKS = enum.auto()
    LENGTH = enum.auto()  #: as many bytes as the Content-Length in the head says
    UNTIL_CLOSE = enum.auto()


class FilteredBody:
    """Through a chain of filters, or through none when only the framing changes."""

    sees_all = True

    def __init__(self, unframer: Unframer, chain: Chain | None, frame: Frame) -> None:
        self.chain = chain
        self.frame = frame
        self._unframer = unframer
        self.last = b""  #: what may still go on when a step has answered None
        self._size = 0
        self._consumed = 0

    @property
    def done(self) -> bool:
        return self._unframer.done

    @property
    def fault(self) -> Finding | None:
        """Of the framing. The chain has its own."""
        return self._unframer.fault

    @property
    def stopped(self) -> bool:
        chain = self.chain
        return chain is not None and (chain.fault is not None or chain.ruling is not None)

    @property
    def ruling(self) -> Ruling | None:
        return self.chain.ruling if self.chain is not None else None

    def step(self, data: StreamData) -> Verdict | None:
        consumed, content = self._unframer.decode(data.data)
        if not consumed:
            return None if self.fault else hold(data)
        self._size += len(content)
        self._consumed = consumed
        chain = self.chain
        if chain is not None and content:
            content = chain.feed(content)
            if self.stopped:
                self.last = self._write(content)
                return None
        out = self._write(content)
        if self.done:
            out += self.flush()
            if self.stopped:
                return None
        return Replace(consumed, out)

    def open_up(self) -> Verdict | None:
        """After a fault of the chain: go on without it. None: that is not possible."""
        chain = self.chain
        held = chain.open_up() if chain is not None else None
        if held is None:
            return None
        out = self._write(held)
        return Replace(self._consumed, out + self._end() if self.done else out)

    def size(self, offset: int) -> int:
        return self._size

    def flush(self) -> bytes:
        rest = self.chain.finish() if self.chain is not None else b""
        return b"" if self.stopped else self._write(rest) + self._end()

    def _write(self, content: bytes) -> bytes:
        if self.frame is not Frame.CHUNKS or not content:
            return content
        return b"%x\r\n%b\r\n" % (len(content), content)

    def _end(self) -> bytes:
        if self.frame is not Frame.CHUNKS:
            return b""
        return b"0\r\n" + _without_stale(self._unframer.trailer, self.chain) + b"\r\n"


class SwallowedBody:
    """Read to its end and not passed on: other content has gone in its place."""

    sees_all = True
    stopped = False
    ruling: Ruling | None = None
    chain: Chain | None = None

    def __init__(self, unframer: Unframer) -> None:
        self._unframer = unframer
        self._size = 0

    @property
    def done(self) -> bool:
        return self._unframer.done

    @property
    def fault(self) -> Finding | None:
        return self._unframer.fault

    def step(self, data: StreamData) -> Verdict | None:
        consumed, content = self._unframer.decode(data.data)
        if not consumed:
            return None if self.fault else hold(data)
        self._size += len(content)
        return Replace(consumed, b"")

    def size(self, offset: int) -> int:
        return self._size

    def flush(self) -> bytes:
        return b""


def _without_stale(trailer: bytes, chain: Chain | None) -> bytes:
    """The trailer section; digests of the content as it was go (RFC 9530)."""
    if not trailer or chain is None:
        return trailer
    lines = trailer.split(b"\r\n")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in STALE]
    return b"\r\n".join(kept)
