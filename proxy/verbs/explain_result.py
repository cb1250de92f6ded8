"""What becomes of an explained exchange: the end of it in one sentence, and its heads.

Heads are edited by the code that edits them in the service. What HTTP itself changes on the
way (framing, hop-by-hop fields) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.account.escape import printable
from proxy.callouts.http.edits import edit_headers, rewrite_url
from proxy.heads import Head, RequestHead, ResponseHead
from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.explain import Fate
from proxy.policy.explain_case import Case, Step
from proxy.policy.explain_parts import unknown_names
from proxy.policy.explain_words import action_words, actions_words
from proxy.policy.ruling import PlannedEdit, RuleVerdict

#: Layers whose block ends the connection, not a message.
_CONNECTION = frozenset(
    {
        Layer.CONNECT_REDIRECT,
        Layer.AUTH_CONNECT,
        Layer.FLOW_ESTABLISHED,
        Layer.STREAM,
        Layer.TLS_CLIENT_HELLO,
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """`verdict` of the whole, by which rule and where; `open`: what it still depends on."""

    verdict: RuleVerdict
    rule: str | None
    layer: Layer | None
    words: str
    open: tuple[str, ...] = ()


def result_of(steps: Iterable[Step]) -> Result:
    """The first ruling that does not let pass decides, if nothing before it was left open."""
    depends: list[str] = []
    for step in steps:
        depends += _left_open(step)
        ruling = step.ruling
        if ruling is not None and ruling.verdict is not RuleVerdict.PERMIT:
            return Result(ruling.verdict, ruling.rule, step.layer, _ended(step), tuple(depends))
    return Result(RuleVerdict.PERMIT, None, None, "it passes", tuple(depends))


def _left_open(step: Step) -> Iterable[str]:
    """Rules that rest on what was not given, each with what it would do."""
    for trace in step.trace.rules if step.trace is not None else ():
        if trace.fate is Fate.DEPENDS:
            fields = ", ".join(sorted(unknown_names(trace.when, trace.unless)))
            would = "would only report" if trace.rule.shadow else actions_words(trace.rule)
            yield f"{trace.rule.id} at {step.layer.value} needs {fields}: {would}"


def _ended(step: Step) -> str:
    ruling = step.ruling
    assert ruling is not None
    what = "the connection" if step.layer in _CONNECTION else "the message"
    done = action_words(ruling.action, step.layer) if ruling.action is not None else "block"
    veto = ", by a veto against a hard permit" if ruling.veto else ""
    return f"{what} does not pass: {done}{veto}"


@dataclass(frozen=True, slots=True)
class EditedHead:
    layer: Layer
    before: tuple[str, ...]
    after: tuple[str, ...]


def edited_heads(case: Case, steps: Iterable[Step]) -> list[EditedHead]:
    """The heads that edits change, as lines, start line first."""
    found = []
    for step in steps:
        edits = step.ruling.edits if step.ruling is not None else ()
        head = {Layer.HTTP_REQUEST: case.request, Layer.HTTP_RESPONSE: case.response}.get(
            step.layer
        )
        if head is None or not edits:
            continue
        before, after = _lines(head), _lines(_edited(head, edits))
        if before != after:
            found.append(EditedHead(step.layer, before, after))
    return found


def _edited(head: Head, edits: Iterable[PlannedEdit]) -> Head:
    for planned in edits:
        match planned.edit:
            case ast.Headers():
                head = edit_headers(head, planned.edit)
            case ast.RewriteUrl() if isinstance(head, RequestHead):
                head = rewrite_url(head, planned.edit)
    return head


def _lines(head: Head) -> tuple[str, ...]:
    start = b""
    if isinstance(head, RequestHead):
        start = b"%b %b HTTP/%b" % (head.method, head.target, head.version)
    elif isinstance(head, ResponseHead):
        start = b"HTTP/%b %d %b" % (head.version, head.status, head.reason)
    lines = [start.rstrip(), *(b"%b: %b" % (field.name, field.value) for field in head.fields)]
    return tuple(map(printable, lines))
