"""A report of tests in words and as JSON: plain lines, with the place of what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from proxy.policytest.run import Report, Result, RuleCover

Paint = Callable[[str, str], str]  #: (colour, text) -> text
RED, GREEN, YELLOW, GREY = "31", "32", "33", "90"


def result_lines(result: Result, paint: Paint) -> Iterator[str]:
    """One line, or for a failure its place, the differences and what helps to see why."""
    if result.ok:
        yield f"{paint(GREEN, 'ok')}      {result.name}"
        return
    mark = result.mark
    yield f"{paint(RED, 'FAILED')}  {result.name}"
    yield f"        {mark.file}:{mark.line}:{mark.column}"
    if result.unsteady:
        yield f"        the outcome is another one when played {result.unsteady}."
        yield "        It must not depend on how the stream is cut: this is a bug of Sluicegate."
    for line in result.diff:
        yield f"        {_painted(line, paint)}"
    for note in result.notes:
        yield f"        {paint(GREY, note)}"


def _painted(line: str, paint: Paint) -> str:
    colour = {"-": RED, "+": GREEN, "@": GREY}.get(line[:1])
    return paint(colour, line) if colour is not None else line


def summary_lines(report: Report, paint: Paint) -> Iterator[str]:
    """How many tests and rules, and which rules no test shows."""
    total = len(report.results)
    colour = RED if report.failed else GREEN
    tests = f"{total} test" if total == 1 else f"{total} tests"
    yield paint(colour, f"{tests}, {total - report.failed} ok, {report.failed} failed")
    if not report.rules:
        return
    covered, rules = report.covered, len(report.rules)
    yield f"rules covered: {covered} of {rules} ({report.percent:.0f}%)"
    for rule in report.rules:
        lack = _lack(rule)
        if lack:
            place = f"{rule.mark.file}:{rule.mark.line}"
            yield f"  {paint(YELLOW, lack)}: {rule.id} ({place})"


def _lack(rule: RuleCover) -> str:
    if not rule.acts:
        return "never seen to act"
    return "" if rule.idles else "never seen not to act"


def as_json(report: Report, seed: int, cuts: int) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "ok": not report.failed,
        "seed": seed,
        "cuts": cuts,
        "tests": [{**asdict(result), "ok": result.ok} for result in report.results],
        "coverage": {
            "rules": len(report.rules),
            "covered": report.covered,
            "percent": round(report.percent, 2),
            "missing": [asdict(rule) for rule in report.rules if _lack(rule)],
        },
    }
