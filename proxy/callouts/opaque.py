"""Flows as a whole: connection rules, rows of the exception table, and letting pass.

What the stages share that decide about a flow and not about messages in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy.callouts.context import CalloutContext
from proxy.contract import AllowConnection, DropConnection, How, Signal, StreamData, Verdict
from proxy.limits import Cause, OnException
from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import PlannedEdit
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


@dataclass(frozen=True, slots=True)
class Judged:
    """What the rules say of a flow: it ends (`dropped`), or goes on with these edits."""

    dropped: DropConnection | None = None
    edits: tuple[PlannedEdit, ...] = ()


def judge(
    context: CalloutContext,
    layer: Layer,
    unknown: frozenset[str] = frozenset(),
    told: frozenset[str] = frozenset(),
) -> DropConnection | None:
    """Ask the rules of a connection-wide layer; None: the flow goes on.

    `unknown` names the fields that could not be determined (see Facts). This flow's bytes are
    not edited at `stream`, and the records of rules that would edit them say so. Hits of the
    rules in `told` are in the records already.
    """
    why = f"replace does not apply to {context.flow.info.protocol}"
    return _judge(context, layer, unknown, told, why).dropped


def judge_stream(context: CalloutContext, told: frozenset[str]) -> Judged:
    """Ask the rules of `stream` about a flow whose bytes they may edit; `told` as above."""
    return _judge(context, Layer.STREAM, frozenset(), told, "")


def _judge(
    context: CalloutContext,
    layer: Layer,
    unknown: frozenset[str],
    told: frozenset[str],
    not_edited: str,
) -> Judged:
    policy = context.policies()
    if not policy.wants(layer):
        return Judged()
    info = context.flow.info
    ruling = policy.decide(layer, Facts(flow=info, wall=context.wall(), unknown=unknown))
    edits = {planned.rule for planned in ruling.edits}
    for hit in ruling.hits:
        if hit.shadow or hit.rule not in told:
            noted = not_edited and hit.rule in edits
            context.flow.emit(replace(hit, detail=not_edited) if noted else hit)
    info.add_tags(ruling.tags)
    if not ruling.blocked:
        return Judged(edits=ruling.edits)
    silently = isinstance(ruling.action, ast.Block) and ruling.action.how == "drop"
    return Judged(DropConnection(How.DROP if silently else How.RESET))


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
