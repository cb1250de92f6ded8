"""`sluicegate check DIR`: every mistake of a policy directory, each with file:line:column."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from proxy.verbs.output import FINDINGS, GREEN, OK, RED, count, paint, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from proxy.policy.store import check_directory

    report = check_directory(arguments.directory)
    problems = list(report.problems)
    if arguments.json:
        print_json(
            {
                "ok": not problems,
                "policies": report.policies,
                "rules": report.rules,
                "problems": [asdict(problem) for problem in problems],
            }
        )
        return FINDINGS if problems else OK
    for problem in problems:
        print(paint(RED, str(problem)))
    if problems:
        print(count(len(problems), "problem"))
        return FINDINGS
    counts = f"{count(len(report.policies), 'policy', 'policies')}, {count(report.rules, 'rule')}"
    print(paint(GREEN, f"ok: {counts}"))
    return OK
