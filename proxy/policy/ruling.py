"""What policy answers: a Ruling with its verdict, the edits to make and every rule that hit."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from proxy.model import Layer
from proxy.model import Protocol as Recognised
from proxy.patterns import PatternSet
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.records import Decided


class RuleVerdict(enum.StrEnum):
    PERMIT = "permit"
    BLOCK = "block"
    REDIRECT = "redirect"
    RESPOND = "respond"  #: respond, or map_local


Edit = ast.Headers | ast.RewriteUrl | ast.InjectBanner | ast.Replace | ast.RemoveBody | ast.SetBody


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
    action: (
        ast.Block | ast.Redirect | ast.RedirectTo | ast.Permit | ast.Respond | ast.MapLocal | None
    ) = None
    hard: bool = False
    veto: bool = False
    redirect: ast.RedirectTo | None = None  #: connect_redirect: where it goes instead
    redirected_by: str | None = None  #: the rule with that action
    edits: tuple[PlannedEdit, ...] = ()
    tags: tuple[str, ...] = ()
    hits: tuple[Decided, ...] = ()

    @property
    def blocked(self) -> bool:
        return self.verdict is RuleVerdict.BLOCK


@dataclass(frozen=True, slots=True)
class BodyWatch:
    """What the rules of a body layer want to know of one message's content.

    `patterns` in the order of their numbers (Facts.body.matched holds numbers); `digest`: a
    rule asks for its SHA-256; `hold`: bytes that a block wants held back; `enforcing`: a rule
    that is not a shadow could block.
    """

    patterns: PatternSet
    digest: bool = False
    hold: int = 0
    enforcing: bool = False


class Policy(Protocol):
    """What callouts and the shell know of a Generation."""

    @property
    def number(self) -> int:
        """Generation number, from 1."""

    @property
    def protocols(self) -> frozenset[Recognised]:
        """Protocols that have enforcing (not shadow) rules of their own layers."""

    @property
    def answers(self) -> bool:
        """Whether an enforcing rule answers requests in the place of the server."""

    def wants(self, layer: Layer) -> bool:
        """Whether any rule looks at that layer (the interest mask)."""

    def wants_field(self, layer: Layer, field: str) -> bool:
        """Whether any rule of that layer tests that field (a key of FIELDS)."""

    def anomaly_action(self, anomaly: str) -> str:
        """refuse | repair, for a key of proxy.anomalies.ANOMALIES."""

    def watch(self, layer: Layer, facts: Facts) -> BodyWatch | None:
        """What to look for in the body of the message that `facts` describe, body excepted.

        `layer` is a body layer. None: no rule of it can apply, whatever the body holds.
        """

    def may_touch_response_body(self, facts: Facts) -> bool:
        """Whether the answer to this request may have its body edited or looked into.

        `facts` are of the request; everything that depends on the response is unknown.
        Banners do not count (`may_inject_banner`), shadow rules do not edit but do look.
        """

    def may_inject_banner(self, facts: Facts) -> bool:
        """The same for inject_banner."""

    def decide(self, layer: Layer, facts: Facts) -> Ruling:
        """Evaluate every rule of the layer: order and arbitration as documented there."""
