"""Several patterns as few regular expressions: one kind to search, one for live prefixes.

Searching wants one big expression: its cost per byte does not depend on its size. The
expressions for live prefixes are looked at backwards from the end of the bytes and stop soon,
but grow slow to compile: 5,000 literals take 0.7 s in pieces of 4,096 states, 6 s in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from proxy.patterns import engine
from proxy.patterns.pattern import StreamPattern

SEARCH_STATES = 131072
LIVE_STATES = 4096
LIVE_FACTOR = 16  #: how much bigger the regex of live prefixes is: about log2 of the length
NEAR = 8  #: so many places are tried one by one, which does not look at what is behind them

Span = tuple[int, int]


class Joined:
    """Patterns of one set; which of them it is that matches, is not told.

    Where a pattern looks at the octets around a match (`boundary`), a whole match at the end of
    the bytes is not settled either: the next octet decides.
    """

    def __init__(self, patterns: Sequence[StreamPattern], boundary: bool) -> None:
        self._searches = [
            engine.compiled("|".join(p.plain for p in group), _states(group))
            for group in _groups(patterns, SEARCH_STATES)
        ]
        self._tails = [_Tail(group, boundary) for group in _groups(patterns, LIVE_STATES)]

    def first(self, data: bytes, start: int, end: int) -> Span | None:
        """Where the leftmost match in start..end is."""
        best: Span | None = None
        for search in self._searches:
            match = search.search(data, start, end)
            if match is not None and (best is None or match.start() < best[0]):
                best = match.span()
        return best

    def spans(self, data: bytes, start: int, before: int) -> Iterator[Span]:
        """The leftmost match, the leftmost behind it, and so on: those that begin in
        start..before.

        Byte by byte this is linear: each place is tried once as the beginning of a match.
        """
        if before - start <= NEAR:
            find = self._near
        elif len(self._searches) == 1:
            for match in self._searches[0].finditer(data, start):
                if match.start() >= before:
                    return
                yield match.span()
            return
        else:
            find = self._far
        while (span := find(data, start, before)) is not None:
            yield span
            start = span[1]

    def _far(self, data: bytes, start: int, before: int) -> Span | None:
        span = self.first(data, start, len(data)) if start < before else None
        return span if span is not None and span[0] < before else None

    def live(self, data: bytes, start: int) -> int:
        """The leftmost place from `start` on whose rest is not settled; len(data): none."""
        return min((tail.live(data, start) for tail in self._tails), default=len(data))

    def _near(self, data: bytes, start: int, before: int) -> Span | None:
        for place in range(start, before):
            for search in self._searches:
                match = search.match(data, place)
                if match is not None:
                    span: Span = match.span()
                    return span
        return None


class _Tail:
    def __init__(self, patterns: Sequence[StreamPattern], boundary: bool) -> None:
        live = [pattern.live for pattern in patterns]
        self._window = max(pattern.max_bytes - 1 for pattern in patterns)
        if boundary:
            live += [pattern.plain for pattern in patterns]
            self._window += 1
        regex = f"(?:{'|'.join(live)})\\z"
        self._search: Any = engine.compiled(regex, _states(patterns) * LIVE_FACTOR).search

    def live(self, data: bytes, start: int) -> int:
        at: int = self._search(data, max(start, len(data) - self._window)).start()
        return at


def _states(patterns: Sequence[StreamPattern]) -> int:
    return sum(pattern.states for pattern in patterns)


def _groups(patterns: Sequence[StreamPattern], states: int) -> list[list[StreamPattern]]:
    """Runs of patterns that are small enough together."""
    groups: list[list[StreamPattern]] = []
    room = 0
    for pattern in patterns:
        if not groups or pattern.states > room:
            groups.append([])
            room = states
        groups[-1].append(pattern)
        room -= pattern.states
    return groups
