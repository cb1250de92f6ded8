"""Drive an engine with a trace in virtual time, and compare two runs: the invariance law.

The law (`proxy.contract`): take any trace of both directions with its signals, cut each data
item of it in any way; output bytes, verdicts and records are equal. What was written,
finished, armed and asked is compared after *every item* of the trace, so a byte that comes
earlier or later than it should is found, not only one that is wrong.

`make_engine()` returns a fresh Engine with fresh callouts; its clock should stand still
(`lambda: 0.0`), for an overrun depends on how long a call takes and so on the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

from proxy.engine import effects as fx
from proxy.engine.engine import Engine
from proxy.records import Record, Uninspected
from proxy.testing.trace import Elapse, Item, Pieces, Trace, recut, show

Answers = Callable[[fx.Ask], tuple[object, str | None] | None]  #: (value, error); None: never
_SHOWN = 400  # characters of a value in a complaint


@dataclass(frozen=True, slots=True)
class Step:
    """What had come out of the flow when an item of the trace had been fed whole."""

    outbound: bytes
    inbound: bytes
    finished: tuple[bool, bool]
    timers: tuple[tuple[tuple[int, str], float], ...]
    requests: tuple[fx.Effect, ...]  #: Dial, End, and Ask with plain data, in order
    paused: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything of a run that the law speaks of, and `effects` for those who care.

    `records` leaves out `Uninspected(permit_ahead)`: it measures how many bytes were never
    shown, and a cut that shows more at once leaves fewer of them. When the engine ended the
    flow, the figures of the other Uninspected records are 0: they count what had arrived in
    the same read beyond the byte that ended it.
    """

    steps: tuple[Step, ...]
    records: tuple[Record, ...]
    all_records: tuple[Record, ...] = field(compare=False)
    effects: tuple[fx.Effect, ...] = field(compare=False)

    @property
    def outbound(self) -> bytes:
        """What reached the upstream."""
        return self.steps[-1].outbound

    @property
    def inbound(self) -> bytes:
        """What reached the client."""
        return self.steps[-1].inbound

    @property
    def end(self) -> fx.End | None:
        """How the engine ended the flow; None: it did not."""
        ends = [effect for effect in self.effects if isinstance(effect, fx.End)]
        return ends[0] if ends else None


class Run:
    """An engine, virtual time, and all that it has asked for."""

    def __init__(self, engine: Engine, answers: Answers | None, offload: bool) -> None:
        self.engine = engine
        self.now = 0.0
        self.effects: list[fx.Effect] = []
        self._answers = answers
        self._offload = offload
        self._out = (bytearray(), bytearray())
        self._finished = [False, False]
        self._paused = [False, False]
        self._timers: dict[tuple[int, str], float] = {}
        self._requests: list[fx.Effect] = []
        self._unanswered: list[fx.Ask] = []

    def feed(self, item: Item) -> None:
        """One item, whole or a piece of it."""
        if isinstance(item, Elapse):
            self._elapse(item.seconds)
        elif isinstance(item, fx.Data) and self._offload:
            self._feed_offloading(item)
        else:
            self._take(self.engine.feed(item, self.now))

    def answer(self) -> None:
        """Answer what was asked while the last item was fed, in order."""
        while self._answers is not None and self._unanswered:
            ask = self._unanswered.pop(0)
            answer = self._answers(ask)
            if answer is not None:
                self._take(self.engine.resume(ask.id, *answer, self.now))

    def step(self) -> Step:
        """What has come out so far."""
        return Step(
            bytes(self._out[0]),
            bytes(self._out[1]),
            (self._finished[0], self._finished[1]),
            tuple(sorted(self._timers.items())),
            tuple(self._requests),
            (self._paused[0], self._paused[1]),
        )

    def close(self, reason: str) -> None:
        """The flow is over."""
        self._take(self.engine.close(reason, self.now))

    def _feed_offloading(self, item: fx.Data) -> None:
        """Move what may be offloaded past the engine, as a shell with splice() would."""
        credit = self.engine.offloadable(item.direction)
        n = len(item.data) if credit is None else min(credit, len(item.data))
        if n:
            self.engine.offloaded(item.direction, n, self.now)
            self._out[item.direction].extend(item.data[:n])
        if n < len(item.data):
            rest = fx.Data(item.direction, item.data[n:])
            self._take(self.engine.feed(rest, self.now))

    def _elapse(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [(at, key) for key, at in self._timers.items() if at <= until]:
            at, key = min(due)
            del self._timers[key]
            self.now = max(self.now, at)
            self._take(self.engine.feed(fx.StageTimer(*key), self.now))
        self.now = until

    def _take(self, effects: list[fx.Effect]) -> None:
        self.effects.extend(effects)
        for effect in effects:
            match effect:
                case fx.Write():
                    self._out[effect.direction].extend(effect.data)
                case fx.Finish():
                    self._finished[effect.direction] = True
                case fx.Pause() | fx.Resume():
                    self._paused[effect.direction] = isinstance(effect, fx.Pause)
                case fx.SetTimer():
                    self._timers.pop((effect.stage, effect.name), None)
                    if effect.delay is not None:
                        self._timers[effect.stage, effect.name] = self.now + effect.delay
                case fx.Ask():
                    if not callable(effect.question):  # how often real ones are put is the
                        self._requests.append(effect)  # cut's affair; here they are plain data
                    self._unanswered.append(effect)
                case fx.Dial():
                    self._requests.append(effect)
                case fx.End():
                    self._requests.append(effect)
                    self._paused = [False, False]


def drive(
    make_engine: Callable[[], Engine],
    trace: Trace | Pieces,
    *,
    answers: Answers | None = None,
    offload: bool = False,
    reason: str = "end of trace",
) -> Outcome:
    """Feed a trace (or one that `recut` has cut) to a fresh engine and close the flow.

    Questions are answered by `answers` when the item in which they were asked is complete.
    `offload` moves bytes past the engine whenever it allows that.
    """
    run = Run(make_engine(), answers, offload)
    steps = []
    for item in trace:
        for piece in item if isinstance(item, Sequence) else (item,):
            run.feed(piece)
        run.answer()
        steps.append(run.step())
    run.close(reason)
    steps.append(run.step())
    seen = tuple(effect.record for effect in run.effects if isinstance(effect, fx.Emit))
    ended = any(isinstance(effect, fx.End) for effect in run.effects)
    return Outcome(tuple(steps), tuple(_lawful(seen, ended)), seen, tuple(run.effects))


def _lawful(records: Sequence[Record], ended: bool) -> Iterator[Record]:
    for record in records:
        if not isinstance(record, Uninspected):
            yield record
        elif record.reason != "permit_ahead":
            yield replace(record, bytes=0) if ended else record


def assert_same(
    whole: Outcome, other: Outcome, trace: Trace, cuts: Sequence[int], law: Law | None = None
) -> None:
    """Assert that two outcomes of one trace are equal; the complaint says where they part."""
    law = law or Law()
    for number, (left, right) in enumerate(zip(whole.steps, other.steps, strict=True)):
        for entry in fields(Step):
            a, b = getattr(left, entry.name), getattr(right, entry.name)
            same = law.output(whole, a, b) if isinstance(a, bytes) else a == b
            if not same:
                where = f"{entry.name} after item {number} of the trace"
                raise AssertionError(_differs(where, a, b, trace, cuts))
    if law.records(whole) != law.records(other):
        raise AssertionError(_differs("the records", whole.records, other.records, trace, cuts))


class Law:
    """What has to be equal. `proxy.testing.http` has HTTP's, which leaves some of it open."""

    def output(self, whole: Outcome, a: bytes, b: bytes) -> bool:
        """Whether these outputs of two runs are the same; `whole` is the uncut one."""
        return a == b

    def records(self, outcome: Outcome) -> Sequence[Record]:
        """The records as they are to be compared."""
        return outcome.records


def _differs(where: str, a: object, b: object, trace: Trace, cuts: Sequence[int]) -> str:
    return (
        f"the result depends on the cut: {where} differs\n"
        f"  whole: {brief(a)}\n  cut:   {brief(b)}\n{show(trace, cuts)}"
    )


def brief(value: object) -> str:
    """A value for a complaint, not longer than a screen."""
    text = repr(value)
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]} ({len(text)} characters)"


def assert_invariant(
    make_engine: Callable[[], Engine],
    trace: Trace,
    cuts: Sequence[int],
    *,
    answers: Answers | None = None,
    whole: Outcome | None = None,
) -> Outcome:
    """Assert that this cut changes nothing; returns the outcome of the uncut trace.

    `whole` saves driving the uncut trace again when many cuts of it are tried.
    """
    whole = whole or drive(make_engine, trace, answers=answers)
    other = drive(make_engine, recut(trace, cuts), answers=answers)
    assert_same(whole, other, trace, cuts)
    return whole
