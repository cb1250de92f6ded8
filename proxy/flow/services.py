"""What a flow borrows from the process. Made once by `service.app`, shared by every flow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.account.ledger import Accounts
from proxy.callouts.registration import ConnectionRegistration
from proxy.engine.budget import Budget
from proxy.engine.registration import Registration
from proxy.flow.hangup import HangupWatch
from proxy.flow.pipes import PipePool
from proxy.limits import FlowTimes, StreamConfig
from proxy.model import Endpoint
from proxy.policy.ruling import Policy
from proxy.redirect.guards import SelfGuard
from proxy.redirect.provider import Provider

if TYPE_CHECKING:
    from proxy.flow.shell import FlowShell


@dataclass(frozen=True, slots=True)
class Services:
    """`wall` is seconds since the epoch; monotonic time is the loop's.

    `dialled` holds both ends of our own upstream connections: a captured connection with the
    same ends is ourselves, redirected back (a loop). Both, because two connections of one
    machine may share a local port when they go to different places.
    """

    loop: asyncio.AbstractEventLoop
    provider: Provider
    guard: SelfGuard
    policies: Callable[[], Policy]
    registrations: Sequence[Registration]
    accounts: Accounts
    config: StreamConfig
    times: FlowTimes
    budget: Budget
    wall: Callable[[], float]
    watch: HangupWatch | None
    pipes: PipePool | None  #: where the kernel can move bytes by itself
    connections: Sequence[ConnectionRegistration] = ()  #: asked before every dial
    flows: set[FlowShell] = field(default_factory=set)
    dialled: set[tuple[Endpoint, Endpoint]] = field(default_factory=set)
