"""A generation: all policies of one moment, compiled, immutable, and asked for rulings.

Two ways of deciding. At the connection layers sublayers are arbitrated as WFP does
(`proxy.policy.arbitration`). Everywhere else the rules are one sequence: edits, tags and logs
accumulate, the first permit, block or redirect ends it. In both, a shadow rule that applies is
recorded, and nothing else: evaluation goes on as if it were not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.anomalies import ANOMALIES
from proxy.model import Layer, Protocol
from proxy.policy import ast
from proxy.policy.arbitration import Action, Outcome, arbitrate
from proxy.policy.ast import OnReload
from proxy.policy.facts import Facts
from proxy.policy.globs import Matcher
from proxy.policy.layer_rules import LayerRules
from proxy.policy.rules import CompiledRule
from proxy.policy.ruling import BodyWatch, PlannedEdit, RuleVerdict, Ruling
from proxy.policy.scope import Scope
from proxy.records import Decided

__all__ = [
    "ARBITRATED",
    "PERMITS",
    "Generation",
    "LayerRules",
    "decide_by_sublayers",
    "decide_in_order",
]

#: What holds where no rule applies.
PERMITS = {layer: Ruling(layer=layer, verdict=RuleVerdict.PERMIT) for layer in Layer}
ARBITRATED = frozenset({Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT})
#: First bytes are waited for with the head, for rules on what comes behind it as well.
_SNIFFED = (Layer.HTTP_RESPONSE, "content_type.sniffed")


@dataclass(frozen=True, slots=True)
class Generation:
    """Implements `proxy.policy.ruling.Policy`."""

    number: int
    policies: tuple[str, ...]
    rule_ids: tuple[str, ...]  #: in the order of files and positions
    on_reload: OnReload
    protocols: frozenset[Protocol]  #: with enforcing rules, or anomalies to refuse
    answers: bool  #: an enforcing rule answers requests in the place of the server
    layers: Mapping[Layer, LayerRules] = field(repr=False)
    anomalies: tuple[tuple[Matcher, str], ...] = field(repr=False)  #: first match decides

    @property
    def rules(self) -> int:
        """How many rules there are."""
        return len(self.rule_ids)

    def wants(self, layer: Layer) -> bool:
        return layer in self.layers

    def wants_field(self, layer: Layer, field: str) -> bool:
        asking = (layer, Layer.HTTP_RESPONSE_BODY) if (layer, field) == _SNIFFED else (layer,)
        found = (self.layers.get(here) for here in asking)
        return any(rules is not None and field in rules.fields for rules in found)

    def anomaly_action(self, anomaly: str) -> str:
        """What the last entry that names it says; without one the anomaly's own default."""
        for matches, action in self.anomalies:
            if matches(anomaly):
                return action
        known = ANOMALIES.get(anomaly)
        return known.default if known is not None else "refuse"

    def watch(self, layer: Layer, facts: Facts) -> BodyWatch | None:
        rules = self.layers.get(layer)
        return rules.watch(facts) if rules is not None else None

    def may_touch_response_body(self, facts: Facts) -> bool:
        of_head = self.layers.get(Layer.HTTP_RESPONSE)
        if of_head is not None and of_head.may_touch(facts):
            return True
        of_body = self.layers.get(Layer.HTTP_RESPONSE_BODY)
        return of_body is not None and of_body.may_apply(facts)

    def may_inject_banner(self, facts: Facts) -> bool:
        rules = self.layers.get(Layer.HTTP_RESPONSE)
        return rules is not None and rules.may_inject(facts)

    def decide(self, layer: Layer, facts: Facts) -> Ruling:
        rules = self.layers.get(layer)
        if rules is None:
            return PERMITS[layer]
        scope = Scope(layer, facts)
        if layer in ARBITRATED:
            return decide_by_sublayers(rules, scope)
        return decide_in_order(rules, scope)


def decide_in_order(layer: LayerRules, scope: Scope) -> Ruling:
    """The rules as one sequence."""
    hits: list[Decided] = []
    edits: list[PlannedEdit] = []
    final: CompiledRule | None = None
    rules = layer.rules
    for position in layer.candidates.positions(scope):
        rule = rules[position]
        if not rule.applies(scope):
            continue
        hits.append(rule.acted)
        if rule.shadow:
            continue
        if rule.tags:
            scope.tags.extend(rule.tags)
        edits.extend(rule.edits)
        if rule.verdict is not None:
            final = rule
            break
    if not hits:
        return PERMITS[scope.layer]
    return _ruling(scope, final, edits, hits)


def _ruling(
    scope: Scope, final: CompiledRule | None, edits: list[PlannedEdit], hits: list[Decided]
) -> Ruling:
    verdict = final.verdict if final is not None else None
    passes = verdict is None or verdict is RuleVerdict.PERMIT
    return Ruling(
        layer=scope.layer,
        verdict=verdict or RuleVerdict.PERMIT,
        rule=final.id if final is not None else None,
        action=final.action if final is not None else None,
        hard=final.hard if final is not None else False,
        edits=tuple(edits) if passes else (),  # a message that does not pass is not edited
        tags=tuple(dict.fromkeys(scope.tags)),
        hits=tuple(hits),
    )


@dataclass(slots=True)
class _Standing:
    """The action that stands while sublayers are evaluated, and who said it."""

    action: Action | None = None
    rule: CompiledRule | None = None
    veto: bool = False
    against: str = ""  #: the rule whose hard permit was vetoed
    redirect: CompiledRule | None = None  #: whose redirect_to counts, if it stays a permit

    def hear(self, rule: CompiledRule) -> None:
        says = Action.of(blocks=rule.verdict is RuleVerdict.BLOCK, hard=rule.hard)
        outcome = arbitrate(self.action, says)
        self._hear_redirect(rule, outcome)
        if outcome is Outcome.STAYS:
            return
        if outcome is Outcome.VETO and self.rule is not None:
            self.veto, self.against = True, self.rule.id
        self.action, self.rule = says, rule

    def _hear_redirect(self, rule: CompiledRule, outcome: Outcome) -> None:
        """To change the destination is a right of its own, beside the action.

        "Using Bind or Connect Redirection" (learn.microsoft.com): without the right to write a
        callout changes nothing, and it leaves alone what another has redirected already. So
        the first redirect_to counts, unless a later one's action is taken.
        """
        if not isinstance(rule.action, ast.RedirectTo):
            return
        may_write = self.redirect is None and self.action is Action.SOFT_PERMIT
        if outcome is Outcome.TAKEN or may_write:
            self.redirect = rule

    @property
    def redirects(self) -> ast.RedirectTo | None:
        """Where the connection goes instead; nowhere if it is blocked."""
        rule, blocks = self.redirect, self.action in (Action.SOFT_BLOCK, Action.HARD_BLOCK)
        if rule is None or blocks or not isinstance(rule.action, ast.RedirectTo):
            return None
        return rule.action


def decide_by_sublayers(layer: LayerRules, scope: Scope) -> Ruling:
    """All sublayers, each up to its first rule that permits or blocks."""
    standing = _Standing()
    acted: list[CompiledRule] = []
    settled = -1  # the sublayer that has given its action
    rules = layer.rules
    for position in layer.candidates.positions(scope):
        rule = rules[position]
        if rule.group == settled or not rule.applies(scope):
            continue
        acted.append(rule)
        if rule.shadow:
            continue
        scope.tags.extend(rule.tags)
        if rule.verdict is not None:
            settled = rule.group
            standing.hear(rule)
    if not acted:
        return PERMITS[scope.layer]
    hits = [hit for rule in acted if (hit := _hit(rule, standing)) is not None]
    ruling = _ruling(scope, standing.rule, [], hits)
    if standing.veto:
        return replace(ruling, veto=True)
    redirect, by = standing.redirects, standing.redirect
    if redirect is None or by is None:
        return ruling
    return replace(ruling, redirect=redirect, redirected_by=by.id)


def _hit(rule: CompiledRule, standing: _Standing) -> Decided | None:
    """A rule whose verdict was overridden is recorded for what else it did, if anything."""
    if rule.shadow or rule.verdict is None:
        return rule.acted
    if rule is standing.redirect and standing.redirects is not None:
        return rule.acted
    if rule is not standing.rule:
        return rule.also
    if not standing.veto:
        return rule.acted
    detail = f"against the hard permit of {standing.against}"
    said = rule.acted.detail
    return replace(rule.acted, veto=True, detail=f"{said}; {detail}" if said else detail)
