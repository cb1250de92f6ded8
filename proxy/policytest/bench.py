"""One flow in memory: the real engine with the real protocol stage, a client, a server, a clock.

The flow's story is that of `proxy.flow.run` without sockets: the connection layers are asked,
the upstream is there at once, both sides' bytes go through the engine in whatever pieces, and
time passes when nothing else moves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from proxy.contract import How, UpstreamConnected
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.engine.engine import Engine
from proxy.engine.stages import protocol_stage
from proxy.limits import StreamConfig
from proxy.model import Direction, FlowInfo, Layer, Protocol
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import Policy, Ruling
from proxy.policytest.given import Reply, Say, Script, Turn, Wait, is_loopback
from proxy.policytest.messages import read_requests
from proxy.records import Discarded, Record
from proxy.testing.drive import Run
from proxy.testing.trace import Elapse, Item

OUT, IN = Direction.OUTBOUND, Direction.INBOUND
Cut = Callable[[bytes], Iterable[bytes]]
#: Between two turns: longer than a sniff or a hold, shorter than anything that ends a flow.
SETTLE_SECONDS = 2.0
#: At the end: longer than recognising a protocol may take.
LAST_SECONDS = 15.0


@dataclass(slots=True)
class Played:
    """What came of a script. `streams` by direction: what reached the server, the client."""

    records: list[Record] = field(default_factory=list)
    streams: tuple[bytes, bytes] = (b"", b"")
    ended: How | None = None  #: the proxy ended the flow in this way
    refusal: Ruling | None = None  #: of the connection
    protocol: Protocol = Protocol.UNKNOWN
    tags: tuple[str, ...] = ()
    redirected_to: str = ""  #: the endpoint that was dialled instead


def play(script: Script, policy: Policy, cut: Cut) -> Played:
    """Play a script, every turn's bytes cut by `cut`."""
    return _Bench(script, policy, cut).play()


class _Bench:
    def __init__(self, script: Script, policy: Policy, cut: Cut) -> None:
        self._script = script
        self._policy = policy
        self._cut = cut
        self._seen = Played()
        self._info = FlowInfo("test", script.redirect, script.wall, tags=list(script.tags))
        self._run = Run(_engine(self._info, policy, script.wall), None, offload=False)
        self._taken = 0  # of the run's effects
        self._waiting: tuple[deque[fx.Indication], ...] = (deque(), deque())
        self._paused = [False, False]

    def play(self) -> Played:
        seen = self._seen
        if self._connect():
            self._feed(UpstreamConnected())
            for turn in self._script.turns:
                self._take_turn(turn)
                self._feed(Elapse(SETTLE_SECONDS))
            for direction in (OUT, IN):
                self._send(direction, [fx.Disconnect(direction)])
                self._feed(Elapse(SETTLE_SECONDS))
            self._feed(Elapse(LAST_SECONDS))
        self._run.close("the test is over")
        self._take_effects()
        self._judge(Layer.ENDPOINT_CLOSURE)
        seen.streams = self._run.step().outbound, self._run.step().inbound
        seen.protocol = self._info.protocol
        seen.tags = tuple(self._info.tags)
        return seen

    # --- the connection

    def _connect(self) -> bool:
        for layer in (Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT, Layer.FLOW_ESTABLISHED):
            ruling = self._judge(layer)
            if ruling is not None and ruling.blocked:
                action = ruling.action
                silent = isinstance(action, ast.Block) and action.how == "drop"
                self._seen.refusal = ruling
                self._seen.ended = How.DROP if silent else How.RESET
                return False
            if ruling is not None and ruling.redirect is not None:
                self._send_to(ruling.redirect)
        return True

    def _send_to(self, action: ast.RedirectTo) -> None:
        redirect = self._info.redirect
        there = action.instead_of(redirect.original_dst)
        self._info.redirect = replace(redirect, redirect_to=there, loopback=is_loopback(there))
        self._seen.redirected_to = str(there)

    def _judge(self, layer: Layer, direction: Direction | None = None) -> Ruling | None:
        if not self._policy.wants(layer):
            return None
        facts = Facts(flow=self._info, wall=self._script.wall, direction=direction)
        ruling = self._policy.decide(layer, facts)
        self._info.add_tags(ruling.tags)
        self._seen.records += ruling.hits
        return ruling

    # --- bytes and time

    def _take_turn(self, turn: Turn) -> None:
        match turn:
            case Say(direction, data):
                self._send(direction, self._pieces(direction, data))
            case Reply(data, last):
                at_server = read_requests(self._run.step().outbound)
                if any(not request.problem for request in at_server):
                    end = [fx.Disconnect(IN)] if last else []
                    self._send(IN, [*self._pieces(IN, data), *end])
            case Wait(seconds):
                self._feed(Elapse(seconds))

    def _pieces(self, direction: Direction, data: bytes) -> list[fx.Indication]:
        return [fx.Data(direction, piece) for piece in self._cut(data) if piece]

    def _send(self, direction: Direction, items: Iterable[fx.Indication]) -> None:
        self._waiting[direction].extend(items)
        self._pump()

    def _feed(self, item: Item) -> None:
        self._run.feed(item)
        self._take_effects()
        self._pump()

    def _pump(self) -> None:
        """Give the engine what it will read."""
        for direction in (OUT, IN, OUT):
            queue = self._waiting[direction]
            while queue and not self._paused[direction] and not self._run.engine.ended:
                self._run.feed(queue.popleft())
                self._take_effects()

    def _take_effects(self) -> None:
        seen, effects = self._seen, self._run.effects
        while self._taken < len(effects):
            effect = effects[self._taken]
            self._taken += 1
            match effect:
                case fx.Pause(direction) | fx.Resume(direction):
                    self._paused[direction] = isinstance(effect, fx.Pause)
                case fx.Emit(record):
                    seen.records.append(record)
                    if isinstance(record, Discarded):
                        self._judge(Layer.STREAM_DISCARD, record.direction)
                case fx.End(how):
                    seen.ended = how


def _engine(info: FlowInfo, policy: Policy, wall: float) -> Engine:
    """As the service makes it, under default limits; its clock stands still."""
    config = StreamConfig()
    stage = protocol_stage(config, lambda: policy, lambda: wall)
    return Engine(info, [stage], config, Budget(config.limits.process_buffer), lambda: 0.0)
