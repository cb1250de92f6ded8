"""A ProtocolStage between a client and a server, on the hand-driven engine side of HTTP's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.callouts.context import CalloutContext
from proxy.callouts.protocol import ProtocolStage
from proxy.limits import ExceptionPolicies, Limits, StreamConfig
from proxy.model import Layer, Protocol
from proxy.policy.facts import Facts
from proxy.records import Detected, ExceptionApplied
from tests.unit.http.stage_driver import Conversation, FakePolicy

WALL = 1_700_000_000.0


@dataclass
class FlowPolicy(FakePolicy):
    """The HTTP driver's policy, with rules for whole flows; `protocols`: with enforcing rules."""

    stream: Callable[[Facts], Any] | None = None
    hello: Callable[[Facts], Any] | None = None
    protocols: frozenset[Protocol] = field(default_factory=frozenset)

    def _maker(self, layer: Layer) -> Callable[[Facts], Any] | None:
        mine = {Layer.STREAM: self.stream, Layer.TLS_CLIENT_HELLO: self.hello}
        return mine.get(layer) or super()._maker(layer)


class Flow(Conversation):
    """`client(...)`, `server(...)`, `wait(...)`, `signal(...)` as there."""

    def __init__(
        self,
        policy: FlowPolicy | None = None,
        *,
        limits: Limits | None = None,
        exceptions: ExceptionPolicies | None = None,
    ) -> None:
        super().__init__(policy or FlowPolicy())
        self.timers.clear()
        config = StreamConfig(limits or Limits(), exceptions or ExceptionPolicies())
        self.stage = ProtocolStage(CalloutContext(self, config, lambda: self.policy, lambda: WALL))

    @property
    def detected(self) -> list[Protocol]:
        return [r.protocol for r in self.records if isinstance(r, Detected)]

    @property
    def exceptions(self) -> list[tuple[str, str]]:
        return [
            (r.cause.value, r.action.value) for r in self.records if isinstance(r, ExceptionApplied)
        ]

    def seen(self) -> tuple[object, ...]:
        """All that the invariance law speaks of."""
        return (
            self.to_server,
            self.to_client,
            tuple(self.fin),
            self.ended,
            self.allowed,
            tuple(self.records),
            tuple(sorted(self.timers.items())),
            (self.info.protocol, self.info.sni, self.info.alpn, tuple(self.info.tags)),
        )
