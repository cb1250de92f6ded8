"""The asyncio shell of one flow: feeds the engine, carries out its effects.

It knows sockets and time; it knows nothing of HTTP or of rules. Bytes come in by protocol
callbacks and are fed at once; the flow's one task (`run.py`) sleeps meanwhile and is woken
for dialling and for the end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from proxy.account.ledger import FlowAccount, FlowOutcome
from proxy.contract import DialFailure, How, UpstreamConnected, UpstreamFailed
from proxy.engine import effects as fx
from proxy.engine.engine import Engine
from proxy.flow.asks import Asks
from proxy.flow.authorise import Authorisation
from proxy.flow.offload import WORTH_IT, Offload
from proxy.flow.outcome import verdict_of
from proxy.flow.services import Services
from proxy.flow.side import WRITE_HIGH, Hold, Side
from proxy.flow.stall import Stall
from proxy.model import Direction, Endpoint, FlowInfo, Layer, Protocol
from proxy.records import Discarded, Record

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


class FlowShell:
    """One flow's engine and its two sides. `outcome` is None while it lives."""

    def __init__(
        self, services: Services, info: FlowInfo, account: FlowAccount, sock: socket.socket
    ) -> None:
        self.services = services
        self.info = info
        self.account = account
        self.outcome: FlowOutcome | None = None
        self.reason = ""
        self.wake = asyncio.Event()  #: set when the task has something to do
        self.target: Endpoint | None = None  #: what the task shall dial
        self.heard = False  #: the client has said something
        self.connecting: asyncio.Task[Any] | None = None  #: the task, while it dials
        self.client = Side(OUT, self, sock, services.watch)
        self.upstream: Side | None = None
        self._engine = Engine(
            info, services.registrations, services.config, services.budget, services.loop.time
        )
        self._pending: list[bytes] = []  # outbound bytes that wait for an upstream
        self._pending_size = 0
        self._finish_upstream = False
        self._timers: dict[tuple[int, str], asyncio.TimerHandle] = {}
        self._asks = Asks(self._resume_engine)
        self._active = services.loop.time()
        self._stall = Stall()
        self._offloads = (Offload(self, OUT), Offload(self, IN))
        self._how = How.CLOSE
        self._verdict: FlowOutcome | None = None
        self._ends: tuple[Endpoint, Endpoint] | None = None
        self._preamble = info.redirect.preamble  # owed to the client until the first dial is over

    @property
    def needs_upstream(self) -> bool:
        """Something waits to be sent to an upstream that is not there."""
        return self._pending_size > 0 or (self._finish_upstream and not self.client.finished)

    @property
    def answered_alone(self) -> bool:
        """Everything was said to the client, and there never was an upstream."""
        return self.upstream is None and self._finish_upstream and self.client.finished

    def ends(self, direction: Direction) -> tuple[Side, Side] | None:
        """(source, sink) of a direction; None while there is no upstream."""
        if self.upstream is None:
            return None
        return (self.client, self.upstream) if direction is OUT else (self.upstream, self.client)

    def offloadable(self, direction: Direction) -> int | None:
        """What the engine does not want to see: 0 nothing, None all that will come."""
        return self._engine.offloadable(direction) if self.outcome is None else 0

    # --- bytes and ends of streams, from the two sides

    def on_data(self, direction: Direction, data: bytes) -> None:
        self._active = now = self.services.loop.time()
        self.account.count(direction, len(data))
        if not self.heard and direction is OUT:
            self.heard = True
            self.wake.set()
        self._apply(self._engine.feed(fx.Data(direction, data), now))
        if self._offloads[direction].offered:
            self._offloads[direction].consider(len(data))

    def on_offloaded(self, direction: Direction, n: int) -> None:
        """The kernel has moved n bytes past the engine."""
        if self.outcome is not None:
            return
        self._active = now = self.services.loop.time()
        self.account.count(direction, n)
        self._engine.offloaded(direction, n, now)

    def on_eof(self, direction: Direction) -> None:
        self.feed(fx.Disconnect(direction))
        if self.outcome is None and self.answered_alone:
            self.end(How.CLOSE, FlowOutcome.CLOSED, "")

    def on_abort(self, direction: Direction, detail: str) -> None:
        """A RST was read. The other side hears of it from the engine."""
        if direction is IN:
            self._drop_upstream()
        self.feed(fx.Abort(direction))
        if self.outcome is not None and not self.reason:
            self.reason = detail

    def on_writable(self, direction: Direction, writable: bool) -> None:
        """Back-pressure: hold the source of what the sink does not take."""
        source = self.client if direction is OUT else self.upstream
        self._stall.change(direction, writable, self.services.loop.time())
        if source is not None:
            (source.release if writable else source.hold)(Hold.BACKPRESSURE)

    def on_gone(self) -> None:
        """A transport ended by itself; the flow ends when neither is left."""
        if not self.client.alive:
            self.end(How.CLOSE, FlowOutcome.CLOSED, "client gone")

    # --- the engine

    def feed(self, indication: fx.Indication) -> None:
        if self.outcome is None:
            self._apply(self._engine.feed(indication, self.services.loop.time()))

    def _apply(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            _CARRY_OUT[type(effect)](self, effect)

    def _write(self, effect: fx.Write) -> None:
        self._offloads[effect.direction].stop()
        if effect.direction is IN:
            self.client.write(effect.data)
        elif self.upstream is not None:
            self.upstream.write(effect.data)
        else:
            self._pending.append(effect.data)
            self._pending_size += len(effect.data)
            self.wake.set()
            if self._pending_size > WRITE_HIGH:
                self.client.hold(Hold.NO_UPSTREAM)

    def _splice(self, effect: fx.Splice) -> None:
        """An offer. Bytes shown to the engine all the same pass."""
        self._offloads[effect.direction].offered = effect.n is None or effect.n >= WORTH_IT

    def _pause(self, effect: fx.Pause) -> None:
        self._offloads[effect.direction].stop()
        source = self.client if effect.direction is OUT else self.upstream
        if source is not None:
            source.hold(Hold.ENGINE)

    def _resume(self, effect: fx.Resume) -> None:
        source = self.client if effect.direction is OUT else self.upstream
        if source is not None:
            source.release(Hold.ENGINE)

    def _finish(self, effect: fx.Finish) -> None:
        self._offloads[effect.direction].stop()
        if effect.direction is IN:
            self.client.finish()
        elif self.upstream is not None:
            self.upstream.finish()
        else:
            self._finish_upstream = True
            self.wake.set()
        upstream_done = self.upstream.finished if self.upstream else self._finish_upstream
        if self.client.finished and upstream_done and self.outcome is None:
            self._set_timer(
                fx.SetTimer(-1, "linger", self.services.times.linger_seconds)
            )  # for the peer's FIN; closing on unread bytes would send RST and lose our last ones

    def _set_timer(self, effect: fx.SetTimer) -> None:
        key = (effect.stage, effect.name)
        old = self._timers.pop(key, None)
        if old is not None:
            old.cancel()
        if effect.delay is not None:
            self._timers[key] = self.services.loop.call_later(effect.delay, self._fire, *key)

    def _fire(self, stage: int, name: str) -> None:
        self._timers.pop((stage, name), None)
        if stage < 0:
            self.end(How.CLOSE, FlowOutcome.CLOSED, "closed by us")
        else:
            self.feed(fx.StageTimer(stage, name))

    def _emit(self, effect: fx.Emit) -> None:
        record = effect.record
        self.record(record)
        if isinstance(record, Discarded):
            self._judge(Layer.STREAM_DISCARD, record.direction)

    def _ask(self, effect: fx.Ask) -> None:
        self._asks.start(self.services.loop, effect)

    def _resume_engine(self, ask_id: int, value: object, error: str | None) -> None:
        if self.outcome is None:
            now = self.services.loop.time()
            self._apply(self._engine.resume(ask_id, value, error, now))

    def _dial(self, effect: fx.Dial) -> None:
        self._drop_upstream(politely=True)
        self._finish_upstream = False
        self.target = effect.endpoint
        self.wake.set()

    def _end(self, effect: fx.End) -> None:
        closed = effect.how is How.CLOSE
        outcome = FlowOutcome.CLOSED if closed else self._verdict or FlowOutcome.RESET
        self.end(effect.how, outcome, effect.reason)

    # --- what the flow's task calls

    def record(self, record: Record) -> None:
        """Count and report it, and remember what it says of how the flow will end."""
        self._verdict = verdict_of(record) or self._verdict
        self.account.record(record)

    async def connected(self, sock: socket.socket) -> None:
        """An upstream is there: what waited goes out, and both sides flow."""
        side = Side(IN, self, sock, self.services.watch)
        preamble, self._preamble = self._preamble, None
        if preamble is not None:
            self.client.write(preamble.established)
        await side.attach(self.services.loop)
        if self.outcome is not None or not side.alive:
            side.close()
            return
        # INVARIANT: not before it is attached, or what is written meanwhile would be lost.
        self.upstream = side
        pending, self._pending, self._pending_size = self._pending, [], 0
        for data in pending:
            side.write(data)
        if self._finish_upstream:
            side.finish()
        self.client.release(Hold.NO_UPSTREAM)
        self.feed(UpstreamConnected())

    def remember_dial(self, sock: socket.socket, remote: Endpoint) -> None:
        """Note the ends of our own connection, to know it if it is redirected back to us."""
        dialled = self.services.dialled
        if self._ends is not None:
            dialled.discard(self._ends)
        self._ends = (Endpoint.of(sock.getsockname()), remote)
        dialled.add(self._ends)

    def failed(self, failure: DialFailure, detail: str) -> None:
        """There is no upstream: callouts may answer, else the flow is reset."""
        self._pending.clear()
        preamble = self._preamble
        if preamble is not None:
            self.client.write(preamble.refused.get(failure.value, b""))
            self.end(How.CLOSE, FlowOutcome.FAILED, detail)
            return
        self._verdict = self._verdict or FlowOutcome.FAILED
        self.feed(UpstreamFailed(failure, detail))
        self.client.release(Hold.NO_UPSTREAM)
        if self.outcome is not None:
            self.reason = detail

    def tick(self, now: float) -> None:
        """Once a second, from the service's sweep: idle and stalled flows end here."""
        times = self.services.times
        opaque = self.info.protocol not in (Protocol.HTTP1, Protocol.UNKNOWN)
        limit = times.opaque_idle_seconds if opaque else times.idle_seconds
        stuck = [offload.tick(now, times.write_seconds) for offload in self._offloads]
        if any(stuck) or self._stall.stuck(now, times.write_seconds, self._unsent):
            self.end(How.RESET, FlowOutcome.TIMEOUT, "the peer takes no bytes")
        elif limit and now - self._active > limit:
            self._active = now
            self._drop_upstream()
            self.feed(UpstreamFailed(DialFailure.TIMEOUT, f"nothing moved for {limit:g} s"))

    def end(self, how: How, outcome: FlowOutcome, reason: str) -> None:
        """The flow is over; the first reason counts. The task does the rest."""
        if self.outcome is not None:
            return
        self.outcome, self.reason, self._how = outcome, reason, how
        self.wake.set()
        if self.connecting is not None:
            self.connecting.cancel()

    def tear_down(self) -> None:
        """Close everything, explicitly, and write the account. Called exactly once."""
        if self.outcome is None:
            self.outcome, self.reason, self._how = FlowOutcome.ERROR, "stopped", How.RESET
        for offload in self._offloads:
            offload.stop()
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._asks.cancel()
        for effect in self._engine.close(self.reason, self.services.loop.time()):
            if isinstance(effect, fx.Emit):
                self.account.record(effect.record)
        _CLOSE[self._how](self.client)
        if self.upstream is not None:  # silence is for the client alone
            _CLOSE[How.RESET if self._how is How.DROP else self._how](self.upstream)
        if self._ends is not None:
            self.services.dialled.discard(self._ends)
        self._judge(Layer.ENDPOINT_CLOSURE)
        self.account.close(self.outcome, self.reason)

    def _judge(self, layer: Layer, direction: Direction | None = None) -> None:
        self.authorisation().judge(layer, direction=direction)

    def authorisation(self, *, reauthorize: bool = False) -> Authorisation:
        """The flow before the policy that is in force now."""
        services = self.services
        return Authorisation(
            services.policies(),
            services.guard,
            self.info,
            self.account,
            services.wall,
            reauthorize,
        )

    def _drop_upstream(self, *, politely: bool = False) -> None:
        for offload in self._offloads:
            offload.stop()
        side, self.upstream = self.upstream, None
        if side is not None:
            (side.close if politely else side.reset)()

    def _unsent(self, direction: Direction) -> int:
        sink = self.upstream if direction is OUT else self.client
        return sink.unsent if sink is not None else 0


_CLOSE: dict[How, Callable[[Side], None]] = {
    How.CLOSE: Side.close,
    How.RESET: Side.reset,
    How.DROP: Side.vanish,
}

_CARRY_OUT: dict[type, Callable[[FlowShell, Any], None]] = {
    fx.Write: FlowShell._write,
    fx.Splice: FlowShell._splice,
    fx.Pause: FlowShell._pause,
    fx.Resume: FlowShell._resume,
    fx.Finish: FlowShell._finish,
    fx.SetTimer: FlowShell._set_timer,
    fx.Emit: FlowShell._emit,
    fx.Ask: FlowShell._ask,
    fx.Dial: FlowShell._dial,
    fx.End: FlowShell._end,
}
