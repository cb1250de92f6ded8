"""Engines and callouts for tests that are about the engine itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.contract import FlowHandle, Permit, Signal, StreamData, Verdict
from proxy.engine.budget import Budget
from proxy.engine.engine import Engine
from proxy.engine.registration import Kind, Mode, Registration
from proxy.limits import StreamConfig
from proxy.model import Direction, Endpoint, FlowInfo, RedirectInfo

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


def flow_info() -> FlowInfo:
    """A flow from one documentation address to another."""
    there, here = Endpoint("192.0.2.1", 80), Endpoint("192.0.2.9", 40000)
    return FlowInfo(id="f", redirect=RedirectInfo("static", there, here), opened_at=0.0)


@dataclass
class Clock:
    """A clock that moves when told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


Classify = Callable[["Scripted", StreamData], Verdict]


@dataclass
class Scripted:
    """A callout made of functions; it remembers what it was shown.

    `seen` has (direction, bytes, offset, missed, flags) of every indication; the letters of
    flags: n(o more data), d(isconnect), l(imit).
    """

    flow: FlowHandle
    on_data: Classify
    on_signal: Callable[[Scripted, Signal], bool] | None = None
    on_closed: Callable[[Scripted, str], None] | None = None
    seen: list[tuple[Direction, bytes, int, int, str]] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    closings: list[str] = field(default_factory=list)

    def classify(self, data: StreamData) -> Verdict:
        flags = "n" * data.no_more_data + "d" * data.disconnect + "l" * data.buffer_limit_reached
        shown = bytes(data.data)
        self.seen.append((data.direction, shown, data.offset, data.missed_bytes, flags))
        return self.on_data(self, data)

    def signal(self, signal: Signal) -> bool:
        self.signals.append(signal)
        return bool(self.on_signal and self.on_signal(self, signal))

    def closed(self, reason: str) -> None:
        self.closings.append(reason)
        if self.on_closed:
            self.on_closed(self, reason)


def permit_all(callout: Scripted, data: StreamData) -> Verdict:
    """Let everything pass as it comes."""
    return Permit(len(data.data))


class Bench:
    """An engine with scripted stages: `bench.stage(...)` for each, then `bench.engine`."""

    def __init__(self, config: StreamConfig | None = None, budget: Budget | None = None) -> None:
        self.config = config or StreamConfig()
        self.budget = budget or Budget(1 << 30)
        self.clock = Clock()
        self.registrations: list[Registration] = []
        self.callouts: dict[str, Scripted] = {}
        self._engine: Engine | None = None

    def stage(
        self,
        on_data: Classify = permit_all,
        *,
        name: str = "a",
        weight: int | None = None,
        kind: Kind = Kind.TERMINATING,
        mode: Mode = Mode.INLINE,
        on_signal: Callable[[Scripted, Signal], bool] | None = None,
        on_closed: Callable[[Scripted, str], None] | None = None,
    ) -> Bench:
        """Register a stage below those that are there, unless `weight` says otherwise."""

        def make(flow: FlowHandle) -> Scripted:
            self.callouts[name] = Scripted(flow, on_data, on_signal, on_closed)
            return self.callouts[name]

        if weight is None:
            weight = -len(self.registrations)
        self.registrations.append(Registration(name, weight, kind, mode, make))
        return self

    @property
    def engine(self) -> Engine:
        """Made when it is first asked for."""
        if self._engine is None:
            self._engine = Engine(
                flow_info(), self.registrations, self.config, self.budget, self.clock
            )
        return self._engine

    def shown(self, name: str = "a") -> list[bytes]:
        """What a stage was shown, call by call."""
        return [shown for _, shown, *_ in self.callouts[name].seen]
