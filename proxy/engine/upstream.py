"""Another upstream takes the place of the one that was, or of the one that went away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.engine.stage import Stage
from proxy.model import Direction
from proxy.records import Discarded

if TYPE_CHECKING:
    from proxy.engine.waterfall import Waterfall

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


def forget_inbound(fall: Waterfall, claimant: Stage) -> None:
    """The upstream is lost: what was on its way up to the claimant goes with it."""
    for stage in fall.stages[: claimant.index + 1]:
        lane = stage.lanes[IN]
        fall.books.drop_held(lane)
        fall.books.end_block_run(stage, lane)
        fall.books.end_credit(lane)
        lane.deferred = False
        fall.forget_questions(lane)
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
    fall.books.end_block_run(stage, lane)
    fall.books.end_credit(lane)
    stale = fall.books.drop_held(lane)
    if stale:
        fall.sink.emit(Discarded(direction, stale, stage.name))
        fall.count_missed(stage, direction, stale)
    lane.reopen()


def _open_output(stage: Stage, direction: Direction) -> None:
    stage.lanes[direction].output_ended = False
    stage.handle.ended_outputs.discard(direction)
