"""One HTTP stage alone, driven by hand: the contract's engine side in a page, and a policy.

The real engine has its own tests; here a stage is told exactly what it may be told, in any
cuts, and everything that it asks for is kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from proxy.anomalies import ANOMALIES
from proxy.callouts.context import CalloutContext
from proxy.callouts.http.stage import HttpStage
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
    StreamData,
    TimerFired,
    UpstreamFailed,
    Verdict,
)
from proxy.limits import ExceptionPolicies, Limits, StreamConfig
from proxy.model import Direction, Endpoint, FlowInfo, Layer, RedirectInfo
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import BodyWatch, PlannedEdit, RuleVerdict, Ruling
from proxy.records import AnomalySeen, Decided, ExchangeEnded, Record

C, S = Direction.OUTBOUND, Direction.INBOUND  # who speaks: the client, the server


@dataclass
class FakePolicy:
    """A generation with at most one ruling per layer, made by a function of the facts."""

    number: int = 1
    request: Callable[[Facts], Any] | None = None
    response: Callable[[Facts], Any] | None = None
    fields: frozenset[str] = frozenset()
    repair: frozenset[str] = frozenset()
    refuse: frozenset[str] = frozenset()
    banner: bool = False  #: an answer may get one
    touches: bool = False  #: an answer's body may be worked on
    watches: dict[Layer, BodyWatch] = field(default_factory=dict)
    request_body: Callable[[Facts], Any] | None = None
    response_body: Callable[[Facts], Any] | None = None
    asked: list[Facts] = field(default_factory=list)

    def wants(self, layer: Layer) -> bool:
        return self._maker(layer) is not None

    def wants_field(self, layer: Layer, field: str) -> bool:
        return field in self.fields

    def watch(self, layer: Layer, facts: Facts) -> BodyWatch | None:
        return self.watches.get(layer)

    def may_touch_response_body(self, facts: Facts) -> bool:
        return self.touches

    def may_inject_banner(self, facts: Facts) -> bool:
        return self.banner

    def anomaly_action(self, anomaly: str) -> str:
        if anomaly in self.refuse:
            return "refuse"
        return "repair" if anomaly in self.repair else ANOMALIES[anomaly].default

    def decide(self, layer: Layer, facts: Facts) -> Ruling:
        self.asked.append(facts)
        maker = self._maker(layer)
        made = maker(facts) if maker is not None else None
        return made if made is not None else Ruling(layer, RuleVerdict.PERMIT)

    def _maker(self, layer: Layer) -> Callable[[Facts], Any] | None:
        return {
            Layer.HTTP_REQUEST: self.request,
            Layer.HTTP_RESPONSE: self.response,
            Layer.HTTP_REQUEST_BODY: self.request_body,
            Layer.HTTP_RESPONSE_BODY: self.response_body,
        }.get(layer)


_VERDICTS = {
    ast.Permit: RuleVerdict.PERMIT,
    ast.Block: RuleVerdict.BLOCK,
    ast.Redirect: RuleVerdict.REDIRECT,
    ast.Respond: RuleVerdict.RESPOND,
    ast.MapLocal: RuleVerdict.RESPOND,
}


def ruling(layer: Layer, action: Any = None, *edits: Any, rule: str = "r1") -> Ruling:
    """A ruling as a policy would give it, with one hit."""
    verdict = RuleVerdict.PERMIT
    if action is not None:
        verdict = _VERDICTS[type(action)]
    hit = Decided(layer, verdict.value, rule, "test", 1)
    return Ruling(
        layer,
        verdict,
        rule=rule if action is not None else None,
        action=action,
        edits=tuple(PlannedEdit(edit, rule) for edit in edits),
        hits=(hit,),
    )


class Conversation:
    """A stage between a client and a server; `out[d]` is what was let through in direction d."""

    def __init__(
        self,
        policy: FakePolicy | None = None,
        *,
        explicit: bool = False,
        limits: Limits | None = None,
        exceptions: ExceptionPolicies | None = None,
        failed: UpstreamFailed | None = None,
    ) -> None:
        self.info = FlowInfo(
            "f1",
            RedirectInfo(
                "static", Endpoint("192.0.2.1", 80), Endpoint("192.0.2.9", 9), explicit=explicit
            ),
            0.0,
        )
        self.now = 0.0
        self.policy = policy or FakePolicy()
        self.out = [bytearray(), bytearray()]
        self.fin = [False, False]
        self.ended: How | None = None
        self.allowed = False
        self.records: list[Record] = []
        self.timers: dict[str, float] = {}
        self.dialled: list[Endpoint] = []
        self.claimed: list[bool] = []
        self._held = [bytearray(), bytearray()]
        self._offset = [0, 0]
        self._credit = [0, 0]
        self._need = [0, 0]
        self._deferred = [False, False]
        self._source_fin = [False, False]
        self._fin_shown = [False, False]
        self._finished = [False, False]
        self._classifying: Direction | None = None
        config = StreamConfig(limits or Limits(), exceptions or ExceptionPolicies())
        context = CalloutContext(self, config, lambda: self.policy, lambda: 1_700_000_000.0)
        self.stage = HttpStage(context, upstream_failed=failed)

    # --- what the peers do

    def client(self, *pieces: bytes) -> Conversation:
        return self._feed(C, pieces)

    def server(self, *pieces: bytes) -> Conversation:
        return self._feed(S, pieces)

    def client_fin(self) -> Conversation:
        return self._end_of(C)

    def server_fin(self) -> Conversation:
        return self._end_of(S)

    def signal(self, signal: Signal) -> Conversation:
        self.claimed.append(self.stage.signal(signal))
        self._settle()
        return self

    def wait(self, seconds: float) -> Conversation:
        """Let time pass, firing what falls due, in order."""
        until = self.now + seconds
        while self.timers and min(self.timers.values()) <= until:
            name = min(self.timers, key=lambda n: self.timers[n])
            self.now = self.timers.pop(name)
            self.stage.signal(TimerFired(name))
            self._settle()
        self.now = until
        return self

    def hang_up(self, reason: str = "client gone") -> Conversation:
        self.stage.closed(reason)
        return self

    # --- what is asserted

    @property
    def to_server(self) -> bytes:
        return bytes(self.out[C])

    @property
    def to_client(self) -> bytes:
        return bytes(self.out[S])

    @property
    def exchanges(self) -> list[ExchangeEnded]:
        return [r for r in self.records if isinstance(r, ExchangeEnded)]

    @property
    def anomalies(self) -> list[tuple[str, str]]:
        return [(r.anomaly, r.action) for r in self.records if isinstance(r, AnomalySeen)]

    @property
    def credit_inbound(self) -> int:
        return self._credit[S]

    # --- FlowHandle

    def inject(self, direction: Direction, data: bytes) -> None:
        assert not self._finished[direction], "inject after finish"
        self.out[direction] += data

    def proceed(self, direction: Direction) -> None:
        self._deferred[direction] = False
        self._need[direction] = 0

    def finish(self, direction: Direction) -> None:
        self._finished[direction] = True

    def drop(self, how: How = How.RESET) -> None:
        self.ended = how

    def set_timer(self, name: str, delay: float | None) -> None:
        self.timers.pop(name, None)
        if delay is not None:
            self.timers[name] = self.now + delay

    def ask(self, question: object, timeout: float) -> int:
        raise NotImplementedError

    def dial(self, endpoint: Endpoint) -> None:
        self.dialled.append(endpoint)
        self._held[S].clear()

    def emit(self, record: Record) -> None:
        self.records.append(record)

    # --- the engine's part

    def _feed(self, direction: Direction, pieces: Iterable[bytes]) -> Conversation:
        for piece in pieces:
            if piece and self.ended is None:
                assert not self._source_fin[direction]
                self._held[direction] += piece
                self._settle()
        return self

    def _end_of(self, direction: Direction) -> Conversation:
        self._source_fin[direction] = True
        self._settle()
        return self

    def _settle(self) -> None:
        while self.ended is None and (self._step(C) or self._step(S)):
            pass

    def _step(self, direction: Direction) -> bool:
        held = self._held[direction]
        if self.allowed:
            moved = bool(held)
            self._pass(direction, len(held), bytes(held))
            if self._source_fin[direction]:
                self.fin[direction] = True
            return moved
        if self._finished[direction]:
            self.fin[direction] = True
            held.clear()
            return False
        if self._deferred[direction]:
            return False
        if held and self._credit[direction]:
            n = min(len(held), self._credit[direction])
            self._credit[direction] -= n
            self._pass(direction, n, bytes(held[:n]))
            return True
        if held:
            if len(held) < self._need[direction] and not self._source_fin[direction]:
                return False
            return self._classify(direction, disconnect=False)
        if self._source_fin[direction] and not self._fin_shown[direction]:
            self._fin_shown[direction] = True
            return self._classify(direction, disconnect=True)
        return False

    def _classify(self, direction: Direction, *, disconnect: bool) -> bool:
        held = self._held[direction]
        self._classifying = direction
        shown = StreamData(
            direction,
            bytes(held),
            self._offset[direction],
            0,
            self._source_fin[direction],
            disconnect,
            False,
            self.now,
        )
        verdict = self.stage.classify(shown)
        self._classifying = None
        return self._carry_out(direction, verdict, disconnect)

    def _carry_out(self, direction: Direction, verdict: Verdict, disconnect: bool) -> bool:
        held = self._held[direction]
        match verdict:
            case Permit(n) if disconnect:
                assert n == 0
                self.fin[direction] = self._finished[direction] = True
            case Permit(n):
                assert n > 0, "no progress"
                now = min(n, len(held))
                self._credit[direction] = n - now
                self._pass(direction, now, bytes(held[:now]))
            case Block(n):
                assert 0 < n <= len(held)
                self._pass(direction, n, b"")
            case Replace(n, data):
                assert n <= len(held)
                assert n or data
                self._pass(direction, n, data)
            case NeedMoreData(n):
                assert not self._source_fin[direction]
                self._need[direction] = len(held) + n
                return False
            case AllowConnection():
                self.allowed = True
            case DropConnection(how):
                self.ended = how
            case Defer():
                self._deferred[direction] = True
                return False
        return True

    def _pass(self, direction: Direction, n: int, data: bytes) -> None:
        self.out[direction] += data
        del self._held[direction][:n]
        self._offset[direction] += n
        self._need[direction] = 0


def in_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def in_cuts(data: bytes, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
