"""How a callout is registered: FwpsCalloutRegister and its filter's weight in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.contract import FlowHandle, Kind, Mode, StreamCallout
from proxy.limits import OnException

__all__ = ["Kind", "Mode", "Registration"]


@dataclass(frozen=True, slots=True)
class Registration:
    """A callout for every flow. `make` builds the flow's own object from its handle.

    `weight` orders the stages, high to low; equal weights keep the order of registration.
    `name` is what records and metrics call the callout. `on_error` takes the place of the
    exception table where the callout itself failed (an exception, an overrun).
    """

    name: str
    weight: int
    kind: Kind
    mode: Mode
    make: Callable[[FlowHandle], StreamCallout]
    on_error: OnException | None = None
