"""The stream engine of one flow: indications in, effects out; pure and synchronous.

The user-mode twin of FWPM_LAYER_STREAM_V4/V6 (learn.microsoft.com, "Stream inspection").
What the contract leaves open is settled here:

Order. Both directions go through the stages from the highest weight to the lowest. The
engine works depth first: what one verdict lets pass goes through all lower stages before the
next verdict. What a callout asks for during a call (inject, proceed, finish, ...) is carried
out when the call has returned, in the order asked, before its verdict. From a `finish` of the
direction that is being judged on (or, judging inbound, from a `dial` on) it comes after the
verdict: the last bytes go before the FIN.
Asking in the constructor is allowed: it takes effect at the first indication.

Windows. A callout is never shown more than `stage_buffer` bytes at once, and exactly that
many bytes carry `buffer_limit_reached`. Deferred input beyond it is a `buffer_limit` exception.

FIN. The `disconnect` indication is answered by Permit (passes), Replace(0, data) (data, then
FIN), Block(0) (swallowed: the direction stays open below), Defer (waits). When both outputs
have been finished and both sources have ended the engine emits End(CLOSE). When both outputs
are finished but a peer has not sent its FIN, lingering for it is the shell's affair.

Loss of the upstream (Abort(INBOUND), UpstreamFailed) is offered to the stages top to bottom
until one claims it; nobody: End(RESET). Claimed: what the claiming stage and those above hold
of the inbound direction is dropped, outbound bytes are discarded from then on, which
Finish(OUTBOUND) tells the shell, and the client's side stays open. Abort(OUTBOUND) is
End(RESET) at once. `dial` begins both streams anew: bytes of the old ones that stages still
hold on the way (inbound: the dialling stage and above; outbound: below it) are discarded and
recorded; offsets go on counting.

Questions. While a question asked in classify() is open that direction waits; Defer then means
"no verdict yet". Up to 64 KiB are held, then the source is paused; at `stage_buffer` it is a
`buffer_limit` exception. The Answer is a signal; then classify() is called again. An answer
with an error that signal() does not claim is an exception of that stage: `callout_exception`
when the question failed (its value is an Exception), else `callout_overrun`.

Exceptions. `closed`: End(RESET). `open`: what the stage holds passes and it is transparent
from there on. A verdict that came too late still counts with `open`. Records of a failed call
are kept, its other wishes are not.

Inspection-only stages never delay: what they do not decide on has passed all the same.
Block, Replace, Defer, inject, finish and dial are contract errors there; DropConnection is
ignored and ends the callout's interest; a claim is ignored.

Records. Discarded counts a contiguous run of blocked bytes and comes with the verdict that
ends the run. Uninspected(permit_ahead) comes when a credit is used up or lost, the other
reasons at the close. How many bytes of a Permit were shown depends on the cut, so the
permit_ahead figure does too: a measurement like a time, and not subject to the invariance law.
(Nor are the other figures of a flow that the engine ended: they count what the last read held.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from proxy.contract import (
    Answer,
    DialFailure,
    Drain,
    How,
    Overload,
    Signal,
    TimerFired,
    UpstreamConnected,
    UpstreamFailed,
)
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.engine.handle import Handle
from proxy.engine.lane import ASK_WINDOW
from proxy.engine.registration import Kind, Mode, Registration
from proxy.engine.sink import Sink
from proxy.engine.stage import CalloutFailed, Stage
from proxy.engine.upstream import forget_inbound
from proxy.engine.waterfall import Waterfall
from proxy.engine.wishes import carry_out, signal
from proxy.limits import Cause, StreamConfig
from proxy.model import Direction, FlowInfo

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


class Engine:
    """One flow's stages. `clock` only measures how long calls take; time comes as `now`.

    No method raises for what callouts or peers do. The budget is given back at the end of
    the flow, at the latest by `close`, which the shell calls exactly once in every case.
    """

    def __init__(
        self,
        info: FlowInfo,
        registrations: Sequence[Registration],
        config: StreamConfig,
        budget: Budget,
        clock: Callable[[], float],
    ) -> None:
        ordered = sorted(registrations, key=lambda one: -one.weight)
        ask_ids, now, limits = itertools.count(1), clock(), config.limits
        self._stages = [
            Stage(
                index,
                registration,
                Handle(
                    info,
                    now,
                    index,
                    ask_ids,
                    may_change=registration.kind is Kind.TERMINATING,
                    may_ask=registration.mode is Mode.OUT_OF_BAND,
                ),
                limits.stage_buffer,
                limits.callout_seconds,
                clock,
            )
            for index, registration in enumerate(ordered)
        ]
        self._sink = Sink()
        self._fall = Waterfall(self._stages, self._sink, config.exceptions, budget)
        self._fresh = True
        self._closed = False
        for stage, registration in zip(self._stages, ordered, strict=True):
            try:
                stage.make(registration)
            except CalloutFailed as failure:
                self._fall.fail(stage, failure)

    @property
    def ended(self) -> bool:
        """The engine has emitted End, or the flow was closed."""
        return self._sink.ended or self._closed

    # --- indications

    def feed(self, indication: fx.Indication, now: float) -> list[fx.Effect]:
        """Take one indication; returns what the shell shall do, in order."""
        self._begin(now)
        if type(indication) is fx.Data:
            self._fall.fed = indication.direction
            self._fall.push(0, indication.direction, indication.data)
        elif not self._sink.ended:
            self._route(indication)
        return self._flush()

    def resume(self, ask_id: int, value: Any, error: str | None, now: float) -> list[fx.Effect]:
        """Deliver the answer to a question. Unknown ids and dead stages are ignored."""
        self._begin(now)
        self._answer(Answer(ask_id, value, error))
        return self._flush()

    def close(self, reason: str, now: float) -> list[fx.Effect]:
        """The flow has ended: last records, then closed() of every callout, exactly once."""
        if self._closed:
            return []
        self._begin(now)
        self._closed = True
        self._sink.end(How.CLOSE, reason)
        for stage in self._stages:
            self._close_stage(stage, reason, now)
        self._release()
        return [effect for effect in self._sink.take() if isinstance(effect, fx.Emit)]

    def _route(self, indication: fx.Indication) -> None:
        match indication:
            case fx.Disconnect(direction):
                self._sink.source_ended[direction] = True
                self._fall.push_fin(0, direction)
            case fx.Abort(direction):
                if direction is IN:
                    self._lose_upstream(UpstreamFailed(DialFailure.RESET, "reset by the upstream"))
                else:
                    self._sink.end(How.RESET, "reset by the client")
            case fx.StageTimer(index, name):
                if 0 <= index < len(self._stages):
                    signal(self._fall, self._stages[index], TimerFired(name))
            case UpstreamFailed():
                self._lose_upstream(indication)
            case Answer():
                self._answer(indication)
            case UpstreamConnected():
                if self._sink.paused[IN]:  # the new upstream does not know that yet
                    self._sink.effects.append(fx.Pause(IN))
                self._broadcast(indication)
            case TimerFired() | Drain() | Overload():
                self._broadcast(indication)

    def _broadcast(self, what: Signal) -> None:
        for stage in self._stages:
            signal(self._fall, stage, what)

    def _lose_upstream(self, loss: UpstreamFailed) -> None:
        """Offer the loss to the stages top to bottom; reset the flow when nobody claims it."""
        self._sink.lose_upstream()
        for stage in self._stages:
            if signal(self._fall, stage, loss):
                if self._sink.upstream_lost:  # it has not dialled another one already
                    forget_inbound(self._fall, stage)
                    self._sink.settle_lost_upstream()
                return
        self._sink.end(How.RESET, f"upstream {loss.failure.value}")

    def _answer(self, answer: Answer) -> None:
        stage, lane = self._fall.asked.pop(answer.ask_id, (None, None))
        if stage is None or stage.transparent or self._sink.ended:
            return
        if lane is not None:
            lane.asks -= 1
            self._fall.pause_changed = True
        claimed = signal(self._fall, stage, answer, lane)
        if answer.error is not None and not claimed and not self._sink.ended:
            failed = isinstance(answer.value, Exception)
            cause = Cause.CALLOUT_EXCEPTION if failed else Cause.CALLOUT_OVERRUN
            self._fall.fail(stage, CalloutFailed(cause, answer.error))
        if lane is not None:
            self._fall.pump(stage, lane)

    # --- offload

    def offloadable(self, direction: Direction) -> int | None:
        """How many next bytes no stage wants to see: 0 none, None all that will come."""
        if self.ended or self._fresh or self._sink.finished[direction]:
            return 0
        least: int | None = None
        for stage in self._stages:
            lane = stage.lanes[direction]
            if not lane.idle:
                return 0
            if not stage.transparent:
                least = lane.credit if least is None else min(least, lane.credit)
        return least

    def offloaded(self, direction: Direction, n: int, now: float) -> None:
        """The shell moved n bytes past the engine. ValueError when that was not offered.

        Records come with the next effects.
        """
        offered = self.offloadable(direction)
        if n < 0 or (offered is not None and n > offered):
            raise ValueError(f"{n} bytes moved past the engine, {offered} were offered")
        self._fall.now = now
        for stage in self._stages:
            lane = stage.lanes[direction]
            if stage.transparent:
                lane.skip(n)
            else:
                self._fall.books.spend(lane, n)

    # --- around every indication

    def _begin(self, now: float) -> None:
        fall = self._fall
        fall.now = now
        fall.indication += 1
        if self._fresh:
            self._fresh = False
            for stage in self._stages:
                carry_out(fall, stage)

    def _flush(self) -> list[fx.Effect]:
        sink, fall = self._sink, self._fall
        if sink.finished[OUT] and sink.complete:
            sink.end(How.CLOSE, "both sides have finished")
        if sink.ended:
            self._release()
            return sink.take()
        if fall.pause_changed:
            fall.pause_changed = False
            for direction in (OUT, IN):
                sink.pause(direction, self._wants_pause(direction))
        if fall.credit_changed:
            for direction in sorted(fall.credit_changed):
                self._offer(direction)
            fall.credit_changed.clear()
        return sink.take()

    def _wants_pause(self, direction: Direction) -> bool:
        lanes = (stage.lanes[direction] for stage in self._stages if not stage.inspection)
        return any(lane.deferred or (lane.asks and len(lane.held) > ASK_WINDOW) for lane in lanes)

    def _offer(self, direction: Direction) -> None:
        n = self.offloadable(direction)
        if n != 0:
            self._sink.effects.append(fx.Splice(direction, n))

    def _close_stage(self, stage: Stage, reason: str, now: float) -> None:
        self._fall.books.close(stage)
        try:
            stage.closed(reason, now)
        except CalloutFailed as failure:
            self._fall.fail(stage, failure)
        carry_out(self._fall, stage)

    def _release(self) -> None:
        for stage in self._stages:
            for lane in stage.lanes:
                if lane.taken or lane.held:
                    self._fall.books.release(lane)
