"""Checks that any stream callout gets for nothing: the law, hostile bytes, budgets.

    def test_my_callout() -> None:
        report = check_stream_callout(MyCallout, [conversation(("S", b"220 mail\\r\\n"))])
        assert report.slowest_seconds < 0.01        # if you care on this machine

A failure is an AssertionError with the trace and the cuts that make it happen again.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.callouts.out_of_band import OutOfBandStage
from proxy.contract import FlowHandle, Kind, Mode, Signal, StreamCallout, StreamData, Verdict
from proxy.engine.registration import Registration
from proxy.limits import Cause, Limits, StreamConfig
from proxy.records import ExceptionApplied
from proxy.testing.bench import Bench
from proxy.testing.drive import Law, Outcome, assert_same
from proxy.testing.fuzz import hostile_traces
from proxy.testing.trace import Trace, byte_by_byte, data_size, every_split, random_cuts, show

NAME = "checked"  #: what records of a check call the callout
_SMALL = 4096  # stage_buffer of the budget runs: a callout must decide at the limit
_EVERY_BYTE = 8192  # bytes of a trace that is still fed byte by byte
_EVERY_SPLIT = 48  # bytes of a trace that is still cut in two at every place
_TIMEOUT = 2.0  # seconds, as in the settings
OWN_FAULTS = (Cause.CALLOUT_EXCEPTION, Cause.CALLOUT_OVERRUN)
_FAULTS = (*OWN_FAULTS, Cause.BUFFER_LIMIT)


@dataclass(slots=True)
class Report:
    """What a check has seen. Times are measured, and nobody's to assert but yours."""

    runs: int = 0
    calls: int = 0  #: of classify()
    slowest_seconds: float = 0.0  #: one classify() call; a coroutine's with what it waits for
    waits: bool = False  #: classify() is a coroutine function
    most_held: int = 0  #: bytes that one direction of the stage held at a call


class _Watched:
    """A callout with a stop-watch around it (contract.StreamCallout)."""

    def __init__(self, callout: Any, report: Report) -> None:
        self._callout = callout
        self._report = report

    def classify(self, data: StreamData) -> Any:
        with self._watch(data):
            return self._callout.classify(data)

    def signal(self, signal: Signal) -> bool:
        return bool(self._callout.signal(signal))

    def closed(self, reason: str) -> None:
        self._callout.closed(reason)

    @contextlib.contextmanager
    def _watch(self, data: StreamData) -> Iterator[None]:
        report = self._report
        report.calls += 1
        report.most_held = max(report.most_held, len(data.data))
        started = time.perf_counter()
        try:
            yield
        finally:
            report.slowest_seconds = max(report.slowest_seconds, time.perf_counter() - started)


class _WatchedCoroutine(_Watched):
    async def classify(self, data: StreamData) -> Verdict:
        with self._watch(data):
            verdict: Verdict = await self._callout.classify(data)
            return verdict


def register(
    make: Callable[..., Any],
    *,
    options: Mapping[str, Any] | None = None,
    kind: Kind = Kind.TERMINATING,
    weight: int = 0,
    report: Report | None = None,
) -> Registration:
    """A stream callout's factory, registered as the settings would: for a Bench.

    A coroutine `classify` makes it out of band.
    """
    given, seen = dict(options or {}), report or Report()

    def watched(flow: FlowHandle) -> StreamCallout:
        callout = make(flow, given)
        if inspect.iscoroutinefunction(callout.classify):
            seen.waits = True
            inner = _WatchedCoroutine(callout, seen)
            return OutOfBandStage(flow, lambda _: inner, _TIMEOUT)
        return _Watched(callout, seen)

    return Registration(NAME, weight, kind, Mode.OUT_OF_BAND, watched)


def check_stream_callout(
    make: Callable[..., Any],
    traces: Sequence[Trace] = (),
    *,
    options: Mapping[str, Any] | None = None,
    kind: Kind = Kind.TERMINATING,
    cuts: int = 20,
    fuzz: int = 60,
    seed: int = 0,
) -> Report:
    """Put a stream callout through everything; `make(flow, options)` as in the settings.

    Each trace runs whole, byte by byte and in `cuts` random ways; then `fuzz` hostile traces
    made of yours and of random bytes, with signals in between and, inline, a small buffer
    limit. Raises AssertionError when a result depends on the cut, when the callout raises or
    breaks the contract, and when the flow keeps buffer budget. `seed`: other random choices.
    """
    report, rng = Report(), random.Random(seed)
    stage = register(make, options=options, kind=kind, report=report)
    bench = Bench(stage)
    for trace in traces:
        check_trace(bench, trace, rng, cuts, report)
    bench.engine()  # one callout is made at the least
    if not report.waits:  # a bench answers after whole items: what waits would be too much
        bench = Bench(stage, config=StreamConfig(limits=Limits(stage_buffer=_SMALL)))
    for trace in hostile_traces(traces, rng, fuzz):
        check_trace(bench, trace, rng, 2, report)
    return report


def check_trace(
    bench: Bench,
    trace: Trace,
    rng: random.Random,
    cuts: int,
    report: Report,
    law: Law | None = None,
    faults: Sequence[Cause] = _FAULTS,
) -> Outcome:
    """One trace on a bench: the law in several cuts, no fault. Returns the uncut outcome.

    `law` as in `assert_same`.
    """
    whole = bench.run(trace)
    report.runs += 1
    refuse_faults(whole, trace, (), faults)
    for chosen in _ways(trace, rng, cuts):
        other = bench.run(trace, chosen)
        report.runs += 1
        refuse_faults(other, trace, chosen, faults)
        assert_same(whole, other, trace, chosen, law)
    return whole


def refuse_faults(
    outcome: Outcome, trace: Trace, cuts: Sequence[int], faults: Sequence[Cause] = _FAULTS
) -> None:
    """AssertionError when a callout failed in this run."""
    for record in outcome.all_records:
        if isinstance(record, ExceptionApplied) and record.cause in faults:
            at = f"{record.callout}: {record.cause.value}: {record.detail}"
            raise AssertionError(f"the callout fails: {at}\n{show(trace, cuts)}")


def _ways(trace: Trace, rng: random.Random, cuts: int) -> Iterator[list[int]]:
    size = data_size(trace)
    if size <= _EVERY_SPLIT:
        yield from every_split(trace)
    if 1 < size <= _EVERY_BYTE:
        yield byte_by_byte(trace)
    for _ in range(cuts if size > 1 else 0):
        yield random_cuts(trace, rng)
