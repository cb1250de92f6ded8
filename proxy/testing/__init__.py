"""Tools for the authors of callouts and policies: one flow in memory, and the law as a check."""

from proxy.testing.bench import WALL, Bench, Questions, sample_flow
from proxy.testing.drive import Outcome, Step, assert_invariant, assert_same, drive
from proxy.testing.fuzz import hostile_traces
from proxy.testing.http import (
    check_http_callout,
    register_http,
    request,
    response,
    sample_exchanges,
    unchunked,
)
from proxy.testing.streams import Report, check_stream_callout, register
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
    "Report",
    "Step",
    "Trace",
    "assert_invariant",
    "assert_same",
    "byte_by_byte",
    "check_http_callout",
    "check_stream_callout",
    "conversation",
    "drive",
    "every_cut",
    "every_split",
    "hostile_traces",
    "random_cuts",
    "recut",
    "register",
    "register_http",
    "request",
    "response",
    "sample_exchanges",
    "sample_flow",
    "show",
    "unchunked",
]
