"""The waterfall itself: bytes and FINs go down through the stages, verdicts are carried out.

Depth first: what a verdict lets pass goes through all lower stages before the next verdict of
the stage is asked for. So a lower stage sees the two directions in an order that does not
depend on how the input was cut (the invariance law), whatever upper stages inject.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.contract import (
    AllowConnection,
    Block,
    Defer,
    DropConnection,
    How,
    NeedMoreData,
    Permit,
    Replace,
    Signal,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.engine.handle import Action, Drop, FinishOutput, Inject, Proceed
from proxy.engine.lane import Lane
from proxy.engine.sink import Sink
from proxy.engine.stage import CalloutFailed, Stage
from proxy.engine.verdicts import check
from proxy.limits import Cause, ExceptionPolicies, OnException
from proxy.model import Direction
from proxy.records import Discarded, ExceptionApplied, Uninspected

_MAX_TURNS = 64  #: Defer verdicts of a lane in one indication; more is a callout that spins


class Waterfall:
    """Serves one indication at a time; the engine sets `now`, `indication` and `fed`."""

    def __init__(
        self,
        stages: list[Stage],
        sink: Sink,
        exceptions: ExceptionPolicies,
        budget: Budget,
        redial: Callable[[Stage], None],
    ) -> None:
        self.stages = stages
        self.sink = sink
        self.now = 0.0
        self.indication = 0
        self.fed = Direction.OUTBOUND  #: of the latest data
        self.asked: dict[int, tuple[Stage, Lane | None]] = {}
        self.pause_changed = False
        self.credit_changed = [True, True]  #: nobody may be interested from the start
        self._exceptions = exceptions
        self._budget = budget
        self._redial = redial

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
                self.spend(lane, len(part))
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
        self.end_credit(lane)
        if lane.fin_decided:  # the stage has ended its output itself
            return
        if stage.transparent:
            self._pass_fin(stage, lane)
            return
        self.pump(stage, lane)
        if stage.inspection:
            self._pass_fin(stage, lane)

    def pump(self, stage: Stage, lane: Lane) -> None:
        """Have the callout decide as long as it has something to decide."""
        if lane.running:  # further up this very call chain; that loop goes on
            return
        lane.running = True
        while not self.sink.ended:
            if lane.ready:
                self._judge(stage, lane)
            elif self._accounted(stage, lane):
                break
        lane.running = False
        if stage.inspection and len(lane.held) > lane.passed:
            self.push(stage.index + 1, lane.direction, lane.unpassed())
        if lane.asks:
            self.pause_changed = True

    # --- one verdict

    def _judge(self, stage: Stage, lane: Lane) -> None:
        shown = lane.indication(self.now)
        size = len(shown.data)
        try:
            verdict = stage.classify(shown)
            check(verdict, shown, inspection=stage.inspection, inserted=lane.inserted)
        except CalloutFailed as failure:
            self.fail(stage, failure)
            return
        late = self._late(stage)
        if self.sink.ended:
            return
        if lane.blocked and not isinstance(verdict, Block | NeedMoreData | Defer):
            self.end_block_run(stage, lane)
        actions = stage.handle.take()
        if actions:
            self._judge_with(stage, lane, verdict, size, actions)
        else:
            self._carry_out(stage, lane, verdict, size)
        if late is not None and not self.sink.ended:
            self.fail(stage, late)

    def _judge_with(
        self, stage: Stage, lane: Lane, verdict: Verdict, size: int, actions: list[Action]
    ) -> None:
        """Wishes, the verdict, and then the wishes that take the judged bytes away."""
        late = next((n for n, one in enumerate(actions) if _ends_input(one, lane)), len(actions))
        self._act(stage, actions[:late], lane)
        if self.sink.ended:
            return
        self._carry_out(stage, lane, verdict, size)
        self._act(stage, actions[late:], lane)
        self._wake(stage, actions)

    def _carry_out(self, stage: Stage, lane: Lane, verdict: Verdict, size: int) -> None:
        match verdict:
            case Permit(n):
                self._permit(stage, lane, n, size)
            case NeedMoreData(n):
                lane.wait_for(n)
            case Block(n):
                self._block(stage, lane, n)
            case Replace(n, data):
                self._replace(stage, lane, n, bytes(data))
            case Defer():
                self._defer(stage, lane)
            case AllowConnection():
                self.open_up(stage, "allow_connection")
            case DropConnection(how):
                if stage.inspection:  # ignored, and there is nothing left that it wants to see
                    self.open_up(stage, "allow_connection")
                else:
                    self.sink.end(how, f"dropped by {stage.name}")

    def _permit(self, stage: Stage, lane: Lane, n: int, size: int) -> None:
        if not size:
            self._pass_fin(stage, lane)
            return
        if n > size:
            lane.credit = n - size
            self.credit_changed[lane.direction] = True
        self._pass(stage, lane, lane.take(min(n, size)))

    def _block(self, stage: Stage, lane: Lane, n: int) -> None:
        if not n:
            lane.fin_decided = True  # swallowed: the direction stays open below
            return
        lane.cut(n)
        lane.blocked += n
        self.count_missed(stage, lane.direction, n)

    def _replace(self, stage: Stage, lane: Lane, n: int, data: bytes) -> None:
        if lane.held:
            lane.cut(n)
            lane.inserted = n == 0
            self._pass(stage, lane, data)
        else:
            self._pass(stage, lane, data)
            self._pass_fin(stage, lane)

    def _defer(self, stage: Stage, lane: Lane) -> None:
        if lane.turn(self.indication) > _MAX_TURNS:
            self.fail(stage, CalloutFailed(Cause.CALLOUT_EXCEPTION, "defers and proceeds for ever"))
        elif not lane.asks:  # behind an open question Defer only means: no verdict yet
            lane.deferred = self.pause_changed = True

    def _pass(self, stage: Stage, lane: Lane, data: bytes) -> None:
        if data and not lane.output_ended:
            self.push(stage.index + 1, lane.direction, data)

    def _pass_fin(self, stage: Stage, lane: Lane) -> None:
        self.end_block_run(stage, lane)
        lane.fin_decided = lane.fin_decided or not lane.held
        if not lane.output_ended:
            lane.output_ended = True
            stage.handle.ended_outputs.add(lane.direction)
            self.push_fin(stage.index + 1, lane.direction)

    # --- what callouts ask of the flow

    def signal(self, stage: Stage, signal: Signal, lane: Lane | None = None) -> bool:
        """Call signal() and carry out what it asked for; True when it claimed the signal.

        A question that is asked in answer to another one keeps `lane` waiting.
        """
        if stage.transparent or self.sink.ended:
            return False
        try:
            claimed = stage.signal(signal, self.now)
        except CalloutFailed as failure:
            self.fail(stage, failure)
            return False
        late = self._late(stage)
        if not self.sink.ended:
            self.act(stage, lane)
        if late is not None and not self.sink.ended:
            self.fail(stage, late)
        return claimed and not stage.inspection

    def act(self, stage: Stage, lane: Lane | None = None) -> None:
        """Carry out what a callout asked for outside classify()."""
        actions = stage.handle.take()
        self._act(stage, actions, lane)
        self._wake(stage, actions)

    def _act(self, stage: Stage, actions: list[Action], lane: Lane | None) -> None:
        for action in actions:
            if self.sink.ended and not isinstance(action, fx.Emit):
                continue
            match action:
                case Inject(direction, data):
                    self._pass(stage, stage.lanes[direction], data)
                case Proceed(direction):
                    lane = stage.lanes[direction]
                    lane.deferred, lane.need = False, 0  # indicated again, whatever it waits for
                    self.pause_changed = True
                case FinishOutput(direction):
                    self.finish_output(stage, stage.lanes[direction])
                case Drop(how):
                    self.sink.end(how, f"dropped by {stage.name}")
                case fx.Ask():
                    self._ask(stage, action, lane)
                case fx.Dial():
                    self._redial(stage)
                    self.sink.effects.append(action)
                case fx.SetTimer() | fx.Emit():
                    self.sink.effects.append(action)

    def _ask(self, stage: Stage, ask: fx.Ask, lane: Lane | None) -> None:
        self.asked[ask.id] = (stage, lane)
        if lane is not None:
            lane.asks += 1
        self.sink.effects.append(ask)

    def _wake(self, stage: Stage, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Proceed):
                self.pump(stage, stage.lanes[action.direction])

    def finish_output(self, stage: Stage, lane: Lane) -> None:
        """FIN below; what comes in from now on is discarded without a word."""
        self.drop_held(lane)
        self.end_credit(lane)
        lane.deferred = False
        self.pause_changed = lane.fin_decided = True
        self._pass_fin(stage, lane)

    # --- exceptions, and the end of inspection

    def fail(self, stage: Stage, failure: CalloutFailed) -> None:
        """Apply the exception table to this flow: end it, or go on without the stage."""
        action = self._exceptions.action(failure.cause)
        self._act(stage, stage.handle.take_emits(), None)
        self.sink.emit(ExceptionApplied(failure.cause, action, stage.name, failure.detail))
        if action is OnException.CLOSED:
            self.sink.end(How.RESET, failure.cause.value)
        else:
            self.open_up(stage, "exception_open")

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
            lane = stage.lanes[direction]
            self.credit_changed[lane.direction] = True
            self.end_block_run(stage, lane)
            self.end_credit(lane)
            lane.deferred, lane.asks = False, 0
            lane.unseen += len(lane.held)
            held = lane.take(len(lane.held))
            self.release(lane)
            self._pass(stage, lane, held)
            if lane.input_ended and not lane.fin_decided:
                self._pass_fin(stage, lane)

    def _late(self, stage: Stage) -> CalloutFailed | None:
        """An overrun: with `closed` applied at once, with `open` after the verdict."""
        if not stage.overrun:
            return None
        failure = CalloutFailed(Cause.CALLOUT_OVERRUN, f"a call took {stage.overrun:.3f} s")
        stage.overrun = 0.0
        if self._exceptions.action(failure.cause) is OnException.OPEN:
            return failure
        self.fail(stage, failure)
        return None

    def _accounted(self, stage: Stage, lane: Lane) -> bool:
        """Settle what stays held with the budget. False: the lane has to decide once more."""
        grown = len(lane.held) - lane.taken
        if grown <= 0:
            self._budget.give(-grown)
        elif not self._budget.take(grown):
            if lane.waiting or lane.pressed:
                self.fail(stage, CalloutFailed(Cause.BUFFER_LIMIT, "the process holds too much"))
            lane.pressed = True
            return False
        lane.taken = len(lane.held)
        return True

    # --- bookkeeping

    def drop_held(self, lane: Lane) -> int:
        """Give up what a lane holds; returns how much that was and was never passed."""
        dropped = len(lane.held) - lane.passed
        lane.drop_held()
        self.release(lane)
        return dropped

    def release(self, lane: Lane) -> None:
        """Give everything that a lane has taken back to the budget, and forget its bytes."""
        lane.held, lane.passed = b"", 0
        self._budget.give(lane.taken)
        lane.taken = 0

    def count_missed(self, stage: Stage, direction: Direction, n: int) -> None:
        """n bytes left the stream at `stage`."""
        for lower in self.stages[stage.index + 1 :]:
            lower.lanes[direction].missed += n

    def spend(self, lane: Lane, n: int) -> None:
        """n bytes pass on credit; its end is recorded."""
        lane.spend(n)
        if not lane.credit:
            self.end_credit(lane)

    def end_credit(self, lane: Lane) -> None:
        """Record what passed on credit, in one record per credit."""
        lane.credit = 0
        if lane.ahead:
            self.sink.emit(Uninspected(lane.direction, lane.ahead, "permit_ahead"))
            lane.ahead = 0

    def end_block_run(self, stage: Stage, lane: Lane) -> None:
        """Record the run of blocked bytes that ends here, however it was cut."""
        if lane.blocked:
            self.sink.emit(Discarded(lane.direction, lane.blocked, stage.name))
            lane.blocked = 0


def _split(data: bytes, n: int) -> tuple[bytes, bytes]:
    return (data, b"") if n >= len(data) else (data[:n], data[n:])


def _ends_input(action: Action, lane: Lane) -> bool:
    """Whether what `lane` has at hand would not outlive this wish: the verdict goes first."""
    if isinstance(action, fx.Dial):
        return lane.direction is Direction.INBOUND
    return action == FinishOutput(lane.direction)
