"""How HTTP and connection callouts are registered; for stream callouts: engine/registration.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.api import ConnectionCallout, HttpCallout, Interest
from proxy.contract import Kind, Mode
from proxy.limits import OnException
from proxy.model import FlowInfo

POLICY = "callouts"  #: what records of a callout's decision name in the place of a policy


def rule_of(name: str) -> str:
    """What records of a callout's decision name in the place of a rule."""
    return f"callout:{name}"


@dataclass(frozen=True, slots=True)
class HttpRegistration:
    """An HTTP callout for every flow that speaks HTTP/1. `make` builds the flow's own object.

    `timeout` is in seconds and for `Mode.OUT_OF_BAND`; `body_bytes` bounds the complete bodies
    that it is shown. `on_error` takes the place of the exception table for its own faults and
    for bodies that are longer.
    """

    name: str
    weight: int
    kind: Kind
    mode: Mode
    interest: Interest
    make: Callable[[FlowInfo], HttpCallout]
    timeout: float = 2.0
    on_error: OnException | None = None
    body_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionRegistration:
    """A connection callout: one object for the process. `timeout` in seconds, as above."""

    name: str
    weight: int
    mode: Mode
    callout: ConnectionCallout
    timeout: float = 2.0
    on_error: OnException | None = None
