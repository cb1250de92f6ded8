"""What callouts ask of their flow, carried out after the call; and signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.contract import Signal
from proxy.engine import effects as fx
from proxy.engine.handle import Action, Drop, FinishOutput, Inject, Proceed
from proxy.engine.lane import Lane
from proxy.engine.stage import CalloutFailed, Stage
from proxy.engine.upstream import redial

if TYPE_CHECKING:
    from proxy.engine.waterfall import Waterfall


def signal(fall: Waterfall, stage: Stage, what: Signal, lane: Lane | None = None) -> bool:
    """Call signal() and carry out what it asked for; True when it claimed the signal.

    A question that is asked in answer to another one keeps `lane` waiting.
    """
    if stage.transparent or fall.sink.ended:
        return False
    try:
        claimed = stage.signal(what, fall.now)
    except CalloutFailed as failure:
        fall.fail(stage, failure)
        return False
    late = fall.late(stage)
    if not fall.sink.ended:
        carry_out(fall, stage, lane)
    if late is not None and not fall.sink.ended:
        fall.fail(stage, late)
    return claimed and not stage.inspection


def carry_out(fall: Waterfall, stage: Stage, lane: Lane | None = None) -> None:
    """Carry out what a callout asked for outside classify(); records only after the end."""
    actions = stage.handle.take()
    carry_out_wishes(fall, stage, actions, lane)
    wake(fall, stage, actions)


def carry_out_wishes(
    fall: Waterfall, stage: Stage, actions: list[Action], lane: Lane | None
) -> None:
    """In the order asked. Questions keep `lane` waiting."""
    for action in actions:
        if fall.sink.ended and not isinstance(action, fx.Emit):
            continue
        match action:
            case Inject(direction, data):
                fall.pass_down(stage, stage.lanes[direction], data)
            case Proceed(direction):
                held = stage.lanes[direction]
                held.deferred, held.need = False, 0  # shown again, whatever it waits for
                fall.pause_changed = True
            case FinishOutput(direction):
                _finish_output(fall, stage, stage.lanes[direction])
            case Drop(how):
                fall.sink.end(how, f"dropped by {stage.name}")
            case fx.Ask():
                _ask(fall, stage, action, lane)
            case fx.Dial():
                redial(fall, stage)
                fall.sink.effects.append(action)
            case fx.SetTimer() | fx.Emit():
                fall.sink.effects.append(action)


def wake(fall: Waterfall, stage: Stage, actions: list[Action]) -> None:
    """Indicate again what was deferred, when everything else has been carried out."""
    for action in actions:
        if isinstance(action, Proceed):
            fall.pump(stage, stage.lanes[action.direction])


def _ask(fall: Waterfall, stage: Stage, ask: fx.Ask, lane: Lane | None) -> None:
    fall.asked[ask.id] = (stage, lane)
    if lane is not None:
        lane.asks += 1
    fall.sink.effects.append(ask)


def _finish_output(fall: Waterfall, stage: Stage, lane: Lane) -> None:
    """FIN below; what comes in from now on is discarded without a word."""
    fall.books.drop_held(lane)
    fall.books.end_credit(lane)
    lane.deferred = False
    fall.pause_changed = lane.fin_decided = True
    fall.pass_fin(stage, lane)
