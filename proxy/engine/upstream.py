"""When the upstream goes away, and when another one takes its place."""

from __future__ import annotations

from proxy.contract import How, UpstreamFailed
from proxy.engine.stage import Stage
from proxy.engine.waterfall import Waterfall
from proxy.model import Direction
from proxy.records import Discarded

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


def lose(fall: Waterfall, signal: UpstreamFailed) -> None:
    """Offer the loss to the stages top to bottom; reset the flow when nobody claims it."""
    sink = fall.sink
    sink.lose_upstream()
    for stage in fall.stages:
        if fall.signal(stage, signal):
            if sink.upstream_lost:  # it has not dialled another one already
                _forget_inbound(fall, stage)
                sink.settle_lost_upstream()
            return
    sink.end(How.RESET, f"upstream {signal.failure.value}")


def _forget_inbound(fall: Waterfall, claimant: Stage) -> None:
    """Nothing more comes in: what was on its way to the claimant is lost with the RST."""
    for stage in fall.stages[: claimant.index + 1]:
        lane = stage.lanes[IN]
        fall.drop_held(lane)
        fall.end_block_run(stage, lane)
        fall.end_credit(lane)
        lane.deferred, lane.asks = False, 0
        lane.input_ended = lane.fin_decided = True
    fall.pause_changed = True


def redial(fall: Waterfall, dialler: Stage) -> None:
    """Both streams of the upstream begin anew, as far as they are not past the dialler."""
    fall.sink.regain_upstream()
    fall.pause_changed = True
    for stage in fall.stages[: dialler.index + 1]:
        _begin_anew(fall, stage, IN)
        if stage is not dialler:
            _open_output(stage, IN)
    _open_output(dialler, OUT)
    if not dialler.lanes[OUT].input_ended:
        dialler.lanes[OUT].fin_decided = False
    for stage in fall.stages[dialler.index + 1 :]:
        _begin_anew(fall, stage, OUT)
        _open_output(stage, OUT)


def _begin_anew(fall: Waterfall, stage: Stage, direction: Direction) -> None:
    lane = stage.lanes[direction]
    fall.end_block_run(stage, lane)
    fall.end_credit(lane)
    stale = fall.drop_held(lane)
    if stale:
        fall.sink.emit(Discarded(direction, stale, stage.name))
        fall.count_missed(stage, direction, stale)
    lane.reopen()


def _open_output(stage: Stage, direction: Direction) -> None:
    stage.lanes[direction].output_ended = False
    stage.handle.ended_outputs.discard(direction)
