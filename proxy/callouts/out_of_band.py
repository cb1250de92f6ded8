"""A stream callout whose classify() is a coroutine, as a stage of the synchronous engine.

One question at a time per direction. While it is open the engine holds what comes in, pauses
the source beyond its window (engine.lane.ASK_WINDOW) and goes on with the other direction.
A verdict counts for the bytes that the question was about: what has come in since follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.api import AsyncStreamCallout
from proxy.contract import Answer, Defer, FlowHandle, NeedMoreData, Signal, StreamData, Verdict
from proxy.errors import ContractError
from proxy.model import Direction


@dataclass(frozen=True, slots=True)
class _Answered:
    verdict: Verdict
    shown: StreamData


class OutOfBandStage:
    """Wraps what `make` returns (contract.StreamCallout). `timeout` in seconds per question."""

    def __init__(
        self, flow: FlowHandle, make: Callable[[FlowHandle], AsyncStreamCallout], timeout: float
    ) -> None:
        self._flow = flow
        self._callout = make(flow)
        self._timeout = timeout
        self._asked: dict[int, StreamData] = {}
        self._answers: dict[Direction, _Answered] = {}

    def classify(self, data: StreamData) -> Verdict:
        answered = self._answers.pop(data.direction, None)
        if answered is not None and answered.shown.offset == data.offset:
            verdict = _as_of_now(answered, data)
            if verdict is not None:
                return verdict
        shown = replace(data, data=bytes(data.data))  # valid beyond this call
        number = self._flow.ask(lambda: self._callout.classify(shown), self._timeout)
        self._asked[number] = shown
        return Defer()

    def signal(self, signal: Signal) -> bool:
        if not isinstance(signal, Answer):
            return self._callout.signal(signal)
        shown = self._asked.pop(signal.ask_id, None)
        if shown is None or signal.error is not None:
            return False  # the exception table decides
        self._answers[shown.direction] = _Answered(signal.value, shown)
        return True

    def closed(self, reason: str) -> None:
        self._callout.closed(reason)


def _as_of_now(answered: _Answered, data: StreamData) -> Verdict | None:
    """The verdict, fitted to what has come in since; None: that must be asked about.

    Raises ContractError for a verdict that a coroutine cannot give.
    """
    verdict, shown = answered.verdict, answered.shown
    if isinstance(verdict, Defer):
        raise ContractError("a coroutine waits by itself: Defer is not for out_of_band classify()")
    if not isinstance(verdict, NeedMoreData):
        return None if data.data and not shown.data else verdict
    if _state(data) == _state(shown):
        return verdict
    missing = len(shown.data) + verdict.n - len(data.data)
    undecided = data.no_more_data or data.buffer_limit_reached
    return NeedMoreData(missing) if missing > 0 and not undecided else None


def _state(data: StreamData) -> tuple[object, ...]:
    return len(data.data), data.no_more_data, data.buffer_limit_reached
