"""Random bounded patterns and texts over small alphabets, and RE2 itself to compare with."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import re2
from hypothesis import strategies as st

from proxy.patterns import PatternError, StreamPattern, joined, regex, sets


def reference(text: str) -> Any:
    """RE2's own view of a pattern: Latin-1, dot matches newline, octets of the UTF-8 text."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(text.encode(), options)


ATOMS = st.sampled_from(
    ["a", "b", "c", "A", ".", "[ab]", "[^a]", r"\w", r"\W", r"[b-c]", r"\x61", "(?i:a)", " "]
)
COUNTS = st.sampled_from(["?", "??", "{2}", "{0,2}", "{1,3}", "{1,3}?", "{2,3}"])


def _extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        inner.map(lambda part: f"({part})"),
        st.tuples(inner, COUNTS).map(lambda both: f"(?:{both[0]}){both[1]}"),
    )


_WORDS = st.recursive(ATOMS, _extend, max_leaves=6)
_BOUNDED = st.recursive(ATOMS | st.sampled_from([r"\b", r"\B"]), _extend, max_leaves=6)
TEXTS = st.text("aabbcA -\n", max_size=24).map(str.encode)


def _accepted(text: str) -> StreamPattern | None:
    try:
        return regex(text)
    except PatternError:
        return None


def patterns(boundaries: bool = True) -> st.SearchStrategy[StreamPattern]:
    """Patterns that `regex` takes, with word boundaries or without."""
    texts = _BOUNDED | _WORDS if boundaries else _WORDS
    return texts.map(_accepted).filter(lambda pattern: pattern is not None)  # type: ignore


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data cut at these places (taken modulo its length)."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


CUTS = st.one_of(st.just(range(64)), st.lists(st.integers(0, 64), max_size=8))


@contextlib.contextmanager
def split_sets() -> Iterator[None]:
    """Have every set treated as if it were too large for one expression."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("SEARCH_STATES", "LIVE_STATES", "NEAR"):
            patch.setattr(joined, limit, 2)
        patch.setattr(sets, "SINGLE_LIMIT", 1)
        patch.setattr(sets, "WORD_LIMIT", 1)
        yield
