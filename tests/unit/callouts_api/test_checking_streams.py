"""`proxy.testing` finds what is wrong with a stream callout, and says how to see it again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.api import (
    Block,
    Defer,
    FlowHandle,
    NeedMoreData,
    Permit,
    Replace,
    StreamBase,
    StreamData,
    Verdict,
)
from proxy.engine.lane import ASK_WINDOW
from proxy.limits import Cause, ExceptionPolicies, Limits, OnException, StreamConfig
from proxy.records import ExceptionApplied
from proxy.testing import (
    Bench,
    Outcome,
    Questions,
    check_stream_callout,
    conversation,
    every_cut,
    register,
    show,
)
from proxy.testing.samples import Passing, Waiting

TALK = conversation(("C", b"hello there"), ("S", b"hi"))


class Callout(StreamBase):
    """Passes everything, but for what a subclass does."""

    def __init__(self, flow: FlowHandle, options: Mapping[str, Any]) -> None:
        self.flow = flow
        self.calls = 0

    def classify(self, data: StreamData) -> Verdict:
        self.calls += 1
        return self.judge(data) if data.data else Permit(0)

    def judge(self, data: StreamData) -> Verdict:
        return Permit(len(data.data))


class CountsReads(Callout):
    def judge(self, data: StreamData) -> Verdict:
        return Replace(len(data.data), b"%d " % self.calls)


class Raises(Callout):
    def judge(self, data: StreamData) -> Verdict:
        raise LookupError("nothing here")


class StandsStill(Callout):
    def judge(self, data: StreamData) -> Verdict:
        return Permit(0)


class WantsEverything(Callout):
    def judge(self, data: StreamData) -> Verdict:
        return Permit(len(data.data)) if data.no_more_data else NeedMoreData()


class CannotTakeNul(Callout):
    def judge(self, data: StreamData) -> Verdict:
        if b"\0" in data.data:
            raise ValueError("a NUL")
        return Permit(len(data.data))


class TrustsTheTimer(Callout):
    def signal(self, signal: object) -> bool:
        raise RuntimeError("a signal that I never asked for")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (CountsReads, "the result depends on the cut: outbound after item 0"),
        (Raises, "checked: callout_exception: LookupError: nothing here"),
        (StandsStill, "ContractError: Permit of 0 bytes does not fit"),
        (WantsEverything, "checked: buffer_limit: ContractError: NeedMoreData asks for more"),
        (CannotTakeNul, "checked: callout_exception: ValueError: a NUL"),
        (TrustsTheTimer, "callout_exception: RuntimeError: a signal that I never"),
    ],
)
def test_a_mistake_is_found_with_a_trace_that_shows_it(make: type[Callout], said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_stream_callout(make, [TALK])
    text = str(caught.value)
    assert said in text
    again: dict[str, Any] = {}
    exec(NAMES + text[text.index("trace = [") :], again)
    outcome = Bench(register(make), config=_SMALL).run(again["trace"], again["cuts"])
    whole = Bench(register(make), config=_SMALL).run(again["trace"])
    assert faults(outcome) or outcome.steps != whole.steps


NAMES = """
from proxy.api import Direction
from proxy.contract import *
from proxy.engine.effects import Abort, Data, Disconnect
from proxy.testing import Elapse
"""


def faults(outcome: Outcome) -> list[tuple[Cause, str]]:
    return [(r.cause, r.detail) for r in outcome.all_records if isinstance(r, ExceptionApplied)]


_SMALL = StreamConfig(limits=Limits(stage_buffer=4096))


@pytest.mark.parametrize("make", [Passing, Waiting])
def test_a_callout_that_keeps_the_contract_passes(make: type[Passing]) -> None:
    report = check_stream_callout(make, [TALK], fuzz=10)
    assert report.calls > report.runs > 20


def test_the_same_seed_makes_the_same_traces() -> None:
    first = check_stream_callout(Passing, [TALK], seed=7, fuzz=20)
    again = check_stream_callout(Passing, [TALK], seed=7, fuzz=20)
    assert (first.runs, first.calls) == (again.runs, again.calls)


def test_a_long_run_is_shown_in_short() -> None:
    text = show(conversation(("C", b"a" * 5000 + b"b")))
    assert "b'a' * 5000 + b'b'" in text


# --- coroutines


class Upper(StreamBase):
    """Waits for whole lines and answers them in capitals, one at a time."""

    def __init__(self, flow: FlowHandle, options: Mapping[str, Any]) -> None:
        self.asked = 0

    async def classify(self, data: StreamData) -> Verdict:
        self.asked += 1
        await asyncio.sleep(0)
        if data.disconnect:
            return Permit(0)
        end = data.data.find(b"\n") + 1
        if not end:
            ended = data.no_more_data or data.buffer_limit_reached
            return Block(len(data.data)) if ended else NeedMoreData()
        return Replace(end, bytes(data.data[:end]).upper())


def test_a_coroutine_keeps_the_law_in_every_cut() -> None:
    trace = conversation(("C", b"ab\nc"), ("S", b"x\ny"), ("C", b"d\n"))
    bench = Bench(register(Upper))
    whole = bench.run(trace)
    assert (whole.outbound, whole.inbound) == (b"AB\nCD\n", b"X\n")
    for cuts in every_cut(trace):
        other = bench.run(trace, cuts)
        assert (other.steps, other.records) == (whole.steps, whole.records)


def test_checks_put_a_coroutine_through_the_same() -> None:
    report = check_stream_callout(Upper, [conversation(("C", b"ab\ncd\nef"), ("S", b"g\n"))])
    assert report.waits
    assert report.runs > 100


def test_while_a_question_is_open_only_its_direction_waits_and_its_source_is_paused() -> None:
    piece = b"x" * 1000
    trace = conversation(*[("C", piece)] * (ASK_WINDOW // 1000 + 2), ("S", b"served\n"))
    with Questions() as run:
        bench = Bench(register(Upper), answers=lambda ask: None if ask.id == 1 else run(ask))
        steps = bench.run(trace).steps
    assert steps[0].paused == steps[ASK_WINDOW // 1000 - 1].paused == (False, False)
    assert steps[-4].paused == (True, False)
    assert (steps[-4].outbound, steps[-4].inbound) == (b"", b"SERVED\n")


def ended_by(make: type[Upper], on_error: str = "closed") -> tuple[bytes, list[tuple[Cause, str]]]:
    policy = OnException(on_error)
    table = ExceptionPolicies(callout_exception=policy, callout_overrun=policy)
    outcome = Bench(register(make), config=StreamConfig(exceptions=table)).run(TALK)
    return outcome.outbound, faults(outcome)


class Fails(Upper):
    async def classify(self, data: StreamData) -> Verdict:
        raise LookupError("no oracle")


class Defers(Upper):
    async def classify(self, data: StreamData) -> Verdict:
        return Defer()


class TooMuch(Upper):
    async def classify(self, data: StreamData) -> Verdict:
        return Block(len(data.data) + 1)


class NoVerdict(Upper):
    async def classify(self, data: StreamData) -> Any:
        return "yes"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Fails, "LookupError: no oracle"),
        (Defers, "ContractError: a coroutine waits by itself"),
        (TooMuch, "ContractError: Block of 12 bytes does not fit"),
        (NoVerdict, "ContractError: str is not a verdict"),
    ],
)
def test_what_a_coroutine_does_wrong_is_an_exception_of_its_own_flow(
    make: type[Upper], said: str
) -> None:
    out, (first, *_) = ended_by(make)
    assert (out, first[0]) == (b"", Cause.CALLOUT_EXCEPTION)
    assert said in first[1]
    out, _ = ended_by(make, "open")
    assert out == b"hello there"


def test_a_time_out_is_an_overrun() -> None:
    bench = Bench(register(Upper), answers=lambda ask: (None, "no answer within 2 s"))
    assert faults(bench.run(TALK)) == [(Cause.CALLOUT_OVERRUN, "no answer within 2 s")]
