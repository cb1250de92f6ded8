"""One stage of the waterfall: a callout, its two lanes, and the frame around its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from proxy.contract import Signal, StreamCallout, StreamData, Verdict
from proxy.engine.handle import Handle
from proxy.engine.lane import Lane
from proxy.engine.registration import Kind, Registration
from proxy.limits import Cause
from proxy.model import Direction

_DETAIL_CHARS = 200
_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


class CalloutFailed(Exception):
    """A callout cannot go on in this flow: a row of the exception table applies."""

    def __init__(self, cause: Cause, detail: str) -> None:
        self.cause = cause
        self.detail = detail[:_DETAIL_CHARS]
        super().__init__(detail)


class Stage:
    """`transparent` names why the callout is not called any more (a reason of Uninspected)."""

    __slots__ = (
        "_clock",
        "_seconds",
        "callout",
        "handle",
        "index",
        "inspection",
        "lanes",
        "name",
        "on_error",
        "overrun",
        "transparent",
    )

    def __init__(
        self,
        index: int,
        registration: Registration,
        handle: Handle,
        buffer: int,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.index = index
        self.name = registration.name
        self.on_error = registration.on_error
        self.inspection = registration.kind is Kind.INSPECTION
        self.handle = handle
        self.callout: StreamCallout | None = None
        self.lanes = (Lane(Direction.OUTBOUND, buffer), Lane(Direction.INBOUND, buffer))
        self.transparent = ""
        self.overrun = 0.0  #: seconds of the last call, if they were too many
        self._clock = clock
        self._seconds = seconds

    def make(self, registration: Registration) -> None:
        """Build the callout; its handle takes notes already. Raises CalloutFailed."""
        self.callout = self._guarded(registration.make, self.handle, self.handle.now)

    def classify(self, data: StreamData) -> Verdict:
        """Have the leading bytes judged. Raises CalloutFailed."""
        assert self.callout is not None
        return self._guarded(self.callout.classify, data, data.now)

    def signal(self, signal: Signal, now: float) -> bool:
        """True when the callout claims the signal. Raises CalloutFailed."""
        assert self.callout is not None
        return bool(self._guarded(self.callout.signal, signal, now))

    def closed(self, reason: str, now: float) -> None:
        """Tell the callout, if it was ever made, that the flow has ended. Raises CalloutFailed."""
        if self.callout is not None:
            self._guarded(self.callout.closed, reason, now)

    def _guarded(
        self, call: Callable[[_Argument], _Result], argument: _Argument, now: float
    ) -> _Result:
        """The one frame around foreign code: measured, and no Exception leaves it unnamed."""
        self.handle.now = now
        self.handle.active = True
        started = self._clock()
        try:
            return call(argument)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            raise CalloutFailed(Cause.CALLOUT_EXCEPTION, detail) from error
        finally:
            self.handle.active = False
            if (took := self._clock() - started) > self._seconds:
                self.overrun = took
