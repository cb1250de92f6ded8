"""The waterfall itself: how bytes and FINs go down through the stages.

Depth first: what a verdict lets pass goes through all lower stages before the next verdict of
the stage is asked for. So a lower stage sees the two directions in an order that does not
depend on how the input was cut (the invariance law), whatever upper stages inject.
"""

from __future__ import annotations

from proxy.contract import How
from proxy.engine.books import Books
from proxy.engine.budget import Budget
from proxy.engine.judge import judge
from proxy.engine.lane import Lane
from proxy.engine.sink import Sink
from proxy.engine.stage import CalloutFailed, Stage
from proxy.engine.wishes import carry_out_wishes
from proxy.limits import Cause, ExceptionPolicies, OnException
from proxy.model import Direction
from proxy.records import ExceptionApplied

_OWN_FAULTS = (Cause.CALLOUT_EXCEPTION, Cause.CALLOUT_OVERRUN)


class Waterfall:
    """Serves one indication at a time; the engine sets `now`, `indication` and `fed`."""

    def __init__(
        self, stages: list[Stage], sink: Sink, exceptions: ExceptionPolicies, budget: Budget
    ) -> None:
        self.stages = stages
        self.sink = sink
        self.books = Books(sink, budget)
        self.now = 0.0
        self.indication = 0  #: its number
        self.fed = Direction.OUTBOUND  #: direction of the latest data
        self.asked: dict[int, tuple[Stage, Lane | None]] = {}
        self.pause_changed = False
        self.credit_changed = set(Direction)  #: nobody may be interested from the start
        self._exceptions = exceptions

    # --- down

    def push(self, index: int, direction: Direction, data: bytes) -> None:
        """Offer bytes to stage `index`; below the last one they are written."""
        if index == len(self.stages):
            self.sink.write(direction, data)
            return
        stage = self.stages[index]
        lane = stage.lanes[direction]
        while data and not (self.sink.ended or lane.input_ended or lane.fin_decided):
            if stage.transparent:
                lane.skip(len(data))
                self.push(index + 1, direction, data)
                return
            if lane.credit:
                part, data = _split(data, lane.credit)
                self.books.spend(lane, len(part))
                self.push(index + 1, direction, part)
                continue
            room = lane.limit - len(lane.held)
            if room <= 0:
                self.fail(stage, CalloutFailed(Cause.BUFFER_LIMIT, "deferred input overflows"))
                continue
            part, data = _split(data, room)
            lane.append(part)
            self.pump(stage, lane)

    def push_fin(self, index: int, direction: Direction) -> None:
        """Tell stage `index` that nothing follows in this direction."""
        if index == len(self.stages):
            self.sink.finish(direction)
            return
        stage = self.stages[index]
        lane = stage.lanes[direction]
        if lane.input_ended or self.sink.ended:
            return
        lane.input_ended = True
        self.books.end_credit(lane)
        if lane.fin_decided:  # the stage has ended its output itself
            return
        if not stage.transparent:
            self.pump(stage, lane)
        if stage.transparent or stage.inspection:
            self.pass_fin(stage, lane)

    def pump(self, stage: Stage, lane: Lane) -> None:
        """Have the callout decide as long as it has something to decide."""
        if lane.running:  # further up this very call chain; that loop goes on
            return
        lane.running = True
        while not self.sink.ended:
            if lane.ready:
                judge(self, stage, lane)
            elif self._accounted(stage, lane):
                break
        lane.running = False
        if stage.inspection and len(lane.held) > lane.passed:
            self.push(stage.index + 1, lane.direction, lane.unpassed())
        if lane.asks:
            self.pause_changed = True

    def pass_down(self, stage: Stage, lane: Lane, data: bytes) -> None:
        """Bytes leave a stage, unless it has ended that output."""
        if data and not lane.output_ended:
            self.push(stage.index + 1, lane.direction, data)

    def pass_fin(self, stage: Stage, lane: Lane) -> None:
        """FIN leaves a stage, once."""
        self.books.end_block_run(stage, lane)
        lane.fin_decided = lane.fin_decided or not lane.held
        if not lane.output_ended:
            lane.output_ended = True
            stage.handle.ended_outputs.add(lane.direction)
            self.push_fin(stage.index + 1, lane.direction)

    def forget_questions(self, lane: Lane) -> None:
        """What was asked behind this lane is of no use any more: answers are ignored."""
        lane.asks = 0
        self.asked = {n: (stage, by) for n, (stage, by) in self.asked.items() if by is not lane}

    def count_missed(self, stage: Stage, direction: Direction, n: int) -> None:
        """n bytes left the stream at `stage`."""
        for lower in self.stages[stage.index + 1 :]:
            lower.lanes[direction].missed += n

    def _accounted(self, stage: Stage, lane: Lane) -> bool:
        """Settle what stays held. False: the lane has to decide once more, or has failed."""
        if not (lane.held or lane.taken) or self.books.settle(lane):
            return True
        if lane.waiting:
            self.fail(stage, CalloutFailed(Cause.BUFFER_LIMIT, "the process holds too much"))
        lane.pressed = True
        return False

    # --- exceptions, and the end of inspection

    def fail(self, stage: Stage, failure: CalloutFailed) -> None:
        """Apply the exception table to this flow: end it, or go on without the stage."""
        action = self._action(stage, failure.cause)
        carry_out_wishes(self, stage, stage.handle.take_emits(), None)
        self.sink.emit(ExceptionApplied(failure.cause, action, stage.name, failure.detail))
        if action is OnException.CLOSED:
            self.sink.end(How.RESET, failure.cause.value)
        else:
            self.open_up(stage, "exception_open")

    def _action(self, stage: Stage, cause: Cause) -> OnException:
        """The table's row, unless the callout was registered with a policy for its own faults."""
        if stage.on_error is not None and cause in _OWN_FAULTS:
            return stage.on_error
        return self._exceptions.action(cause)

    def late(self, stage: Stage) -> CalloutFailed | None:
        """An overrun: `closed` is applied at once, `open` is due after the verdict."""
        if not stage.overrun:
            return None
        failure = CalloutFailed(Cause.CALLOUT_OVERRUN, f"a call took {stage.overrun:.3f} s")
        stage.overrun = 0.0
        if self._action(stage, failure.cause) is OnException.OPEN:
            return failure
        self.fail(stage, failure)
        return None

    def open_up(self, stage: Stage, reason: str) -> None:
        """Make a stage transparent: what it holds passes, and it is never called again.

        The direction that is being fed comes last: how much of it is at hand already, and how
        much follows, is a matter of the cut.
        """
        if stage.transparent:
            return
        stage.transparent = reason
        self.pause_changed = True
        for direction in (self.fed.opposite, self.fed):
            self._open_lane(stage, stage.lanes[direction])

    def _open_lane(self, stage: Stage, lane: Lane) -> None:
        self.credit_changed.add(lane.direction)
        self.books.end_block_run(stage, lane)
        self.books.end_credit(lane)
        lane.deferred, lane.asks = False, 0
        lane.unseen += len(lane.held)
        held = lane.take(len(lane.held))
        self.books.release(lane)
        self.pass_down(stage, lane, held)
        if lane.input_ended and not lane.fin_decided:
            self.pass_fin(stage, lane)


def _split(data: bytes, n: int) -> tuple[bytes, bytes]:
    return (data, b"") if n >= len(data) else (data[:n], data[n:])
