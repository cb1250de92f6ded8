"""What policy answers: a Ruling with its verdict, the edits to make and every rule that hit."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from proxy.model import Layer
from proxy.model import Protocol as Recognised
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.records import Decided


class RuleVerdict(enum.StrEnum):
    PERMIT = "permit"
    BLOCK = "block"
    REDIRECT = "redirect"


Edit = ast.Headers | ast.RewriteUrl | ast.InjectBanner


@dataclass(frozen=True, slots=True)
class PlannedEdit:
    edit: Edit
    rule: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """The outcome at one layer. `hits` are ready to be emitted, shadow ones included."""

    layer: Layer
    verdict: RuleVerdict
    rule: str | None = None  #: rule that decided; None: no rule, the default permits
    action: ast.Block | ast.Redirect | ast.Permit | None = None
    hard: bool = False
    veto: bool = False
    edits: tuple[PlannedEdit, ...] = ()
    tags: tuple[str, ...] = ()
    hits: tuple[Decided, ...] = ()

    @property
    def blocked(self) -> bool:
        return self.verdict is RuleVerdict.BLOCK


class Policy(Protocol):
    """What callouts and the shell know of a Generation."""

    @property
    def number(self) -> int:
        """Generation number, from 1."""

    @property
    def protocols(self) -> frozenset[Recognised]:
        """Protocols that have enforcing (not shadow) rules of their own layers."""

    def wants(self, layer: Layer) -> bool:
        """Whether any rule looks at that layer (the interest mask)."""

    def wants_field(self, layer: Layer, field: str) -> bool:
        """Whether any rule of that layer tests that field (a key of FIELDS)."""

    def anomaly_action(self, anomaly: str) -> str:
        """refuse | repair, for a key of proxy.anomalies.ANOMALIES."""

    def decide(self, layer: Layer, facts: Facts) -> Ruling:
        """Evaluate every rule of the layer: order and arbitration as documented there."""
