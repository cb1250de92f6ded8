"""An explained exchange for people: each layer, its rules and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.account.escape import printable
from proxy.model import FlowInfo
from proxy.policy import ast
from proxy.policy.explain import Fate, LayerTrace, RuleTrace
from proxy.policy.explain_case import Case, Step
from proxy.policy.explain_parts import Reason, unknown_names
from proxy.policy.explain_words import action_words, actions_words
from proxy.policy.ruling import RuleVerdict, Ruling
from proxy.verbs.explain_result import EditedHead, Result, edited_heads, result_of
from proxy.verbs.output import CYAN, GREEN, GREY, RED, YELLOW, count, paint

#: Rules that do not match are shown one by one up to here, unless all are asked for.
_MANY = 20

_COLOURS = {
    Fate.DECIDES: CYAN,
    Fate.ACTS: GREEN,
    Fate.SHADOW: YELLOW,
    Fate.OVERRIDDEN: YELLOW,
    Fate.DEPENDS: YELLOW,
    Fate.UNKNOWN: YELLOW,
    Fate.NOT_REACHED: GREY,
    Fate.NO_MATCH: GREY,
}
_WORDS = {
    Fate.DECIDES: "decides",
    Fate.ACTS: "acts",
    Fate.SHADOW: "shadow",
    Fate.OVERRIDDEN: "overridden",
    Fate.NOT_REACHED: "not reached",
    Fate.NO_MATCH: "no match",
    Fate.UNKNOWN: "unknown",
    Fate.DEPENDS: "depends",
}
_WIDTH = max(map(len, _WORDS.values()))


def print_case(case: Case, steps: Sequence[Step], *, everything: bool) -> None:
    """The question, every layer, the outcome."""
    print(question(case))
    for step in steps:
        print()
        _print_step(step, everything)
    if not steps:
        print("\nno rule looks at any layer that this meets")
    for head in edited_heads(case, steps):
        _print_head(head)
    print()
    _print_result(result_of(steps))


def question(case: Case) -> str:
    """What is asked about, on one line."""
    info, request = case.flow, case.request
    if request is not None:
        url = f"http://{request.host}{request.target.decode('latin-1')}"
        what = f"{printable(request.method)} {printable(url)}"
    else:
        name = f" for {printable(info.sni)}" if info.sni else ""
        what = f"a connection ({info.protocol.value}){name}"
    return f"{what}  to {_destination(case)}, from {_client(info)}"


def _destination(case: Case) -> str:
    destination = case.flow.redirect.original_dst
    if "dst.port" in case.unknown:
        return "an unknown address"
    known = "dst.ip" not in case.unknown
    return str(destination) if known else f"an unknown address, port {destination.port}"


def _client(info: FlowInfo) -> str:
    principal = info.redirect.principal
    named = [
        principal.exe or principal.comm,
        principal.user,
        f"uid {principal.uid}",
        f"pid {principal.pid}",
    ]
    present = [principal.name, principal.user, principal.uid, principal.pid]
    known = [str(n) for n, p in zip(named, present, strict=True) if p is not None]
    return printable(", ".join(known)) if known else "an unknown program"


# --- a layer


def _print_step(step: Step, everything: bool) -> None:
    trace = step.trace
    if trace is None:
        print(f"{step.layer.value}: {paint(GREY, 'not asked: ' + step.why)}")
        return
    print(f"{step.layer.value}: {_layer_outcome(step, trace)}")
    hidden = 0
    quiet = sum(map(_is_quiet, trace.rules))
    for rule in trace.rules:
        if _is_quiet(rule) and quiet > _MANY and not everything:
            hidden += 1
            continue
        _print_rule(rule)
    if hidden:
        print(paint(GREY, f"  and {count(hidden, 'rule')} that do not match (--all shows them)"))


def _is_quiet(trace: RuleTrace) -> bool:
    """Neither did it match, nor would it if it had been reached."""
    return not trace.applies and trace.fate in (Fate.NO_MATCH, Fate.NOT_REACHED)


def _layer_outcome(step: Step, trace: LayerTrace) -> str:
    words = _ruling_words(trace.ruling)
    if any(rule.fate is Fate.DEPENDS for rule in trace.rules):
        words += paint(YELLOW, f", as far as is told{': ' + step.why if step.why else ''}")
    return words


def _ruling_words(ruling: Ruling) -> str:
    colour = GREEN if ruling.verdict is RuleVerdict.PERMIT else RED
    words = paint(colour, ruling.verdict.value)
    if ruling.rule is not None:
        words += f" by {ruling.rule}"
        if ruling.veto:
            words += " (veto)"
    else:
        words += " (no rule decides)"
    if ruling.tags:
        words += f", tags {', '.join(ruling.tags)}"
    return words


def _print_rule(trace: RuleTrace) -> None:
    fate, rule = trace.fate, trace.rule
    word = paint(_COLOURS[fate], f"{_WORDS[fate]:{_WIDTH}}")
    print(f"  {word}  {rule.id}  {paint(GREY, place(rule.mark))}")
    for line in _notes(trace):
        print(f"  {'':{_WIDTH}}    {line}")


def _notes(trace: RuleTrace) -> Iterable[str]:
    fate, rule = trace.fate, trace.rule
    if fate is Fate.NOT_REACHED:
        yield f"{trace.by} comes before it and ends " + _what_ended(trace)
    if fate is Fate.OVERRIDDEN:
        yield f"its verdict is overridden: {trace.by} decides"
    if fate is Fate.UNKNOWN:
        yield "what it needs is not known, and only a rule that denies applies then"
    elif fate is Fate.DEPENDS:
        yield "whether it applies depends on what was not given"
    elif trace.applies and _is_unknown(trace):
        yield "what it needs is not known: a rule that denies counts as matched"
    for reason in trace.reasons:
        yield reason_words(reason, rule)
    if fate is not Fate.NO_MATCH:
        yield ("would: " if fate is Fate.SHADOW else "then: ") + actions_words(rule)


def _what_ended(trace: RuleTrace) -> str:
    rest = "it would apply" if trace.applies else "it would not match either"
    return f"the evaluation; {rest}"


def _is_unknown(trace: RuleTrace) -> bool:
    return bool(unknown_names(trace.when, trace.unless))


def reason_words(reason: Reason, rule: ast.Rule) -> str:
    """With its place, where that is not the rule's own line."""
    here = reason.mark == rule.mark
    return reason.words if here else f"{reason.words}  {paint(GREY, place(reason.mark))}"


def place(mark: ast.Mark) -> str:
    return f"{mark.file}:{mark.line}:{mark.column}"


# --- the outcome


def _print_head(head: EditedHead) -> None:
    print(f"\n{head.layer.value}: the head as it goes on")
    for line in head.after:
        print("  " + (line if line in head.before else paint(GREEN, f"{line}")))
    for line in head.before:
        if line not in head.after:
            print("  " + paint(RED, f"gone: {line}"))


def _print_result(result: Result) -> None:
    passes = result.verdict is RuleVerdict.PERMIT
    by = f" ({result.rule} at {result.layer.value})" if result.layer is not None else ""
    print(paint(GREEN if passes else RED, f"outcome: {result.words}{by}"))
    for left in result.open:
        print(paint(YELLOW, f"left open: {left}"))


def edit_words(ruling: Ruling) -> list[str]:
    """The edits of a ruling, each with the rule that asks for it."""
    return [f"{action_words(p.edit, ruling.layer)} ({p.rule})" for p in ruling.edits]
