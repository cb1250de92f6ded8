"""Plain texts searched for all at once with vector instructions.

RE2 looks at every byte for more than one pattern: 1.6 s per GB. For a few literals the
Aho-Corasick library (docs.rs/aho-corasick, its packed searchers) finds out 18 times as fast
that there is none, which is what most content comes to. Its leftmost-first matches are those
of an alternation. Above WORD_LIMIT texts it has no packed searcher, and RE2 is as fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import ahocorasick_rs

WORD_LIMIT = 64


class Words:
    """Texts in their order; with `fold` they are lower-case ASCII, and so is what is searched."""

    def __init__(self, texts: Sequence[bytes], fold: bool) -> None:
        self._fold = fold
        kind = ahocorasick_rs.MatchKind.LeftmostFirst
        self._find = ahocorasick_rs.BytesAhoCorasick(texts, kind).find_matches_as_indexes

    def find(self, data: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
        """All matches in start..end that do not overlap, as (number, start, end) in `data`."""
        part = data if start == 0 and end == len(data) else data[start:end]
        found = self._find(part.lower() if self._fold else part)
        if not start:
            return found
        return [(number, first + start, last + start) for number, first, last in found]
