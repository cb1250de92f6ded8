"""An explained exchange as JSON: every layer, every rule, every part of its condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from proxy.policy import ast
from proxy.policy.explain import RuleTrace
from proxy.policy.explain_case import Case, Step
from proxy.policy.explain_parts import Part
from proxy.policy.explain_words import action_words, condition_words
from proxy.verbs.explain_result import edited_heads, result_of
from proxy.verbs.explain_text import edit_words, place, question

Json = dict[str, Any]


def case_json(case: Case, steps: Sequence[Step]) -> Json:
    result = result_of(steps)
    return {
        "question": question(case),
        "unknown": sorted(case.unknown),
        "verdict": result.verdict.value,
        "rule": result.rule,
        "layer": result.layer,
        "outcome": result.words,
        "left_open": list(result.open),
        "layers": [_step(step) for step in steps],
        "heads": [
            {"layer": head.layer.value, "before": head.before, "after": head.after}
            for head in edited_heads(case, steps)
        ],
    }


def _step(step: Step) -> Json:
    ruling = step.ruling
    found: Json = {"layer": step.layer.value, "asked": step.trace is not None}
    if step.why:
        found["why"] = step.why
    if ruling is not None:
        found |= {
            "verdict": ruling.verdict.value,
            "rule": ruling.rule,
            "hard": ruling.hard,
            "veto": ruling.veto,
            "tags": list(ruling.tags),
            "edits": edit_words(ruling),
        }
    found["rules"] = _rules(step.trace.rules if step.trace is not None else ())
    return found


def _rules(traces: Iterable[RuleTrace]) -> list[Json]:
    return [
        {
            "rule": trace.rule.id,
            "policy": trace.policy,
            "place": place(trace.rule.mark),
            "fate": trace.fate.value,
            "applies": trace.applies,
            "by": trace.by,
            "reasons": [
                {"words": reason.words, "place": place(reason.mark)} for reason in trace.reasons
            ],
            "when": _part(trace.when),
            "except": _part(trace.unless),
            "then": [action_words(action, trace.rule.layer) for action in trace.rule.then],
        }
        for trace in traces
    ]


def _part(part: Part | None) -> Json | None:
    if part is None:
        return None
    found: Json = {"is": condition_words(part.condition), "value": part.value}
    if isinstance(part.condition, ast.Test):
        found |= {"saw": part.saw, "place": place(part.condition.mark)}
    if part.parts:
        found["parts"] = [_part(inner) for inner in part.parts]
    return found
