"""Flows as a whole: connection rules, rows of the exception table, and letting pass.

What the stages share that decide about a flow and not about messages in it.
"""

from __future__ import annotations

from proxy.callouts.context import CalloutContext
from proxy.contract import AllowConnection, DropConnection, How, Signal, StreamData, Verdict
from proxy.limits import Cause, OnException
from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.records import ExceptionApplied

NAME = "protocol"  #: of this stage in records and settings


class Passing:
    """The end of inspection, for where a verdict cannot be returned at once (in a signal)."""

    def classify(self, data: StreamData) -> Verdict:
        return AllowConnection()

    def signal(self, signal: Signal) -> bool:
        return False

    def closed(self, reason: str) -> None:
        """Nothing is held and nothing is owed."""


def judge(
    context: CalloutContext, layer: Layer, unknown: frozenset[str] = frozenset()
) -> DropConnection | None:
    """Ask the rules of a connection-wide layer; None: the flow goes on.

    `unknown` names the fields that could not be determined (see Facts).
    """
    policy = context.policies()
    if not policy.wants(layer):
        return None
    info = context.flow.info
    ruling = policy.decide(layer, Facts(flow=info, wall=context.wall(), unknown=unknown))
    for hit in ruling.hits:
        context.flow.emit(hit)
    info.add_tags(ruling.tags)
    if not ruling.blocked:
        return None
    silently = isinstance(ruling.action, ast.Block) and ruling.action.how == "drop"
    return DropConnection(How.DROP if silently else How.RESET)


def closes(context: CalloutContext, cause: Cause, detail: str) -> bool:
    """Apply a row of the exception table; True: the flow must end.

    UNDECIDED and UNINSPECTABLE close only where an enforcing rule of a protocol was to be
    applied: with nothing to enforce, nothing is evaded.
    """
    action = context.config.exceptions.action(cause)
    guarded = cause not in (Cause.UNDECIDED, Cause.UNINSPECTABLE) or context.policies().protocols
    if not guarded:
        action = OnException.OPEN
    context.flow.emit(ExceptionApplied(cause, action, NAME, detail))
    return action is OnException.CLOSED


def shed(context: CalloutContext) -> None:
    """Overload before anything was decided: end the flow, unless the table says otherwise."""
    if closes(context, Cause.OVERLOAD, "not yet recognised"):
        context.flow.drop(How.RESET)
