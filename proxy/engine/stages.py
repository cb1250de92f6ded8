"""The stage that every flow has, registered: the one place that knows its weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.callouts.context import CalloutContext
from proxy.callouts.protocol import ProtocolStage
from proxy.callouts.registration import HttpRegistration
from proxy.contract import FlowHandle, StreamCallout
from proxy.engine.registration import Kind, Mode, Registration
from proxy.limits import StreamConfig
from proxy.policy.ruling import Policy

PROTOCOL = "protocol"  #: its name in records
PROTOCOL_WEIGHT = 0x8000  #: others are above it (raw bytes) or below (what it has let pass)


def protocol_stage(
    config: StreamConfig,
    policies: Callable[[], Policy],
    wall: Callable[[], float],
    http: Sequence[HttpRegistration] = (),
) -> Registration:
    """The stage that recognises protocols and asks policy; see `CalloutContext`."""
    ordered = tuple(sorted(http, key=lambda one: -one.weight))

    def make(flow: FlowHandle) -> StreamCallout:
        return ProtocolStage(CalloutContext(flow, config, policies, wall, ordered))

    mode = Mode.OUT_OF_BAND if ordered else Mode.INLINE  # they may have it ask
    return Registration(PROTOCOL, PROTOCOL_WEIGHT, Kind.TERMINATING, mode, make)
