"""Find out which patterns occur in content that streams by.

Between two pieces only a live prefix is kept: the longest end of what was seen that may be the
beginning of a match. So the answers do not depend on where the content was cut.
"""

from __future__ import annotations

from proxy.patterns import PatternSet

#: Stands before the first and behind the last octet where a \\b looks: like the end of a text,
#: it is no part of a word.
_EDGE = b"\n"


class StreamScanner:
    """One stream's search. `live`: how many bytes at the end may be part of a match to come.

    Patterns that were found already do not count for `live` (in a set of more than
    `patterns.sets.SINGLE_LIMIT` they do: there it would cost more than it saves).
    """

    def __init__(self, patterns: PatternSet) -> None:
        self.found: frozenset[int] = frozenset()
        self.live = 0
        self._patterns = patterns
        self._around = int(patterns.boundary)  # octets of context on each side of what is searched
        self._tail = _EDGE[: self._around]  # context, then the live prefix

    def feed(self, data: bytes) -> frozenset[int]:
        """Numbers of the patterns that are complete with these bytes and were not before.

        Where a pattern ends with a word boundary, the octet behind it completes it; then the
        whole set waits for that octet.
        """
        if not data or self._done:
            return frozenset()
        buffer = self._tail + data if self._tail else bytes(data)
        fresh = self._search(buffer)
        self._keep(buffer)
        return fresh

    def finish(self) -> frozenset[int]:
        """The content has ended: what was complete but for the octet behind it."""
        self.live = 0
        if not self._around or self._done:
            return frozenset()
        return self._search(self._tail + _EDGE)

    def snapshot(self) -> tuple[frozenset[int], int, bytes]:
        """The state, to come back to by `restore`."""
        return self.found, self.live, self._tail

    def restore(self, state: tuple[frozenset[int], int, bytes]) -> None:
        self.found, self.live, self._tail = state

    @property
    def _done(self) -> bool:
        return len(self.found) == len(self._patterns)

    def _search(self, buffer: bytes) -> frozenset[int]:
        end = len(buffer) - self._around
        fresh = self._patterns.occurring(buffer, self._around, end, self.found)
        self.found |= fresh
        return fresh

    def _keep(self, buffer: bytes) -> None:
        if self._done:
            self.live, self._tail = 0, b""
            return
        keep = self._patterns.live(buffer, self._around, self.found)
        self.live = len(buffer) - keep
        self._tail = buffer[keep - self._around :]
