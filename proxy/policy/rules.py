"""A rule compiled: when it applies, and everything it says, prepared once.

What a rule leaves behind (`Decided`) never changes within a generation, so it is built here
and shared by all decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.localmap import answers
from proxy.policy.match import Predicate
from proxy.policy.match_body import BODY_FIELDS
from proxy.policy.ruling import PlannedEdit, RuleVerdict
from proxy.policy.scope import Scope
from proxy.records import Decided

Terminal = ast.Permit | ast.Block | ast.Redirect | ast.RedirectTo | ast.Respond | ast.MapLocal


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule of a layer. `acted` is its record; `also` the record without the verdict.

    `also` is used where the rule's verdict was overridden but its tags or message stand; it is
    None for a rule that has nothing but a verdict. `group` numbers the sublayer, the weightiest
    first.
    """

    id: str
    group: int
    when: Predicate | None
    unless: Predicate | None
    shadow: bool
    denies: bool
    verdict: RuleVerdict | None
    action: Terminal | None
    hard: bool
    edits: tuple[PlannedEdit, ...]
    tags: tuple[str, ...]
    acted: Decided
    also: Decided | None
    asks: frozenset[str] = frozenset()  #: fields of content that it tests

    def applies(self, scope: Scope) -> bool:
        """Whether its condition holds; unknown counts as yes for a rule that denies."""
        value = self.value(scope)
        return self.denies if value is None else value

    def value(self, scope: Scope) -> bool | None:
        """`when` and not `unless`; None: unknown."""
        when, unless = self.when, self.unless
        value = True if when is None else when(scope)
        if value is False:
            return False
        if unless is not None:
            excepted = unless(scope)
            if excepted:
                return False
            if excepted is None:
                value = None
        return value if value is None else True


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a rule comes from, as its records say it."""

    policy: str
    generation: int


def build_rule(
    rule: ast.Rule,
    when: Predicate | None,
    unless: Predicate | None,
    group: int,
    origin: Origin,
) -> CompiledRule:
    """The compiled rule. Its actions were checked (`problems_of_actions`)."""
    terminal = next((a for a in rule.then if isinstance(a, ast.TERMINAL)), None)
    edits = tuple(PlannedEdit(a, rule.id) for a in rule.then if isinstance(a, _EDITS))
    tags = tuple(tag for a in rule.then if isinstance(a, ast.Tag) for tag in a.tags)
    logs = any(isinstance(a, ast.Log) for a in rule.then)
    verdict = _verdict(terminal)
    lesser = "edit" if edits else "tag" if tags else "log"
    strongest = verdict.value if verdict is not None else lesser
    if isinstance(terminal, ast.RedirectTo):
        strongest = "redirect_to"
    return CompiledRule(
        id=rule.id,
        group=group,
        when=_below(terminal, when) if isinstance(terminal, ast.MapLocal) else when,
        unless=unless,
        shadow=rule.shadow,
        denies=isinstance(terminal, ast.Block),
        verdict=verdict,
        action=terminal,
        hard=isinstance(terminal, _WITH_RIGHT) and terminal.hard,
        edits=edits,
        tags=tags,
        acted=_decided(rule, strongest, origin),
        also=_decided(rule, lesser, origin) if edits or tags or logs else None,
        asks=_fields(rule.when) & BODY_FIELDS | _fields(rule.unless) & BODY_FIELDS,
    )


def _fields(condition: ast.Condition | None) -> frozenset[str]:
    match condition:
        case None:
            return frozenset()
        case ast.Test():
            return frozenset({condition.field})
        case ast.Not():
            return _fields(condition.part)
        case ast.All() | ast.AnyOf():
            return frozenset().union(*map(_fields, condition.parts))


def _below(action: ast.MapLocal, when: Predicate | None) -> Predicate:
    """A rule with map_local applies to the paths that it has an answer for, and to no other.

    So a path without a file goes on to the rules behind it, not around them.
    """

    def answered(scope: Scope) -> bool | None:
        request = scope.facts.request
        if request is None or not answers(action, request.path):
            return False
        return True if when is None else when(scope)

    return answered


_EDITS = (ast.Headers, ast.RewriteUrl, *ast.BODY_EDITS)
_WITH_RIGHT = (ast.Permit, ast.Block, ast.RedirectTo)


def _verdict(terminal: Terminal | None) -> RuleVerdict | None:
    match terminal:
        case ast.Permit() | ast.RedirectTo():
            return RuleVerdict.PERMIT
        case ast.Block():
            return RuleVerdict.BLOCK
        case ast.Redirect():
            return RuleVerdict.REDIRECT
        case ast.Respond() | ast.MapLocal():
            return RuleVerdict.RESPOND
        case None:
            return None


def _decided(rule: ast.Rule, verdict: str, origin: Origin) -> Decided:
    tags = [tag for a in rule.then if isinstance(a, ast.Tag) for tag in a.tags]
    return Decided(
        layer=rule.layer,
        verdict=verdict,
        rule=rule.id,
        policy=origin.policy,
        generation=origin.generation,
        sublayer=rule.sublayer,
        severity=rule.severity,
        tags=tuple(dict.fromkeys((*rule.tags, *tags))),
        shadow=rule.shadow,
        detail=_would(rule) if rule.shadow else _message(rule),
    )


def _message(rule: ast.Rule) -> str:
    said = [a.message for a in rule.then if isinstance(a, ast.Log) and a.message]
    said += [f"to {a}" for a in rule.then if isinstance(a, ast.RedirectTo)]
    return "; ".join(said)


def _would(rule: ast.Rule) -> str:
    """What a shadow rule would have done, in words."""
    return "would " + ", ".join(_in_words(action, rule.layer) for action in rule.then)


def _in_words(action: ast.Action, layer: Layer) -> str:
    match action:
        case ast.Permit():
            return "permit"
        case ast.Block():
            page = action.how == "page" and layer in HTTP
            return f"block with status {action.status}" if page else f"block by {action.how}"
        case ast.Redirect():
            return f"redirect to {action.to} ({action.status})"
        case ast.RedirectTo():
            return f"redirect to {action}"
        case ast.Headers():
            return "edit headers"
        case ast.RewriteUrl():
            return "rewrite the url"
        case ast.InjectBanner():
            return "inject a banner"
        case ast.Replace():
            return "replace in the content"
        case ast.RemoveBody():
            return "remove the body"
        case ast.SetBody():
            return "set the body"
        case ast.Respond():
            return f"respond with status {action.status}"
        case ast.MapLocal():
            return f"answer {action.prefix} from local files"
        case ast.Tag():
            return f"tag {', '.join(action.tags)}"
        case ast.Log():
            return f"log {action.message!r}" if action.message else "log"


_HEADS = frozenset({Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE})
HTTP = _HEADS | {Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY}
_REQUEST = frozenset({Layer.HTTP_REQUEST})
_LAYERS_OF: tuple[tuple[type[ast.Action], frozenset[Layer]], ...] = (
    (ast.Redirect, _HEADS),
    (ast.RedirectTo, frozenset({Layer.CONNECT_REDIRECT})),
    (ast.Respond, _REQUEST),
    (ast.MapLocal, _REQUEST),
    (ast.Headers, _HEADS),
    (ast.RewriteUrl, _REQUEST),
    (ast.InjectBanner, frozenset({Layer.HTTP_RESPONSE})),
    (ast.Replace, _HEADS | {Layer.STREAM}),
    (ast.RemoveBody, _HEADS),
    (ast.SetBody, _HEADS),
)


def problems_of_actions(rule: ast.Rule) -> list[str]:
    """What is wrong with a rule's actions; empty when nothing is."""
    problems = []
    if not rule.then:
        problems.append(f"rule {rule.id!r} does nothing")
    if sum(isinstance(action, ast.TERMINAL) for action in rule.then) > 1:
        problems.append(f"rule {rule.id!r} has more than one action that ends it")
    for kind, layers in _LAYERS_OF:
        if rule.layer not in layers and any(isinstance(a, kind) for a in rule.then):
            problems.append(f"{kind.__name__} is not possible at {rule.layer.value}")
    return problems
