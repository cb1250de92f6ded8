"""One classify() call: ask, check the verdict, carry it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.contract import (
    AllowConnection,
    Block,
    Defer,
    DropConnection,
    NeedMoreData,
    Permit,
    Replace,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.engine.handle import Action, FinishOutput
from proxy.engine.lane import Lane
from proxy.engine.stage import CalloutFailed, Stage
from proxy.engine.verdicts import check
from proxy.engine.wishes import carry_out_wishes, wake
from proxy.limits import Cause
from proxy.model import Direction

if TYPE_CHECKING:
    from proxy.engine.waterfall import Waterfall

_MAX_TURNS = 64  #: Defer verdicts of a lane in one indication; more is a callout that spins


def judge(fall: Waterfall, stage: Stage, lane: Lane) -> None:
    """Have the callout judge what the lane holds, once."""
    shown = lane.indication(fall.now)
    size = len(shown.data)
    try:
        verdict = stage.classify(shown)
        whole = type(verdict) is Permit and verdict.n == size > 0
        if not whole:
            check(verdict, shown, inspection=stage.inspection, inserted=lane.inserted)
    except CalloutFailed as failure:
        fall.fail(stage, failure)
        return
    if whole and not (stage.overrun or stage.handle.queue or lane.blocked):
        fall.pass_down(stage, lane, lane.take(size))  # the hot path
        return
    late = fall.late(stage)
    if fall.sink.ended:
        return
    if lane.blocked and not isinstance(verdict, Block | NeedMoreData | Defer):
        fall.books.end_block_run(stage, lane)
    if stage.handle.queue:
        _with_wishes(fall, stage, lane, verdict, size)
    else:
        _carry_out(fall, stage, lane, verdict, size)
    if late is not None and not fall.sink.ended:
        fall.fail(stage, late)


def _with_wishes(fall: Waterfall, stage: Stage, lane: Lane, verdict: Verdict, size: int) -> None:
    """Wishes, the verdict, and then the wishes that take the judged bytes away."""
    actions = stage.handle.take()
    late = next((n for n, one in enumerate(actions) if _ends_input(one, lane)), len(actions))
    carry_out_wishes(fall, stage, actions[:late], lane)
    if fall.sink.ended:
        return
    _carry_out(fall, stage, lane, verdict, size)
    carry_out_wishes(fall, stage, actions[late:], lane)
    wake(fall, stage, actions)


def _ends_input(action: Action, lane: Lane) -> bool:
    """Whether what `lane` has at hand would not outlive this wish: the verdict goes first."""
    if isinstance(action, fx.Dial):
        return lane.direction is Direction.INBOUND
    return action == FinishOutput(lane.direction)


def _carry_out(fall: Waterfall, stage: Stage, lane: Lane, verdict: Verdict, size: int) -> None:
    match verdict:
        case Permit(n):
            _permit(fall, stage, lane, n, size)
        case NeedMoreData(n):
            lane.wait_for(n)
        case Block(n):
            _block(fall, stage, lane, n)
        case Replace(n, data):
            _replace(fall, stage, lane, n, bytes(data))
        case Defer():
            _defer(fall, stage, lane)
        case AllowConnection():
            fall.open_up(stage, "allow_connection")
        case DropConnection(how):
            if stage.inspection:  # ignored, and there is nothing left that it wants to see
                fall.open_up(stage, "allow_connection")
            else:
                fall.sink.end(how, f"dropped by {stage.name}")


def _permit(fall: Waterfall, stage: Stage, lane: Lane, n: int, size: int) -> None:
    if not size:
        fall.pass_fin(stage, lane)
        return
    if n > size:
        lane.credit = n - size
        fall.credit_changed.add(lane.direction)
    fall.pass_down(stage, lane, lane.take(min(n, size)))


def _block(fall: Waterfall, stage: Stage, lane: Lane, n: int) -> None:
    if not n:
        lane.fin_decided = True  # swallowed: the direction stays open below
        return
    lane.cut(n)
    lane.blocked += n
    fall.count_missed(stage, lane.direction, n)


def _replace(fall: Waterfall, stage: Stage, lane: Lane, n: int, data: bytes) -> None:
    if lane.held:
        lane.cut(n)
        lane.inserted = n == 0
        fall.pass_down(stage, lane, data)
    else:
        fall.pass_down(stage, lane, data)
        fall.pass_fin(stage, lane)


def _defer(fall: Waterfall, stage: Stage, lane: Lane) -> None:
    if lane.turn(fall.indication) > _MAX_TURNS:
        detail = "ContractError: defers and proceeds without end"
        fall.fail(stage, CalloutFailed(Cause.CALLOUT_EXCEPTION, detail))
    elif not lane.asks:  # behind an open question Defer only means: no verdict yet
        lane.deferred = fall.pause_changed = True
