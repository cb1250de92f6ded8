"""Patterns compiled to be searched together, over the bytes of a stream that are here.

A set is immutable and may be shared: compile it once per policy. One search over all of them
says where the first match is; another one, backwards from the end, where a match may still be
in the making. Measured with 1,000 literals of 8-20 bytes: 1.3 GB/s, 2 µs for the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from proxy.patterns import engine
from proxy.patterns.pattern import StreamPattern

GROUP_STATES = 32768  #: states of what is compiled together; more of it is split
SINGLE_LIMIT = 32  #: up to so many patterns are looked at one by one where that is exact

_BOUNDARIES = re.compile(r"\\[bB]")  # in RE2 text as `tree.render` writes it, nothing else


@dataclass(frozen=True, slots=True)
class Found:
    """The leftmost match: `number` of the pattern, its span, and the spans of its groups."""

    number: int
    start: int
    end: int
    spans: Sequence[tuple[int, int]]  #: [0] is the whole; (-1, -1): took no part


class _Joined:
    """Patterns in one regular expression, and in one for their live prefixes."""

    def __init__(self, patterns: Sequence[StreamPattern]) -> None:
        states = sum(pattern.states for pattern in patterns)
        self.window = max(pattern.window for pattern in patterns)
        self.search = engine.compiled(_choice(p.plain for p in patterns), states).search
        live = f"(?:{_choice(p.live for p in patterns)})\\z"
        self._live = engine.compiled(live, states * 16).search

    def live(self, data: bytes, start: int) -> int:
        """The leftmost place from `start` on whose rest is a live prefix; len(data): none."""
        at: int = self._live(data, max(start, len(data) - self.window)).start()
        return at


class PatternSet:
    """Several patterns, numbered in their order, searched together."""

    def __init__(self, patterns: Sequence[StreamPattern]) -> None:
        self.patterns = tuple(patterns)
        #: The octet before what is searched must stay in the buffer: a pattern looks at it.
        self.boundary = any(pattern.boundary for pattern in self.patterns)
        self.window = max((pattern.window for pattern in self.patterns), default=0)
        self._joined = [_Joined(group) for group in _groups(self.patterns)]
        self._words = _words(self.patterns)
        self._each: dict[int, Any] = {}
        self._states = sum(pattern.states for pattern in self.patterns)
        self._anywhere: Any = None  # compiled when first needed, as the next one
        self._here: Any = None

    def __len__(self) -> int:
        return len(self.patterns)

    def search(self, data: bytes, start: int = 0) -> Found | None:
        """The leftmost match from `start` on; of several there the pattern of least number."""
        span = self.first(data, start)
        if span is None:
            return None
        if self._words is not None:
            number = self._words[data[span[0] : span[1]]]
            return Found(number, span[0], span[1], (span,))
        return self._identify(data, span[0])

    def first(self, data: bytes, start: int = 0) -> tuple[int, int] | None:
        """Where `search` would find its match, without asking which pattern it is."""
        best: tuple[int, int] | None = None
        for joined in self._joined:
            match = joined.search(data, start)
            if match is not None and (best is None or match.start() < best[0]):
                best = match.span()
        return best

    def live(self, data: bytes, start: int = 0, skip: frozenset[int] = frozenset()) -> int:
        """From which place on bytes may be part of a match that is not complete yet.

        Everything before it is settled: no match that begins there can come about or change
        with the bytes that follow. `skip` names patterns that need not be looked at; in a set
        of more than SINGLE_LIMIT they are looked at all the same.
        """
        if not skip or len(self.patterns) > SINGLE_LIMIT:
            return min((j.live(data, start) for j in self._joined), default=len(data))
        left = (n for n in range(len(self.patterns)) if n not in skip)
        return min((self._single(n).live(data, start) for n in left), default=len(data))

    def occurring(self, data: bytes, skip: frozenset[int] = frozenset()) -> frozenset[int]:
        """The numbers of all patterns that match somewhere, without those in `skip`."""
        if len(skip) == len(self.patterns) or self.first(data) is None:
            return frozenset()
        if self._anywhere is None:
            plain = [pattern.plain for pattern in self.patterns]
            self._anywhere = _set_of(re2.Set.SearchSet, plain, self._states)
        found = self._anywhere.Match(data)
        if not found:  # the automaton of a re2.Set may run out of memory, and says nothing then
            each = range(len(self.patterns))
            found = [n for n in each if self._single(n).search(data) is not None]
        return frozenset(found) - skip

    # --- which of them

    def _identify(self, data: bytes, start: int) -> Found:
        """Alternation takes the first of its patterns that matches at this place."""
        for number in self._candidates(data, start):
            pattern = self.patterns[number]
            match = self._capturing(number, pattern).match(data, start)
            if match is not None:
                spans = [match.span(group) for group in range(pattern.groups + 1)]
                return Found(number, spans[0][0], spans[0][1], spans)
        raise AssertionError("a match of the whole is a match of one of its parts")

    def _candidates(self, data: bytes, start: int) -> Iterable[int]:
        """In order, patterns that may match at this place; those that do are among them."""
        if len(self.patterns) > SINGLE_LIMIT:
            if self._here is None:
                # Without \b: a re2.Set cannot look at the octet before its text.
                loose = [_BOUNDARIES.sub("", pattern.plain) for pattern in self.patterns]
                self._here = _set_of(re2.Set.MatchSet, loose, self._states)
            longest = max(pattern.max_bytes for pattern in self.patterns)
            found = self._here.Match(data[start : start + longest])
            if found:
                return sorted(found)
        return range(len(self.patterns))

    def _capturing(self, number: int, pattern: StreamPattern) -> Any:
        single = self._each.get(number)
        if single is None:
            single = self._each[number] = engine.compiled(pattern.regex, pattern.states)
        return single

    def _single(self, number: int) -> _Joined:
        single = self._each.get(-1 - number)
        if single is None:
            single = self._each[-1 - number] = _Joined(self.patterns[number : number + 1])
        joined: _Joined = single
        return joined


def _set_of(kind: Any, regexes: Iterable[str], states: int) -> Any:
    built = kind(engine.options(states * 16))
    for regex in regexes:
        built.Add(regex.encode("ascii"))
    built.Compile()
    return built


def _choice(regexes: Iterable[str]) -> str:
    return "|".join(regexes)


def _groups(patterns: Sequence[StreamPattern]) -> list[list[StreamPattern]]:
    """Runs of patterns that are small enough together."""
    groups: list[list[StreamPattern]] = []
    room = 0
    for pattern in patterns:
        if not groups or pattern.states > room:
            groups.append([])
            room = GROUP_STATES
        groups[-1].append(pattern)
        room -= pattern.states
    return groups


def _words(patterns: Sequence[StreamPattern]) -> dict[bytes, int] | None:
    """For plain texts only: which number a matched text has."""
    words: dict[bytes, int] = {}
    for number, pattern in enumerate(patterns):
        if pattern.word is None:
            return None
        words.setdefault(pattern.word, number)
    return words
