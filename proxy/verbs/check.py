"""`sluicegate check DIR`: every mistake of a policy directory, each with file:line:column.

Behind the mistakes come the findings of lint. They leave policies usable, so they are no
failure unless --strict makes them one.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.verbs.output import FINDINGS, GREEN, GREY, OK, RED, YELLOW, count, paint, print_json

if TYPE_CHECKING:
    from proxy.policy.build import CheckReport
    from proxy.policy.lint import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="warnings are findings, too")
    parser.add_argument("--no-lint", action="store_true", help="mistakes only")


def run(arguments: argparse.Namespace) -> int:
    from proxy.policy.lint import Level
    from proxy.policy.store import check_directory

    report = check_directory(arguments.directory)
    findings = [] if report.problems or arguments.no_lint else _lint(arguments.directory)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if arguments.json:
        print_json(_as_json(report, findings))
    else:
        _print(report, findings, warnings)
    return FINDINGS if report.problems or (arguments.strict and warnings) else OK


def _lint(directory: Path) -> list[Finding]:
    """What lint finds in policies that were found usable. Raises PolicyError if they changed."""
    from proxy.policy.build import compile_all, load_all
    from proxy.policy.files import DirectoryFiles
    from proxy.policy.lint import lint

    files = DirectoryFiles(directory)
    texts = files.policies()
    loaded = load_all(texts, files.read, files.list_folder)
    return list(lint(loaded, compile_all(loaded, 1), texts))


def _as_json(report: CheckReport, findings: list[Finding]) -> dict[str, object]:
    return {
        "ok": report.ok,
        "policies": report.policies,
        "rules": report.rules,
        "problems": [asdict(problem) for problem in report.problems],
        "warnings": [
            {
                "id": finding.id,
                "level": finding.level.value,
                "rule": finding.rule,
                **asdict(finding.mark),
                "message": finding.message,
                "advice": finding.advice,
            }
            for finding in findings
        ],
    }


def _print(report: CheckReport, findings: list[Finding], warnings: int) -> None:
    for problem in report.problems:
        print(paint(RED, str(problem)))
    if report.problems:
        print(count(len(report.problems), "problem"))
        return
    for finding in findings:
        print(paint(YELLOW if finding.level.value == "warning" else GREY, str(finding)))
    counts = f"{count(len(report.policies), 'policy', 'policies')}, {count(report.rules, 'rule')}"
    told = f", {count(warnings, 'warning')}" if warnings else ""
    print(paint(GREEN, f"ok: {counts}{told}"))
