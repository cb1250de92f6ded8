"""How a callout is registered: FwpsCalloutRegister and its filter's weight in one value."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from proxy.contract import FlowHandle, StreamCallout


class Kind(enum.StrEnum):
    """FWP_ACTION_CALLOUT_TERMINATING or FWP_ACTION_CALLOUT_INSPECTION of a filter."""

    TERMINATING = "terminating"  #: its verdicts are carried out
    INSPECTION = "inspection"  #: it sees a copy of what passes and cannot change the stream


class Mode(enum.StrEnum):
    """How a callout comes to its verdicts."""

    INLINE = "inline"  #: in classify() itself
    OUT_OF_BAND = "out_of_band"  #: it may `ask` and wait for the Answer


@dataclass(frozen=True, slots=True)
class Registration:
    """A callout for every flow. `make` builds the flow's own object from its handle.

    `weight` orders the stages, high to low; equal weights keep the order of registration.
    `name` is what records and metrics call the callout.
    """

    name: str
    weight: int
    kind: Kind
    mode: Mode
    make: Callable[[FlowHandle], StreamCallout]
