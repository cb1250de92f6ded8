"""Watch content for patterns while it passes, and let no byte of a match out too early.

What leaves a guard is settled: no pattern that was not found yet can have its beginning there.
When a pattern is complete the guard stops: the match is inside, the content behind it has not
been looked at. The caller asks policy, and ends the message or calls `release`, which goes on:

    out = guard.feed(data)
    while guard.fresh:
        ...ask; to block means to keep `out`, and drop the rest...
        out += guard.release()

So what had left when a pattern was found, and what was known then, do not depend on the cut.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable

from proxy.content.scan import StreamScanner
from proxy.patterns import PatternSet

HELD_LIMIT = 1 << 20  #: coded bytes that a CodedGuard holds back


class _Watch:
    """Scans up to the next find. Offsets count content from the beginning of the stream."""

    def __init__(self, patterns: PatternSet, digest: bool) -> None:
        self.scanner = StreamScanner(patterns)
        self.size = 0  # scanned
        self.settled = 0  # up to here content may leave
        self.fresh = False
        self.total = 0  # scanned and waiting
        self._hash = hashlib.sha256() if digest else None
        self._waiting: deque[bytes] = deque()
        self._finishing = False

    @property
    def sha256(self) -> str | None:
        return self._hash.hexdigest() if self._hash else None

    def add(self, data: bytes) -> None:
        self.total += len(data)
        self._waiting.append(data)
        if not self.fresh:
            self._go_on()

    def release(self) -> None:
        """The find was answered: what is inside may leave, and the search goes on."""
        self.fresh = False
        self.settled = self.size - self.scanner.live
        self._go_on()

    def finish(self) -> None:
        self._finishing = True
        if not self.fresh:
            self._go_on()

    def _go_on(self) -> None:
        while self._waiting:
            data = self._waiting.popleft()
            taken = self._scan(data)
            if self.fresh:
                if taken < len(data):
                    self._waiting.appendleft(data[taken:])
                return
        if self._finishing:
            self._finishing = False
            self.fresh = bool(self.scanner.finish())
            if not self.fresh:
                self.settled = self.size

    def _scan(self, data: bytes) -> int:
        """Scan a piece up to the first octet that completes a pattern; how much that was."""
        before = self.scanner.snapshot()
        if self.scanner.feed(data):
            self.scanner.restore(before)
            taken = self._before_find(data)
            self._count(data[:taken])
            self.scanner.feed(data[taken : taken + 1])
            self.fresh = True
            self._count(data[taken : taken + 1], settle=False)
            return taken + 1
        self._count(data)
        return len(data)

    def _before_find(self, data: bytes) -> int:
        """How much of a piece that completes something may be scanned without that; bisecting."""
        low, high = 0, len(data)  # nothing is complete at low, something is at high
        while high - low > 1:
            middle = (low + high) // 2
            before = self.scanner.snapshot()
            if self.scanner.feed(data[low:middle]):
                self.scanner.restore(before)
                high = middle
            else:
                low = middle
        return low

    def _count(self, data: bytes, settle: bool = True) -> None:
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)
        if settle:
            self.settled = self.size - self.scanner.live


class _Findings:
    """What both guards tell of their content."""

    def __init__(self, patterns: PatternSet, *, digest: bool = False) -> None:
        self._watch = _Watch(patterns, digest)

    @property
    def found(self) -> frozenset[int]:
        """Numbers of all patterns found so far."""
        return self._watch.scanner.found

    @property
    def fresh(self) -> bool:
        """A pattern was found and `release` has not been called since: nothing leaves."""
        return self._watch.fresh

    @property
    def size(self) -> int:
        """Bytes of content looked at; at a find, up to the octet that completed it."""
        return self._watch.size

    @property
    def sha256(self) -> str | None:
        """Of what was looked at, in lower-case hex; None if it was not asked for."""
        return self._watch.sha256


class Guard(_Findings):
    """Passes content on byte for byte, but for what may be part of a match."""

    def __init__(self, patterns: PatternSet, *, digest: bool = False) -> None:
        super().__init__(patterns, digest=digest)
        self._held = b""
        self._left = 0  # bytes that have left

    def feed(self, data: bytes) -> bytes:
        """Content in; content that may leave out."""
        if not data:
            return b""
        self._held = self._held + data if self._held else bytes(data)
        self._watch.add(bytes(data))
        return self._out()

    def release(self) -> bytes:
        """Go on after a find; may find the next one (`fresh`)."""
        self._watch.release()
        return self._out()

    def finish(self) -> bytes:
        """The content has ended: all of it leaves, unless its end completes a match (`fresh`)."""
        self._watch.finish()
        return self._out()

    def surrender(self) -> bytes:
        """Everything that is held, searched or not: the guard is not used any more."""
        held, self._held = self._held, b""
        return held

    def _out(self) -> bytes:
        n = self._watch.settled - self._left
        self._left = self._watch.settled
        out, self._held = self._held[:n], self._held[n:]
        return out


class CodedGuard(_Findings):
    """Passes coded pieces on, each when all of its decoded content may leave.

    A coded piece leaves whole or not at all, so here what had left when a pattern was found
    depends on the cut. `overflow`: more than `limit` bytes are held, because they decode to
    nothing behind a live prefix; the caller must decide without more.
    """

    def __init__(
        self, patterns: PatternSet, *, digest: bool = False, limit: int = HELD_LIMIT
    ) -> None:
        super().__init__(patterns, digest=digest)
        self.overflow = False
        self._limit = limit
        self._pieces: deque[tuple[bytes, int]] = deque()  # a piece, where its content ends
        self._held = 0

    def feed(self, raw: bytes, decoded: Iterable[bytes]) -> bytes:
        """A coded piece with the content that it completes; coded pieces that may leave out."""
        for data in decoded:
            if data:
                self._watch.add(data)
        self._pieces.append((bytes(raw), self._watch.total))
        self._held += len(raw)
        return self._out()

    def release(self) -> bytes:
        """Go on after a find; may find the next one (`fresh`)."""
        self._watch.release()
        return self._out()

    def finish(self, decoded: Iterable[bytes] = ()) -> bytes:
        """The content has ended, with what the decoder still had."""
        for data in decoded:
            if data:
                self._watch.add(data)
        self._watch.finish()
        return self._out()

    def surrender(self) -> bytes:
        """Everything that is held, searched or not: the guard is not used any more."""
        pieces, self._pieces = self._pieces, deque()
        return b"".join(piece for piece, _ in pieces)

    def _out(self) -> bytes:
        out = []
        while self._pieces and self._pieces[0][1] <= self._watch.settled:
            piece, _ = self._pieces.popleft()
            self._held -= len(piece)
            out.append(piece)
        self.overflow = self._held > self._limit and not self.fresh
        return b"".join(out)
