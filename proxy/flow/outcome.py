"""What the accounts call the end of a flow, from what the engine reported before it."""

from __future__ import annotations

from proxy.account.ledger import FlowOutcome
from proxy.limits import OnException
from proxy.records import AnomalySeen, Decided, ExceptionApplied, Record


def verdict_of(record: Record) -> FlowOutcome | None:
    """What a flow that is reset after this record was ended by."""
    match record:
        case Decided(verdict="block", shadow=False):
            return FlowOutcome.BLOCKED
        case AnomalySeen(action="refuse") | ExceptionApplied(action=OnException.CLOSED):
            return FlowOutcome.REFUSED
    return None
