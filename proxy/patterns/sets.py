"""Patterns compiled to be searched together, over the bytes of a stream that are here.

A set is immutable and may be shared: compile it once per policy. One search over all of them
says where the first match is; another one, backwards from the end, where a match may still be
in the making. Measured in pieces of 64 KiB without a match: 0.2 to 0.3 CPU seconds per GB for
ten literals (`words`), about 2 for regexes and for 1,000 literals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from proxy.patterns import engine
from proxy.patterns.joined import LIVE_FACTOR, Joined
from proxy.patterns.pattern import StreamPattern
from proxy.patterns.words import WORD_LIMIT, Words

SINGLE_LIMIT = 32  #: up to so many patterns are looked at one by one where that is exact

_BOUNDARIES = re.compile(r"\\[bB]")  # in RE2 text as `tree.render` writes it, nothing else


@dataclass(frozen=True, slots=True)
class Found:
    """The leftmost match: `number` of the pattern, its span, and the spans of its groups."""

    number: int
    start: int
    end: int
    spans: Sequence[tuple[int, int]]  #: [0] is the whole; (-1, -1): took no part


class PatternSet:
    """Several patterns, numbered in their order, searched together.

    With `boundary` a pattern looks at the octets around its matches. Then the octet before
    `start` is looked at, too, and should be in the buffer unless the stream begins there.
    """

    def __init__(self, patterns: Sequence[StreamPattern]) -> None:
        self.patterns = tuple(patterns)
        self.boundary = any(pattern.boundary for pattern in self.patterns)
        self._joined = Joined(self.patterns, self.boundary)
        self._fold = bool(self.patterns) and self.patterns[0].fold
        self._words = _words(self.patterns)
        few = self._words is not None and 0 < len(self.patterns) <= WORD_LIMIT
        self._finder = Words(list(self._words or ()), self._fold) if few else None
        self._longest = max((pattern.max_bytes for pattern in self.patterns), default=0)
        self._states = sum(pattern.states for pattern in self.patterns)
        self._capturing: dict[int, Any] = {}  # these are compiled when they are needed first
        self._singles: dict[int, Joined] = {}
        self._anywhere: Any = None
        self._here: Any = None

    def __len__(self) -> int:
        return len(self.patterns)

    def matches(self, data: bytes, start: int, before: int) -> Iterator[Found]:
        """The leftmost match from `start` on, then the leftmost behind it, and so on, as long
        as they begin before `before`.

        Of several at one place it is the pattern of least number.
        """
        if self._finder is None or self._words is None:
            for span in self._joined.spans(data, start, before):
                yield self._identify(data, span)
            return
        numbers = list(self._words.values())
        for which, first, last in self._finder.find(data, start, len(data)):
            if first >= before:
                return
            yield Found(numbers[which], first, last, ((first, last),))

    def first(self, data: bytes, start: int, end: int) -> tuple[int, int] | None:
        """Where the leftmost match in start..end is, without asking which pattern it is."""
        if self._finder is None:
            return self._joined.first(data, start, end)
        found = self._finder.find(data, start, end)
        return found[0][1:] if found else None

    def live(self, data: bytes, start: int = 0, skip: frozenset[int] = frozenset()) -> int:
        """From which place on bytes may be part of a match that is not settled yet.

        No match that begins before it can come about or change with the bytes that follow.
        `skip` names patterns that need not be looked at; in a set of more than SINGLE_LIMIT
        they are looked at all the same.
        """
        if not skip or len(self.patterns) > SINGLE_LIMIT:
            return self._joined.live(data, start)
        left = (n for n in range(len(self.patterns)) if n not in skip)
        return min((self._single(n).live(data, start) for n in left), default=len(data))

    def occurring(
        self, data: bytes, start: int, end: int, skip: frozenset[int] = frozenset()
    ) -> frozenset[int]:
        """The numbers of all patterns that match somewhere in start..end, but those in `skip`.

        With `boundary` there must be an octet before `start` and one at `end`.
        """
        if len(skip) == len(self.patterns) or self.first(data, start, end) is None:
            return frozenset()
        around = int(self.boundary)
        found = self._all().Match(data[start - around : end + around])
        if not found:  # the automaton of a re2.Set may run out of memory, and says nothing then
            each = range(len(self.patterns))
            found = [n for n in each if self._single(n).first(data, start, end) is not None]
        return frozenset(found) - skip

    # --- which of them

    def _identify(self, data: bytes, span: tuple[int, int]) -> Found:
        """Alternation takes the first of its patterns that matches at this place."""
        start, end = span
        if self._words is not None:
            text = data[start:end]
            number = self._words[text.lower() if self._fold else text]
            return Found(number, start, end, (span,))
        if len(self.patterns) == 1 and not self.patterns[0].groups:
            return Found(0, start, end, (span,))
        for number in self._candidates(data, start):
            match = self._capture(number).match(data, start)
            if match is not None:
                groups = self.patterns[number].groups
                spans = [match.span(group) for group in range(groups + 1)]
                return Found(number, spans[0][0], spans[0][1], spans)
        raise AssertionError("a match of the whole is a match of one of its parts")

    def _candidates(self, data: bytes, start: int) -> Iterable[int]:
        """In order, patterns that may match at this place; those that do are among them."""
        if len(self.patterns) > SINGLE_LIMIT:
            if self._here is None:
                # Without \b: a re2.Set cannot look at the octet before its text.
                loose = [_BOUNDARIES.sub("", pattern.plain) for pattern in self.patterns]
                self._here = _set_of(re2.Set.MatchSet, loose, self._states)
            found = self._here.Match(data[start : start + self._longest])
            if found:
                return sorted(found)
        return range(len(self.patterns))

    def _capture(self, number: int) -> Any:
        pattern = self.patterns[number]
        if number not in self._capturing:
            self._capturing[number] = engine.compiled(pattern.regex, pattern.states)
        return self._capturing[number]

    def _single(self, number: int) -> Joined:
        if number not in self._singles:
            only = self.patterns[number : number + 1]
            self._singles[number] = Joined(only, self.boundary)
        return self._singles[number]

    def _all(self) -> Any:
        if self._anywhere is None:
            plain = [pattern.plain for pattern in self.patterns]
            if self.boundary:  # the octets around a match are in the text
                plain = [f"[\\x00-\\xff](?:{regex})[\\x00-\\xff]" for regex in plain]
            self._anywhere = _set_of(re2.Set.SearchSet, plain, self._states)
        return self._anywhere


def _set_of(kind: Any, regexes: Iterable[str], states: int) -> Any:
    built = kind(engine.options(states * LIVE_FACTOR))
    for regex in regexes:
        built.Add(regex.encode("ascii"))
    built.Compile()
    return built


def _words(patterns: Sequence[StreamPattern]) -> dict[bytes, int] | None:
    """For plain texts only: which number a matched text has; all fold, or none does."""
    words: dict[bytes, int] = {}
    for number, pattern in enumerate(patterns):
        if pattern.word is None or pattern.fold != patterns[0].fold:
            return None
        words.setdefault(pattern.word, number)
    return words
