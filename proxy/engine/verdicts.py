"""Which verdict fits which indication: rules 3, 4, 5 and 7 of the contract as one function."""

from __future__ import annotations

from proxy.contract import (
    AllowConnection,
    Block,
    Defer,
    DropConnection,
    How,
    NeedMoreData,
    Permit,
    Replace,
    StreamData,
)
from proxy.engine.stage import CalloutFailed
from proxy.limits import Cause


def check(verdict: object, shown: StreamData, *, inspection: bool, inserted: bool) -> None:
    """Raise CalloutFailed when `verdict` does not fit the indication `shown`.

    `inserted`: something was inserted at this very position before, so that another
    insertion would be no progress.
    """
    problem = _problem(verdict, shown, inspection, inserted)
    if problem:
        cause = Cause.CALLOUT_EXCEPTION
        if shown.buffer_limit_reached and isinstance(verdict, NeedMoreData):
            cause = Cause.BUFFER_LIMIT
        place = f"at {shown.direction.label} offset {shown.offset}"
        raise CalloutFailed(cause, f"ContractError: {type(verdict).__name__} {problem}, {place}")


def _problem(verdict: object, shown: StreamData, inspection: bool, inserted: bool) -> str:
    if inspection and isinstance(verdict, Block | Replace | Defer):
        return "is not for an inspection-only callout"
    size = len(shown.data)
    match verdict:
        case Permit(int(n)):
            fits = n > 0 or (n == 0 and not size)
        case Block(int(n)):
            fits = 0 < n <= size or n == size == 0
        case Replace(int(n), bytes() | bytearray() as data):
            if n == 0 and (not data or inserted):
                return "inserts nothing, or a second time in one place"
            fits = 0 <= n <= size
        case NeedMoreData(int(n)):
            return _unavailable(n, shown)
        case AllowConnection() | DropConnection(How()) | Defer():
            return ""
        case _:
            return "is not a verdict"
    return "" if fits else f"of {n} bytes does not fit what is at hand"


def _unavailable(n: int, shown: StreamData) -> str:
    if n < 1:
        return "asks for no further byte"
    if shown.no_more_data:
        return "asks for more after the end of the stream"
    if shown.buffer_limit_reached:
        return "asks for more at the buffer limit"
    return ""
