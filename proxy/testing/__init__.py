"""Tools for the authors of callouts and policies: one flow in memory, and the law as a check."""

from proxy.testing.bench import WALL, Bench, Questions, sample_flow
from proxy.testing.drive import Outcome, Step, assert_invariant, assert_same, drive
from proxy.testing.trace import (
    Elapse,
    Item,
    Trace,
    byte_by_byte,
    conversation,
    every_cut,
    every_split,
    random_cuts,
    recut,
    show,
)

__all__ = [
    "WALL",
    "Bench",
    "Elapse",
    "Item",
    "Outcome",
    "Questions",
    "Step",
    "Trace",
    "assert_invariant",
    "assert_same",
    "byte_by_byte",
    "conversation",
    "drive",
    "every_cut",
    "every_split",
    "random_cuts",
    "recut",
    "sample_flow",
    "show",
]
