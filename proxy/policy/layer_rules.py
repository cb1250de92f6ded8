"""The rules of one layer, and which of them may still apply when not everything is known.

A survey evaluates conditions as a decision does, with fields unknown that only time will tell:
those of the response when there is a request, the content when there is a head. A rule whose
condition is false all the same cannot apply; one that is sure to end the layer hides those
behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from proxy.model import Layer
from proxy.patterns import PatternSet, StreamPattern
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.index import Candidates
from proxy.policy.rules import CompiledRule
from proxy.policy.ruling import BodyWatch, RuleVerdict
from proxy.policy.scope import Scope

#: Edits that change the body of a response; banners are asked for by themselves.
_TOUCHING = (ast.Replace, ast.RemoveBody, ast.SetBody)
_BANNER = (ast.InjectBanner,)
_TAG = frozenset({"tag"})
#: What depends on the response; `header` and the like are the response's at its layers. Rules
#: in between may tag the flow.
_OF_RESPONSE = _TAG | {
    "content_length",
    "content_type",
    "content_type.sniffed",
    "header",
    "response.header",
    "status",
}
_NO_PATTERNS = PatternSet(())


@dataclass(frozen=True, slots=True)
class LayerRules:
    """The rules of one layer in the order of evaluation, and how to find those that matter.

    `numbers`: of the patterns that conditions look for in content, each in `patterns`.
    """

    layer: Layer
    rules: tuple[CompiledRule, ...]
    candidates: Candidates
    fields: frozenset[str]  #: fields that any of them tests
    numbers: Mapping[StreamPattern, int] = field(default_factory=dict)
    patterns: PatternSet = _NO_PATTERNS
    tags: bool = field(init=False)  #: rules tag the flow, which later ones may see
    touches: bool = field(init=False)
    banners: bool = field(init=False)

    def __post_init__(self) -> None:
        enforced = [rule for rule in self.rules if not rule.shadow]
        object.__setattr__(self, "tags", any(rule.tags for rule in enforced))
        object.__setattr__(self, "touches", any(_edits(rule, _TOUCHING) for rule in enforced))
        object.__setattr__(self, "banners", any(_edits(rule, _BANNER) for rule in enforced))

    def possible(self, scope: Scope) -> Iterator[CompiledRule]:
        """Rules whose conditions are not false, in order, up to one that surely ends it."""
        for position in self.candidates.positions(scope):
            rule = self.rules[position]
            value = rule.value(scope)
            if value is False:
                continue
            yield rule
            if value and rule.verdict is not None and not rule.shadow:
                return

    def may_touch(self, facts: Facts) -> bool:
        """Whether the body of the response to this request may be edited, banners aside."""
        return self.touches and self._may_edit(facts, _TOUCHING)

    def may_inject(self, facts: Facts) -> bool:
        return self.banners and self._may_edit(facts, _BANNER)

    def may_apply(self, facts: Facts) -> bool:
        """Whether any rule may apply to the response to this request."""
        return next(self.possible(self._before(facts)), None) is not None

    def watch(self, facts: Facts) -> BodyWatch | None:
        """What the rules that may apply want to know of the content behind this head."""
        unknown = facts.unknown | _TAG if self.tags else facts.unknown
        scope = Scope(self.layer, replace(facts, body=None, unknown=unknown))
        possible = list(self.possible(scope))
        if not possible:
            return None
        blocking = [rule for rule in possible if _blocks(rule)]
        return BodyWatch(
            patterns=self.patterns if any("body" in r.asks for r in possible) else _NO_PATTERNS,
            digest=any("body.sha256" in rule.asks for rule in possible),
            hold=max((_hold(rule) for rule in blocking), default=0),
            enforcing=bool(blocking),
        )

    def _may_edit(self, facts: Facts, edits: tuple[type[ast.Action], ...]) -> bool:
        possible = self.possible(self._before(facts))
        return any(_edits(rule, edits) and not rule.shadow for rule in possible)

    def _before(self, facts: Facts) -> Scope:
        """For a layer of the response while there is only the request."""
        unknown = facts.unknown | _OF_RESPONSE
        return Scope(self.layer, replace(facts, response=None, body=None, unknown=unknown))


def _edits(rule: CompiledRule, edits: tuple[type[ast.Action], ...]) -> bool:
    return any(isinstance(planned.edit, edits) for planned in rule.edits)


def _blocks(rule: CompiledRule) -> bool:
    return rule.verdict is RuleVerdict.BLOCK and not rule.shadow


def _hold(rule: CompiledRule) -> int:
    return rule.action.hold if isinstance(rule.action, ast.Block) else 0
