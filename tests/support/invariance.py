"""The invariance law for the project's own tests: `proxy.testing`, and cuts by hypothesis.

assert_invariant(make_engine, trace, cuts)          # one way to cut it
for cuts in every_cut(trace): ...                   # short traces: all of them
@given(cuts=cuts_of(trace))                         # long ones: at random
"""

from __future__ import annotations

from hypothesis import strategies as st

from proxy.testing.drive import Answers, Outcome, Step, assert_invariant, drive
from proxy.testing.trace import (
    Elapse,
    Item,
    Pieces,
    Trace,
    byte_by_byte,
    conversation,
    data_size,
    every_cut,
    every_split,
    recut,
)

__all__ = [
    "Answers",
    "Elapse",
    "Item",
    "Outcome",
    "Pieces",
    "Step",
    "Trace",
    "assert_invariant",
    "byte_by_byte",
    "conversation",
    "cuts_of",
    "data_size",
    "drive",
    "every_cut",
    "every_split",
    "recut",
]


def cuts_of(trace: Trace) -> st.SearchStrategy[list[int]]:
    """Random cuts of a long trace, few or many, one byte at a time among them."""
    size = data_size(trace)
    if size < 2:
        return st.just([])
    return st.one_of(
        st.just(byte_by_byte(trace)),
        st.lists(st.integers(1, size - 1), max_size=12),
        st.integers(1, 64).map(lambda width: list(range(width, size, width))),
    )
