"""Replacing in raw bytes: the inner stage of a flow that no protocol's stage edits.

Rules of the `stream` layer may replace patterns in either direction of a flow that is neither
HTTP nor TLS: lengths change freely, for nothing frames these bytes. A direction holds back a
live prefix of a match at most, and gives it out before its FIN; a direction without edits is
permitted ahead as a whole.

A server may speak before its client. What it says is edited from the first byte by the rules
that apply whatever the client will turn out to be (`certain_ruling`): so a rule that tests
`protocol` edits no greeting, unless it holds for all protocols that can follow one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

from proxy.callouts.context import CalloutContext
from proxy.content.replace import ReplacePlan, StreamReplacer
from proxy.contract import PERMIT_FIN, Permit, Replace, Signal, StreamData, Verdict
from proxy.model import Direction, Layer, Protocol
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import PlannedEdit, RuleVerdict, Ruling

_ENDLESS = 1 << 62
_PLANS = 256  # compiled ones that are kept
#: What a flow in which the server speaks first may turn out to be and still be edited.
_AFTER_GREETING = (Protocol.SMTP, Protocol.SSH, Protocol.OPAQUE, Protocol.UNKNOWN)


class Lane:
    """One direction: an editor per rule, in the order of the rules."""

    def __init__(self, direction: Direction) -> None:
        self._directions = ("both", direction.name.lower())
        self._editors: dict[PlannedEdit, StreamReplacer] = {}

    @property
    def rules(self) -> frozenset[str]:
        """Whose edits are made here."""
        return frozenset(planned.rule for planned in self._editors)

    def add(self, edits: Sequence[PlannedEdit]) -> None:
        """Have these rules edit what comes; who edits already goes on with what it holds."""
        editors = {}
        for planned in edits:
            edit = planned.edit
            if isinstance(edit, ast.Replace) and edit.direction in self._directions:
                begun = self._editors.pop(planned, None)
                editors[planned] = begun or StreamReplacer(_plan(edit.items))
        self._editors = editors | self._editors

    def classify(self, data: StreamData) -> Verdict:
        if data.disconnect:
            rest = self.finish()
            return Replace(0, rest) if rest else PERMIT_FIN
        if not self._editors:
            return Permit(_ENDLESS)
        content = out = bytes(data.data)
        for editor in self._editors.values():
            out = editor.feed(out)
        return Permit(len(content)) if out is content else Replace(len(content), out)

    def finish(self) -> bytes:
        """What is still held, edited; nothing is edited any more."""
        rest = b""
        for editor in self._editors.values():
            rest = editor.feed(rest) + editor.finish()
        self._editors = {}
        return rest


class StreamEdit:
    """Both directions of one flow (contract.StreamCallout)."""

    def __init__(self, outbound: Lane, inbound: Lane) -> None:
        self._lanes = {Direction.OUTBOUND: outbound, Direction.INBOUND: inbound}

    def classify(self, data: StreamData) -> Verdict:
        return self._lanes[data.direction].classify(data)

    def signal(self, signal: Signal) -> bool:
        return False

    def closed(self, reason: str) -> None:
        """Nothing can be written any more: what is held has no way out."""


class Greeting:
    """What the server says while the client is silent.

    `lane` goes on when the flow's stage is known. `told`: rules whose hits are in the records.
    """

    def __init__(self, context: CalloutContext) -> None:
        self._context = context
        self.lane = Lane(Direction.INBOUND)
        self.told: frozenset[str] = frozenset()
        self.spoke = False  #: bytes of the server's have gone to the client, or are about to

    def classify(self, data: StreamData) -> Verdict:
        if not self.spoke and not data.disconnect:
            self.spoke = True
            self._ask()
        if not data.disconnect and not self.lane.rules:
            # Nothing ahead: the client's first bytes may bring edits of this direction.
            return Permit(len(data.data))
        return self.lane.classify(data)

    def _ask(self) -> None:
        ruling = certain_ruling(self._context)
        self.lane.add(ruling.edits)
        self.told = self.lane.rules
        for hit in ruling.hits:
            if hit.rule in self.told and not hit.shadow:
                self._context.flow.emit(hit)


def certain_ruling(context: CalloutContext) -> Ruling:
    """What the rules of `stream` say of a flow of which only the server was heard yet.

    Its edits are those that stand in whatever the client turns out to be; where it would be
    refused, or speak a protocol that is not edited, they do no harm.
    """
    policy = context.policies()
    permitted = Ruling(Layer.STREAM, RuleVerdict.PERMIT)
    if not policy.wants(Layer.STREAM):
        return permitted
    tested = policy.wants_field(Layer.STREAM, "protocol")
    rulings = [
        ruling
        for protocol in (_AFTER_GREETING if tested else _AFTER_GREETING[-1:])
        if not (ruling := policy.decide(Layer.STREAM, _supposing(context, protocol))).blocked
    ]
    if not rulings:
        return permitted
    common = [p for p in rulings[0].edits if all(p in ruling.edits for ruling in rulings)]
    return dataclasses.replace(rulings[0], edits=tuple(common))


def _supposing(context: CalloutContext, protocol: Protocol) -> Facts:
    info = context.flow.info
    flow = dataclasses.replace(info, protocol=protocol, tags=list(info.tags))
    return Facts(flow=flow, wall=context.wall())


@lru_cache(maxsize=_PLANS)
def _plan(items: tuple[ast.Replacement, ...]) -> ReplacePlan:
    """Once per rule of a generation."""
    return ReplacePlan([(item.pattern, item.by) for item in items])
