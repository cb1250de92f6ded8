"""What policy answers: a Ruling with its verdict, the edits to make and every rule that hit."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from proxy.model import Layer
from proxy.policy import ast
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
