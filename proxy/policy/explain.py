"""Why a layer's rules decided as they did: every rule of it, by the code that decides.

The outcome is `Generation.decide`'s own, whether a rule applies is asked of its compiled
predicates, and the parts of a condition are compiled as the generation compiles them. What is
added here is only the account: which part of a condition was decisive, and what it saw.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.errors import Problem
from proxy.model import Layer
from proxy.patterns import StreamPattern
from proxy.policy import ast
from proxy.policy.compile import compile_policies
from proxy.policy.conditions import Conditions
from proxy.policy.explain_parts import Part, Reason, no_local_file, reasons_of, rests_on, value_of
from proxy.policy.explain_words import seen
from proxy.policy.extract import reader
from proxy.policy.facts import BodyFacts, Facts
from proxy.policy.generation import ARBITRATED, Generation
from proxy.policy.layer_rules import LayerRules
from proxy.policy.lists import ListBook
from proxy.policy.rules import CompiledRule
from proxy.policy.ruling import Ruling
from proxy.policy.scope import Scope


class Fate(enum.StrEnum):
    """What became of a rule at its layer."""

    DECIDES = "decides"  #: its verdict is the layer's
    ACTS = "acts"  #: its edits, tags or log count
    SHADOW = "shadow"  #: it applies and only reports
    OVERRIDDEN = "overridden"  #: it applies; another sublayer's verdict stands
    NOT_REACHED = "not_reached"  #: another rule had ended the layer, or its sublayer
    NO_MATCH = "no_match"
    UNKNOWN = "unknown"  #: what its condition needs is not known, so it does not apply
    DEPENDS = "depends"  #: on what was left open; whether it applies is not told


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """`applies`: its condition holds (or is unknown and the rule denies), reached or not.

    `by` names the rule that overrode it or was there before it.
    """

    rule: ast.Rule
    policy: str
    fate: Fate
    applies: bool
    reasons: tuple[Reason, ...]
    when: Part | None
    unless: Part | None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class LayerTrace:
    """`ruling` is that of all rules but those whose fate is DEPENDS."""

    layer: Layer
    ruling: Ruling
    rules: tuple[RuleTrace, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A rule as written, and what its file has."""

    rule: ast.Rule
    policy: str
    lists: ListBook


class Explainer:
    """Explains decisions of one generation, which was compiled from `files`."""

    def __init__(self, files: tuple[ast.PolicyFile, ...], generation: Generation) -> None:
        self.generation = generation
        self._files = files
        self.sources: Mapping[str, Source] = {
            rule.id: Source(rule, file.policy, lists)
            for file in files
            for lists in (ListBook(file.lists),)
            for rule in file.rules
        }

    def explain(
        self,
        layer: Layer,
        facts: Facts,
        left_open: frozenset[str] = frozenset(),
        body: bytes | None = None,
    ) -> LayerTrace:
        """Every rule of the layer in the order of evaluation, and the outcome.

        `left_open` names fields that would be known to a decision and are not told here. They
        are unknown in the traces; a rule that rests on one of them DEPENDS, and the outcome is
        that of all other rules. `body`: the whole content, at a body layer.
        """
        facts = replace(facts, unknown=facts.unknown | left_open)
        walk = _Walk(layer)
        rules = self.generation.layers.get(layer)
        here = _with_body(rules, facts, body)
        traces = [
            self._trace(rule, here, walk, left_open) for rule in (rules.rules if rules else ())
        ]
        depends = frozenset(t.rule.id for t in traces if t.fate is Fate.DEPENDS)
        others = self._without(depends)
        ruling = others.decide(layer, _with_body(others.layers.get(layer), facts, body))
        settled = tuple(_settled(trace, ruling) for trace in traces)
        return LayerTrace(layer, ruling, settled)

    def _without(self, rules: frozenset[str]) -> Generation:
        """The generation as it would be without these rules."""
        if not rules:
            return self.generation
        files = [
            replace(file, rules=tuple(rule for rule in file.rules if rule.id not in rules))
            for file in self._files
        ]
        return compile_policies(files, self.generation.number)

    def _trace(
        self, rule: CompiledRule, facts: Facts, walk: _Walk, left_open: frozenset[str]
    ) -> RuleTrace:
        applies = rule.applies(walk.scope(facts))
        when, unless = self._parts(rule, walk.scope(facts))
        value = value_of(when, unless)
        source = self.sources[rule.id]
        fate, by = walk.place(rule)
        if fate is None and value is None and rests_on(left_open, when, unless):
            fate = Fate.DEPENDS
        elif fate is None and not applies:
            fate = Fate.UNKNOWN if value is None else Fate.NO_MATCH
        elif fate is None:
            fate = walk.apply(rule)
        reasons = reasons_of(source.rule, when, unless, value)
        if value and not applies:  # map_local has a condition of its own
            reasons = (no_local_file(source.rule),)
        return RuleTrace(source.rule, source.policy, fate, applies, reasons, when, unless, by)

    def _parts(self, rule: CompiledRule, scope: Scope) -> tuple[Part | None, Part | None]:
        source = self.sources[rule.id]
        numbers = self.generation.layers[scope.layer].numbers
        taken = _Taken(scope, source.lists, numbers)
        every = any(isinstance(action, ast.Permit) for action in source.rule.then)
        when, unless = source.rule.when, source.rule.unless
        return (
            None if when is None else taken.part(when, every=every, positive=True),
            None if unless is None else taken.part(unless, every=not every, positive=False),
        )


@dataclass(frozen=True, slots=True)
class _Taken:
    """Takes conditions apart and asks each part, compiled as the generation compiles it."""

    scope: Scope
    lists: ListBook
    numbers: Mapping[StreamPattern, int]

    def part(self, condition: ast.Condition, *, every: bool, positive: bool) -> Part:
        """`every` and `positive` as in `proxy.policy.conditions`."""
        inner: tuple[Part, ...] = ()
        match condition:
            case ast.Not():
                inner = (self.part(condition.part, every=not every, positive=not positive),)
            case ast.All() | ast.AnyOf():
                inner = tuple(
                    self.part(part, every=every, positive=positive) for part in condition.parts
                )
        value = self._ask(condition, every=every, positive=positive)
        return Part(condition, value, self._saw(condition), inner)

    def _ask(self, condition: ast.Condition, *, every: bool, positive: bool) -> bool | None:
        problems: list[Problem] = []
        conditions = Conditions(self.scope.layer, problems, self.numbers)
        node = conditions.add(condition, self.lists, every=every, positive=positive)
        # A scope of its own: what it remembers is numbered by the compilation.
        fresh = Scope(self.scope.layer, self.scope.facts)
        fresh.tags = self.scope.tags
        return conditions.predicate(node)(fresh)

    def _saw(self, condition: ast.Condition) -> str:
        if not isinstance(condition, ast.Test):
            return ""
        return seen(condition.field, reader(condition.field, condition.arg)(self.scope))


def _with_body(rules: LayerRules | None, facts: Facts, body: bytes | None) -> Facts:
    """Patterns are numbered by layer and generation, so each has its own facts of a body."""
    if rules is None or body is None:
        return facts
    around = b"\n"  # on both sides, where a \b looks: no part of a word
    found = BodyFacts(
        matched=rules.patterns.occurring(around + body + around, 1, len(body) + 1),
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        complete=True,
    )
    return replace(facts, body=found)


class _Walk:
    """Goes through a layer's rules as the decision does, with the tags that they put."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._tags: list[str] = []
        self._ended: dict[int, str] = {}  # group -> the rule that settled it

    def scope(self, facts: Facts) -> Scope:
        """What the next rule is asked with."""
        scope = Scope(self._layer, facts)
        scope.tags = list(self._tags)
        return scope

    def place(self, rule: CompiledRule) -> tuple[Fate | None, str | None]:
        """Whether the rule is reached at all; else the rule that was before it."""
        before = self._ended.get(self._group(rule))
        return (None, None) if before is None else (Fate.NOT_REACHED, before)

    def apply(self, rule: CompiledRule) -> Fate:
        if rule.shadow:
            return Fate.SHADOW
        self._tags.extend(rule.tags)
        if rule.verdict is None:
            return Fate.ACTS
        self._ended[self._group(rule)] = rule.id
        return Fate.DECIDES  # unless another sublayer says otherwise

    def _group(self, rule: CompiledRule) -> int:
        return rule.group if self._layer in ARBITRATED else 0


def _settled(trace: RuleTrace, ruling: Ruling) -> RuleTrace:
    """Of the sublayers' verdicts one stands."""
    if trace.fate is not Fate.DECIDES or trace.rule.id == ruling.rule:
        return trace
    if trace.rule.id == ruling.redirected_by:
        return replace(trace, fate=Fate.ACTS)  # the verdict is another's, the way is its own
    return replace(trace, fate=Fate.OVERRIDDEN, by=ruling.rule)
