"""The content of one message searched while it goes by, as bytes and, if need be, as text.

What is released is the original, held back only as far as it may be the beginning of a match.
Text in an encoding that keeps no ASCII (UTF-16) is searched twice: as the bytes that they are,
and as the characters that they mean; a client that takes either reading finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.content.guard import CodedGuard, Guard
from proxy.content.text import TextView
from proxy.policy.ruling import BodyWatch


class Search:
    """`feed` takes bytes as they came together with what they decode to."""

    def __init__(self, watch: BodyWatch, view: TextView | None, *, coded: bool) -> None:
        self._plain = None if coded else Guard(watch.patterns, digest=watch.digest)
        self._coded = CodedGuard(watch.patterns, digest=watch.digest) if coded else None
        self._view = view
        self._text = CodedGuard(watch.patterns) if view is not None else None
        self._ahead = [b"", b""]  # what one of the two has released and the other has not

    @property
    def found(self) -> frozenset[int]:
        """Numbers of the patterns that were met."""
        text = self._text.found if self._text is not None else frozenset()
        return self._guard.found | text

    @property
    def size(self) -> int:
        """Decoded bytes seen."""
        return self._guard.size

    @property
    def sha256(self) -> str | None:
        return self._guard.sha256

    @property
    def fresh(self) -> bool:
        """Something was found: nothing more goes on until `release`."""
        return self._guard.fresh or (self._text is not None and self._text.fresh)

    def feed(self, raw: bytes, pieces: Iterable[bytes]) -> bytes:
        """What of the original may go on."""
        if self._view is None or self._text is None:
            return self._pass(raw, pieces)
        decoded = list(pieces)
        texts = [self._view.feed(piece) for piece in decoded]
        return self._both(self._pass(raw, decoded), self._text.feed(raw, texts))

    def release(self) -> bytes:
        """The find is permitted: what of the original may go on then."""
        text = self._text
        one = self._guard.release() if self._guard.fresh else b""
        other = text.release() if text is not None and text.fresh else b""
        return self._both(one, other) if text is not None else one

    def finish(self) -> bytes:
        """The content has ended: the rest of it, unless that completes a match (`fresh`)."""
        one = self._guard.finish()
        if self._view is None or self._text is None:
            return one
        return self._both(one, self._text.finish([self._view.finish()]))

    def surrender(self) -> bytes:
        """Everything that is held back goes on unsearched."""
        held = self._guard.surrender()
        return self._both(held, self._text.surrender()) if self._text is not None else held

    @property
    def _guard(self) -> Guard | CodedGuard:
        guard = self._plain or self._coded
        assert guard is not None
        return guard

    def _pass(self, raw: bytes, pieces: Iterable[bytes]) -> bytes:
        if self._coded is not None:
            return self._coded.feed(raw, pieces)
        assert self._plain is not None
        return self._plain.feed(raw)

    def _both(self, one: bytes, other: bytes) -> bytes:
        """Both release the same stream: what both have released goes."""
        ahead = self._ahead
        ahead[0] += one
        ahead[1] += other
        n = min(map(len, ahead))
        out = ahead[0][:n]
        self._ahead = [ahead[0][n:], ahead[1][n:]]
        return out
