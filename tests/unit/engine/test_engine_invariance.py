"""The invariance law of the engine, with callouts that do whatever the bytes tell them to."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.contract import (
    AllowConnection,
    Answer,
    Block,
    Defer,
    DropConnection,
    FlowHandle,
    How,
    NeedMoreData,
    Permit,
    Replace,
    Signal,
    StreamData,
    TimerFired,
    UpstreamFailed,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.engine.engine import Engine
from proxy.engine.registration import Kind, Mode, Registration
from proxy.limits import ExceptionPolicies, Limits, OnException, StreamConfig
from proxy.model import Direction, Layer
from proxy.records import Decided
from tests.support.invariance import (
    Elapse,
    Item,
    assert_invariant,
    byte_by_byte,
    conversation,
    cuts_of,
    drive,
    every_cut,
    every_split,
    recut,
)
from tests.support.scripted import IN, OUT, flow_info

WISHES = "pppPPbBrikniIdaAtxwfzvy"
READS = "pppPPknA"  # what an inspection may do


@dataclass
class Adversary:
    """Decides by the first undecided byte, its offset and a seed; by nothing else.

    So it obeys the law itself, and whatever differs between two cuts is the engine's doing.
    """

    flow: FlowHandle
    name: str
    seed: int
    may_ask: bool
    log: list[object]
    wishes: str = WISHES
    asked: int | None = None

    def _say(self, what: str, data: StreamData) -> None:
        detail = f"{data.direction.label}@{data.offset} missed={data.missed_bytes}"
        self.flow.emit(Decided(Layer.STREAM, what, self.name, "", 0, detail=detail))
        self.log.append((self.name, what, detail))

    def classify(self, data: StreamData) -> Verdict:
        rng = random.Random(f"{self.seed} {data.direction} {data.offset} {bytes(data.data[:1])!r}")
        if data.disconnect:
            self._say("fin", data)
            if self.wishes is READS:
                return Permit(0)
            return rng.choice([Permit(0), Permit(0), Replace(0, b"~"), Block(0)])
        wish, n = rng.choice(self.wishes), rng.randint(1, 5)
        if wish in "kIBr" and len(data.data) < n:  # looks ahead
            if data.no_more_data or data.buffer_limit_reached:
                n = len(data.data)
            else:
                return NeedMoreData(n - len(data.data))
        verdict = self._decide(wish, n, data, rng)
        if not isinstance(verdict, Defer):
            self._say(wish, data)
        return verdict

    def _decide(self, wish: str, n: int, data: StreamData, rng: random.Random) -> Verdict:
        flow, here, other = self.flow, data.direction, data.direction.opposite
        match wish:
            case "P":
                return Permit(n)  # ahead of what was shown, if need be
            case "b":
                return Block(1)
            case "B":
                return Block(n)
            case "r":
                return Replace(n, b"<" + bytes(data.data[:n]).upper() + b">")
            case "k":
                return Permit(n)
            case "i" | "I":
                if n % 2:
                    self._inject(here, b"+")
                self._inject(other, b"*")
            case "d" if data.offset % 3 == 0:
                if self.asked is None:
                    flow.set_timer(f"go{here}", 1.0)
                    return Defer()
            case "a" if self.may_ask and self.asked is None:
                self.asked = flow.ask(("may I", data.offset), 1.0)
                return rng.choice([Defer(), Permit(1)])
            case "A" if rng.random() < 0.1:
                return AllowConnection()
            case "x" if rng.random() < 0.1:
                raise RuntimeError("an adversary's exception")
            case "w":
                flow.proceed(other)
            case "f" if rng.random() < 0.1:
                if (here, "fin") not in self.log:
                    flow.finish(rng.choice([here, other]))
            case "z" if rng.random() < 0.05:
                return DropConnection()
            case "v" if rng.random() < 0.1:
                return Permit(0)  # a broken contract
        return Permit(1)

    def _inject(self, direction: Direction, data: bytes) -> None:
        self.flow.inject(direction, data)  # after the FIN a broken contract

    def signal(self, signal: Signal) -> bool:
        self.log.append((self.name, signal))
        if isinstance(signal, TimerFired):
            self.flow.proceed(Direction(int(signal.name[2:])))
        elif isinstance(signal, Answer):
            self.asked = None
        return isinstance(signal, UpstreamFailed) and self.seed % 2 == 0

    def closed(self, reason: str) -> None:
        self.log.append((self.name, "closed"))


class Factory:
    """make_engine() for a list of seeds; `log` is what the callouts lived through.

    `inspect_at` puts an inspection-only stage at that place among the others.
    """

    def __init__(
        self, seeds: list[int], config: StreamConfig, inspect_at: int | None = None
    ) -> None:
        self.log: list[tuple[object, ...]] = []
        self.budget = Budget(1 << 20)
        self.seeds = seeds
        self._config = config
        self._inspect_at = inspect_at

    def __call__(self) -> Engine:
        self.log.clear()
        registrations = [self._adversary(number, seed) for number, seed in enumerate(self.seeds)]
        if self._inspect_at is not None:
            weight = 5 - 10 * (self._inspect_at % (len(self.seeds) + 1))
            registrations.append(self._inspection(weight))
        return Engine(flow_info(), registrations, self._config, self.budget, lambda: 0.0)

    def _adversary(self, number: int, seed: int) -> Registration:
        mode = Mode.OUT_OF_BAND if seed % 3 == 0 else Mode.INLINE

        def make(flow: FlowHandle) -> Adversary:
            return Adversary(flow, f"s{number}", seed, mode is Mode.OUT_OF_BAND, self.log)

        return Registration(f"s{number}", -10 * number, Kind.TERMINATING, mode, make)

    def _inspection(self, weight: int) -> Registration:
        def make(flow: FlowHandle) -> Adversary:
            return Adversary(flow, "look", sum(self.seeds), False, self.log, READS)

        return Registration("look", weight, Kind.INSPECTION, Mode.INLINE, make)

    def lived(self, name: str) -> list[tuple[object, ...]]:
        """One stage's share of the log."""
        return [entry for entry in self.log if entry[0] == name]


def config(limit: int = 4096, action: OnException = OnException.OPEN) -> StreamConfig:
    policies = ExceptionPolicies(
        buffer_limit=action, callout_exception=action, callout_overrun=action
    )
    return StreamConfig(limits=Limits(stage_buffer=limit), exceptions=policies)


def answers(ask: fx.Ask) -> tuple[object, str | None] | None:
    return ("yes", None) if ask.id % 4 else (None, "no answer in time")


SIGNALS = [Elapse(1.0), fx.Disconnect(OUT), fx.Disconnect(IN), fx.Abort(IN)]
data_items = st.builds(fx.Data, st.sampled_from([OUT, IN]), st.binary(min_size=1, max_size=12))
long_data = st.builds(fx.Data, st.sampled_from([OUT, IN]), st.binary(min_size=30, max_size=500))
short_data = st.builds(fx.Data, st.sampled_from([OUT, IN]), st.binary(min_size=1, max_size=4))


@st.composite
def traces(
    draw: st.DrawFn, data: st.SearchStrategy[fx.Data] = data_items, most: int = 8
) -> list[Item]:
    """Data and signals in any order, but no data after its direction's end."""
    items = draw(
        st.lists(st.one_of(data, data, st.sampled_from(SIGNALS)), min_size=1, max_size=most)
    )
    trace: list[Item] = []
    ended: set[Direction] = set()
    for item in items:
        direction = getattr(item, "direction", None)
        if direction in ended:
            continue
        if isinstance(item, fx.Disconnect | fx.Abort):
            ended.add(item.direction)
        trace.append(item)
    return [*trace, Elapse(2.0), Elapse(2.0)]


seeds = st.lists(st.integers(0, 10_000), min_size=1, max_size=4)
actions = st.sampled_from(list(OnException))


def check(make: Factory, trace: list[Item], cuts: list[int]) -> None:
    whole = drive(make, trace, answers=answers)
    lived = list(make.log)
    assert_invariant(make, trace, cuts, answers=answers, whole=whole)
    assert make.log == lived
    assert make.budget.used == 0
    assert sum(entry[1] == "closed" for entry in lived) == len(make.seeds)


@settings(max_examples=400)
@given(st.data(), seeds, traces(), actions, st.sampled_from([5, 8, 4096]))
def test_random_cuts_change_nothing(data, seeds, trace, action, limit):
    check(Factory(seeds, config(limit, action)), trace, data.draw(cuts_of(trace)))


@given(st.data(), seeds, traces(long_data, 6), actions)
def test_random_cuts_of_long_traces_change_nothing(data, seeds, trace, action):
    check(Factory(seeds, config(300, action)), trace, data.draw(cuts_of(trace)))


@settings(max_examples=60)
@given(seeds, traces(short_data, 3), actions)
def test_no_cut_of_a_short_trace_changes_anything(seeds, trace, action):
    make = Factory(seeds, config(6, action))
    whole = drive(make, trace, answers=answers)
    lived = list(make.log)
    for cuts in every_cut(trace):
        assert_invariant(make, trace, cuts, answers=answers, whole=whole)
        assert make.log == lived


@settings(max_examples=200)
@given(st.data(), seeds, traces(), actions, st.integers(0, 4))
def test_an_inspection_changes_nothing_and_is_invariant_itself(data, seeds, trace, action, place):
    """Its records may come later than those of lower stages, for it does not hold them up."""
    without = drive(Factory(seeds, config(8, action)), trace, answers=answers)
    make = Factory(seeds, config(8, action), place)
    whole = drive(make, trace, answers=answers)
    assert (whole.outbound, whole.inbound, whole.end) == (
        without.outbound,
        without.inbound,
        without.end,
    )
    ended = whole.end is not None
    lived = make.lived("look")
    other = drive(make, recut(trace, data.draw(cuts_of(trace))), answers=answers)
    assert other.outbound == whole.outbound
    assert other.inbound == whole.inbound
    assert ended or make.lived("look") == lived


@settings(max_examples=200)
@given(seeds, traces(), actions)
def test_offloading_whatever_is_offered_changes_nothing(seeds, trace, action):
    make = Factory(seeds, config(4096, action))
    shown = drive(make, trace, answers=answers)
    lived = list(make.log)
    moved = drive(make, trace, answers=answers, offload=True)
    assert make.log == lived
    assert moved.steps == shown.steps
    assert sorted(map(repr, moved.all_records)) == sorted(map(repr, shown.all_records))


def test_a_callout_that_breaks_the_law_is_found():
    class Breaker(Adversary):
        def classify(self, data: StreamData) -> Verdict:
            return Replace(len(data.data), b"%d" % len(data.data)) if data.data else Permit(0)

    def make_engine() -> Engine:
        def make(flow: FlowHandle) -> Breaker:
            return Breaker(flow, "b", 0, False, [])

        one = Registration("b", 0, Kind.TERMINATING, Mode.INLINE, make)
        return Engine(flow_info(), [one], StreamConfig(), Budget(100), lambda: 0.0)

    trace = conversation(("C", b"hello"), ("S", b"hi"))
    assert drive(make_engine, trace).outbound == b"5"
    with pytest.raises(AssertionError, match="after item 0 of the trace differs"):
        assert_invariant(make_engine, trace, [2])
    assert assert_invariant(make_engine, trace, []).end == fx.End(
        How.CLOSE, "both sides have finished"
    )


def test_recut_keeps_items_and_bytes():
    trace = conversation(("C", b"abc"), ("S", b"de"))
    assert recut(trace, [1, 4])[:2] == [
        [fx.Data(OUT, b"a"), fx.Data(OUT, b"bc")],
        [fx.Data(IN, b"d"), fx.Data(IN, b"e")],
    ]
    assert sum(map(len, recut(trace, byte_by_byte(trace)))) == 7
    assert len(list(every_cut(trace))) == 16
    assert len(list(every_split(trace))) == 4
