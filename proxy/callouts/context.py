"""What every shipped callout is built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.callouts.registration import HttpRegistration
from proxy.contract import FlowHandle
from proxy.limits import StreamConfig
from proxy.policy.ruling import Policy


@dataclass(frozen=True, slots=True)
class CalloutContext:
    """`policies` returns the generation in force now; an exchange asks once and keeps it.

    `wall` returns seconds since the epoch (the core reads no clock itself). `http` are the
    users' own callouts, from the first asked to the last.
    """

    flow: FlowHandle
    config: StreamConfig
    policies: Callable[[], Policy]
    wall: Callable[[], float]
    http: tuple[HttpRegistration, ...] = ()
