"""Compile checked policy files into a Generation. Everything is built here, once.

The loader has already checked the files against the schema; what is wrong nevertheless is
collected and raised as one PolicyError with every place. Nothing is half-built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from proxy.anomalies import ANOMALIES
from proxy.errors import PolicyError, Problem
from proxy.model import Layer, Protocol
from proxy.patterns import PatternError, PatternSet, StreamPattern
from proxy.policy import ast
from proxy.policy.conditions import Conditions, Node
from proxy.policy.generation import Generation
from proxy.policy.globs import Matcher, compile_globs
from proxy.policy.index import Candidates
from proxy.policy.layer_rules import LayerRules
from proxy.policy.lists import ListBook
from proxy.policy.match_body import MAX_PATTERNS
from proxy.policy.rules import HTTP, Origin, build_rule, problems_of_actions

#: Weight of a sublayer that no file declares.
DEFAULT_SUBLAYER_WEIGHT = 100


def compile_policies(files: Sequence[ast.PolicyFile], number: int) -> Generation:
    """The generation of these files, in their order. Raises PolicyError with all problems."""
    problems = _check_names(files) + _check_actions(files)
    sublayers = _sublayers(files, problems)
    placed = _placed(files, sublayers)
    layers = {
        layer: built
        for layer in Layer
        if (built := _layer(layer, placed, number, problems)) is not None
    }
    anomalies = _anomalies(files)
    if problems:
        raise PolicyError(problems)
    rules = [rule for file in files for rule in file.rules]
    return Generation(
        number=number,
        policies=tuple(file.policy for file in files),
        rule_ids=tuple(rule.id for rule in rules),
        on_reload=max((f.on_reload for f in files), key=_STRICTNESS.index, default=_KEEP),
        protocols=_protocols(rules, anomalies),
        answers=any(_answers(rule) for rule in rules if not rule.shadow),
        layers=MappingProxyType(layers),
        anomalies=anomalies,
    )


_KEEP = ast.OnReload.KEEP
_STRICTNESS = (_KEEP, ast.OnReload.REAUTHORIZE, ast.OnReload.REAUTHORIZE_AND_DROP)


def _answers(rule: ast.Rule) -> bool:
    return any(isinstance(action, ast.Respond | ast.MapLocal) for action in rule.then)


_Anomalies = tuple[tuple[Matcher, str], ...]


def _protocols(rules: Sequence[ast.Rule], anomalies: _Anomalies) -> frozenset[Protocol]:
    """Protocols with something to enforce; refusing irregular HTTP is something, too."""
    enforced = {rule.layer for rule in rules if not rule.shadow}
    found = set()
    if enforced & HTTP or _refuses_http(anomalies):
        found.add(Protocol.HTTP1)
    if Layer.TLS_CLIENT_HELLO in enforced:
        found.add(Protocol.TLS)
    return frozenset(found)


def _refuses_http(anomalies: _Anomalies) -> bool:
    names = [name for name in ANOMALIES if name.startswith("http1.")]
    return any(
        matches(name) for matches, action in anomalies if action == "refuse" for name in names
    )


def _anomalies(files: Sequence[ast.PolicyFile]) -> _Anomalies:
    """Later files and entries first: the last one that was written wins."""
    entries = [entry for file in files for entry in file.anomalies]
    return tuple((compile_globs((pattern,)), action) for pattern, action in reversed(entries))


# --- checks --------------------------------------------------------------------------------


def _problem(mark: ast.Mark, message: str) -> Problem:
    return Problem(mark.file, mark.line, mark.column, message)


def _check_names(files: Sequence[ast.PolicyFile]) -> list[Problem]:
    """Rule ids name rules in events and metrics: one rule each, in all files together."""
    problems, seen = [], dict[str, ast.Mark]()
    for rule in (rule for file in files for rule in file.rules):
        first = seen.setdefault(rule.id, rule.mark)
        if first is not rule.mark:
            where = f"{first.file}:{first.line}"
            problems.append(_problem(rule.mark, f"rule id {rule.id!r} is taken by {where}"))
    return problems


def _check_actions(files: Sequence[ast.PolicyFile]) -> list[Problem]:
    return [
        _problem(rule.mark, message)
        for file in files
        for rule in file.rules
        for message in problems_of_actions(rule)
    ]


def _sublayers(files: Sequence[ast.PolicyFile], problems: list[Problem]) -> dict[str, int]:
    """Weight by name. A sublayer belongs to all files, as WFP's do to all providers."""
    weights: dict[str, tuple[int, str]] = {}
    for file in files:
        for name, weight in file.sublayers:
            known, owner = weights.setdefault(name, (weight, file.file))
            if known != weight:
                message = f"sublayer {name!r} weighs {weight} here and {known} in {owner}"
                problems.append(Problem(file.file, 0, 0, message))
    return {name: weight for name, (weight, _) in weights.items()}


# --- the order of evaluation ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Placed:
    """A rule with all that orders it: sublayers by weight, then rules by weight.

    Equal weights keep the order of files and positions; sublayers of equal weight keep apart,
    in the order in which they first appear.
    """

    rule: ast.Rule
    group: int
    lists: ListBook
    policy: str


def _placed(files: Sequence[ast.PolicyFile], weights: dict[str, int]) -> list[_Placed]:
    names = list(weights)
    names += [rule.sublayer for file in files for rule in file.rules]
    weight_of = {name: weights.get(name, DEFAULT_SUBLAYER_WEIGHT) for name in names}
    groups = sorted(weight_of, key=lambda name: -weight_of[name])  # stable: first appearance
    group_of = {name: group for group, name in enumerate(groups)}
    placed = []
    for file in files:
        lists = ListBook(file.lists)
        placed += [_Placed(r, group_of[r.sublayer], lists, file.policy) for r in file.rules]
    return sorted(placed, key=lambda p: (p.group, -p.rule.weight))


def _layer(
    layer: Layer, placed: Sequence[_Placed], number: int, problems: list[Problem]
) -> LayerRules | None:
    here = [p for p in placed if p.rule.layer is layer]
    if not here:
        return None
    conditions = Conditions(layer, problems)
    nodes = [_nodes(conditions, p) for p in here]
    if problems:
        return None
    rules = tuple(
        build_rule(
            p.rule,
            conditions.predicate(when) if when is not None else None,
            conditions.predicate(unless) if unless is not None else None,
            p.group,
            Origin(p.policy, number),
        )
        for p, (when, unless) in zip(here, nodes, strict=True)
    )
    patterns = _patterns(tuple(conditions.numbers), here[0].rule.mark, problems)
    if patterns is None:
        return None
    return LayerRules(
        layer=layer,
        rules=rules,
        candidates=Candidates((p.rule.when, p.lists) for p in here),
        fields=frozenset(conditions.fields),
        numbers=MappingProxyType(conditions.numbers),
        patterns=patterns,
    )


def _patterns(
    found: tuple[StreamPattern, ...], mark: ast.Mark, problems: list[Problem]
) -> PatternSet | None:
    """All that the rules of a layer look for in content, to be searched for at once."""
    if len(found) > MAX_PATTERNS:
        what = f"the rules of this layer look for {len(found)} patterns, at most {MAX_PATTERNS}"
        problems.append(_problem(mark, what))
        return None
    try:
        return PatternSet(found)
    except PatternError as error:
        problems.append(_problem(mark, f"the patterns of this layer together: {error}"))
        return None


def _nodes(conditions: Conditions, placed: _Placed) -> tuple[Node | None, Node | None]:
    """A permit must hold for every reading of a target, any other rule for one of them."""
    rule = placed.rule
    every = any(isinstance(action, ast.Permit) for action in rule.then)
    when = unless = None
    if rule.when is not None:
        when = conditions.add(rule.when, placed.lists, every=every, positive=True)
    if rule.unless is not None:
        unless = conditions.add(rule.unless, placed.lists, every=not every, positive=False)
    return when, unless
