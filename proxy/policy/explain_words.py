"""Conditions, values and actions of policies in words, as an author would say them.

Values of a decision are octet strings (`proxy.policy.extract`); here they become text that is
safe to print: control characters and bidirectional overrides are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.ast import Op

_LONGEST = 160  #: characters of one value
_MOST = 5  #: values shown of many
_ORDER = {Op.GT: ">", Op.GE: ">=", Op.LT: "<", Op.LE: "<="}
_PAGES = frozenset({Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE})


def quoted(text: str) -> str:
    """Text in quotes, printable, cut."""
    cut = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return repr(cut)


def shown(field: str, value: Any) -> str:
    """One value of a field as `proxy.policy.extract` reads it."""
    if field == "time" and isinstance(value, int):
        return f"{value // 60:02}:{value % 60:02}"
    if isinstance(value, str):
        try:
            return quoted(value.encode("latin-1").decode("utf-8"))
        except UnicodeError:
            return quoted(value)
    return _scalar(value)


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def seen(field: str, values: Sequence[Any] | None) -> str:
    """What a field was: a value, several, absent, or unknown."""
    if values is None:
        return "unknown"
    return _several([shown(field, value) for value in values], ", ") if values else "absent"


def name_of(test: ast.Test) -> str:
    """The field as it is written in a policy."""
    return test.field if test.arg is None else f"{test.field}.{test.arg}"


def wanted(test: ast.Test) -> str:
    """What a test asks of its field: `*.example or a.test`, `> 500 and < 600`."""
    return " and ".join(_compare(compare) for compare in test.compares)


def _compare(compare: ast.Compare) -> str:
    match compare.op:
        case Op.IS:
            values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
            return _several([_literal(value) for value in values], " or ")
        case Op.IN:
            return f"in list {compare.value}"
        case Op.REGEX:
            return f"/{compare.value}/"
        case Op.EXISTS:
            return "present" if compare.value else "absent"
        case Op.GT | Op.GE | Op.LT | Op.LE:
            return f"{_ORDER[compare.op]} {compare.value}"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(str, value))  # a range of numbers
    return _scalar(value) if str(value).isprintable() else repr(str(value))


def _several(texts: list[str], between: str) -> str:
    if len(texts) > _MOST + 1:
        texts = [*texts[:_MOST], f"{len(texts) - _MOST} more"]
    return between.join(texts)


def condition_words(condition: ast.Condition) -> str:
    """A whole condition on one line."""
    match condition:
        case ast.Test():
            return f"{name_of(condition)} is {wanted(condition)}"
        case ast.Not():
            return f"not ({condition_words(condition.part)})"
        case ast.All():
            return " and ".join(_inner(part) for part in condition.parts)
        case ast.AnyOf():
            return " or ".join(_inner(part) for part in condition.parts)


def _inner(condition: ast.Condition) -> str:
    words = condition_words(condition)
    compound = isinstance(condition, ast.All | ast.AnyOf) and len(condition.parts) > 1
    return f"({words})" if compound else words


# --- actions -------------------------------------------------------------------------------


def actions_words(rule: ast.Rule) -> str:
    """Everything that a rule does."""
    return ", ".join(action_words(action, rule.layer) for action in rule.then)


def action_words(action: ast.Action, layer: Layer) -> str:
    """One action with what matters of its settings."""
    match action:
        case ast.Permit():
            return "permit for good" if action.hard else "permit"
        case ast.Block():
            return _block(action, layer)
        case ast.Redirect():
            return f"redirect to {action.to} ({action.status})"
        case ast.RedirectTo():
            return f"redirect to {action}" + (" for good" if action.hard else "")
        case ast.Respond():
            return f"respond with status {action.status}, {_content(action.content)}"
        case ast.MapLocal():
            return f"answer {action.prefix} from local files ({len(action.files)})"
        case ast.Headers():
            return "headers: " + "; ".join(header_words(action))
        case ast.RewriteUrl():
            return "rewrite the url: " + ", ".join(_rewrite(action))
        case ast.Tag():
            return f"tag {', '.join(action.tags)}"
        case ast.Log():
            return f"log {action.message!r}" if action.message else "log"
        case _:
            return _body_edit(action)


def _block(action: ast.Block, layer: Layer) -> str:
    if action.how == "page" and layer in _PAGES | {
        Layer.HTTP_REQUEST_BODY,
        Layer.HTTP_RESPONSE_BODY,
    }:
        return f"block with status {action.status}"
    soft = layer in (Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT) and not action.hard
    return f"block by {action.how}" + (", unless a lighter sublayer permits" if soft else "")


def header_words(action: ast.Headers) -> list[str]:
    """Each change of an edit of headers, in the order in which they are made."""
    words = [f"remove {name}" for name in action.remove]
    words += [f"rename {old} to {new}" for old, new in action.rename]
    words += [f"in {r.name} replace /{r.regex}/ by {r.by!r}" for r in action.replace]
    words += [f"set {name}: {value}" for name, value in action.set]
    return words + [f"add {name}: {value}" for name, value in action.add]


def _rewrite(action: ast.RewriteUrl) -> list[str]:
    words = [] if action.path is None else [f"path {action.path}"]
    if action.query is not None:
        words.append(f"query {action.query!r}")
    if action.regex is not None:
        words.append(f"/{action.regex}/ by {action.by!r}")
    return words


def _body_edit(
    action: ast.InjectBanner | ast.Replace | ast.RemoveBody | ast.SetBody,
) -> str:
    match action:
        case ast.InjectBanner():
            return f"inject a banner ({action.form.value}) at {action.at}"
        case ast.Replace():
            pairs = [f"{item.pattern.source!r} by {item.by!r}" for item in action.items]
            return "replace in the content: " + _several(pairs, ", ")
        case ast.RemoveBody():
            return "remove the body"
        case ast.SetBody():
            return f"set the body: {_content(action.content)}"


def _content(content: ast.Content) -> str:
    what = "a template of " if content.template else ""
    return f"{what}{len(content.data)} bytes of {content.content_type}"
