"""Run suites: each test whole, byte by byte and in random cuts, and count what was covered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from proxy.model import Confidence
from proxy.policy.ast import Mark
from proxy.policy.generation import Generation
from proxy.policytest import cuts as ways
from proxy.policytest.bench import Cut, play
from proxy.policytest.coverage import Watched
from proxy.policytest.expect import Check, checks_of, diff, printable
from proxy.policytest.load import Case, Suite
from proxy.policytest.messages import Seen
from proxy.policytest.outcome import Outcome, outcome_of

_UNKNOWN = "not given, so it is unknown, which a rule that blocks takes for a match"


@dataclass(frozen=True, slots=True)
class Result:
    """How a test went. `unsteady`: in which cut the outcome was another one; a bug of ours."""

    name: str
    mark: Mark
    diff: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unsteady: str = ""

    @property
    def ok(self) -> bool:
        return not self.diff and not self.unsteady


@dataclass(slots=True)
class RuleCover:
    """A rule, and whether some test shows it to act, and some to be asked and not to act.

    Of a rule without a condition the second is not asked.
    """

    id: str
    mark: Mark
    acts: bool = False
    idles: bool = False


@dataclass(slots=True)
class Report:
    """`rules` by file and line."""

    results: list[Result] = field(default_factory=list)
    rules: list[RuleCover] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(not result.ok for result in self.results)

    @property
    def covered(self) -> int:
        """Rules that acted in some test."""
        return sum(rule.acts for rule in self.rules)

    @property
    def percent(self) -> float:
        return 100.0 * self.covered / len(self.rules) if self.rules else 100.0


@dataclass(frozen=True, slots=True)
class Options:
    """`pattern`: part of the name of a test or of its file, case aside."""

    cuts: int = 8
    seed: int = 0
    pattern: str = ""


def run_suites(
    suites: Sequence[Suite], options: Options, on_result: Callable[[Result], None]
) -> Report:
    """Run all tests; `on_result` hears of each as it is done."""
    report = Report()
    covers: dict[Mark, RuleCover] = {}
    for suite in suites:
        for rule in suite.rules:
            covers.setdefault(rule.mark, RuleCover(rule.id, rule.mark, idles=rule.always))
        for case in suite.tests:
            if not _picked(options.pattern, suite, case):
                continue
            watched = Watched(suite.generation)
            result = run_case(suite, case, watched, options)
            for rule in suite.rules:
                covers[rule.mark].acts |= rule.id in watched.acted
                covers[rule.mark].idles |= rule.id in watched.idle
            report.results.append(result)
            on_result(result)
    report.rules = sorted(covers.values(), key=lambda one: (one.mark.file, one.mark.line))
    return report


def _picked(pattern: str, suite: Suite, case: Case) -> bool:
    return pattern.lower() in f"{Path(suite.file).name} {case.model.name}".lower()


def run_case(suite: Suite, case: Case, watched: Watched, options: Options) -> Result:
    """One test in all its cuts; `watched` sees the whole one."""
    script = case.script

    def outcome(cut: Cut, seen_by: Watched) -> Outcome:
        return outcome_of(script, play(script, seen_by.policy, cut))

    def unmet(seen: Outcome) -> list[str]:
        return diff(checks_of(case.model.expect, seen, suite.read))

    whole = outcome(ways.whole, watched)
    found, name = unmet(whole), case.model.name
    for words, cut in ways.all_cuts(name, script.size, options.cuts, options.seed):
        other = outcome(cut, Watched(suite.generation))
        if other.lawful != whole.lawful or unmet(other) != found:
            lines = (*unmet(other), *diff(_differences(whole.lawful, other.lawful)))
            return Result(name, case.mark, lines, _notes(suite, case, other), words)
    return Result(name, case.mark, tuple(found), _notes(suite, case, whole) if found else ())


def _differences(whole: Outcome, other: Outcome) -> Iterable[Check]:
    """What depends on the cut."""
    for entry in fields(Outcome):
        a, b = getattr(whole, entry.name), getattr(other, entry.name)
        if entry.compare and a != b:
            yield Check(_shown(entry.name, a), _shown(entry.name, b))


def _shown(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, Seen):
        return (f"{name}: {value!r}",)
    head = (f"{key}: {text}" for key, text in value.fields)
    return (f"{name}: {' '.join(value.start)} {value.problem}", *head, printable(value.body))


def _asks_who(generation: Generation) -> bool:
    fields = (name for rules in generation.layers.values() for name in rules.fields)
    return any(name.startswith("principal.") for name in fields)


def _notes(suite: Suite, case: Case, outcome: Outcome) -> tuple[str, ...]:
    """What helps to see why."""
    unknown = case.script.redirect.principal.confidence is Confidence.NONE
    named = {
        "principal": _UNKNOWN if unknown and _asks_who(suite.generation) else "",
        "rules that acted": ", ".join(outcome.rules),
        "shadow rules": ", ".join(outcome.shadow_rules),
        "anomalies": ", ".join(outcome.anomalies),
        "exceptions": ", ".join(outcome.exceptions),
        "detail": outcome.detail,
    }
    return tuple(f"{name}: {text}" for name, text in named.items() if text)
