"""`sluicegate doctor`: what works on this machine, and what to do about what does not.

Exit code 0 when connections can be redirected here and nothing that is needed fails, else 1.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.verbs.output import FINDINGS, GREEN, GREY, OK, RED, YELLOW, paint, print_json

if TYPE_CHECKING:
    from proxy.service.doctor_findings import Finding

_COLOURS = {"ok": GREEN, "warn": YELLOW, "fail": RED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="settings file (TOML)")
    add("--listen", metavar="ADDR:PORT", help="where redirected connections would arrive")
    add("--admin", metavar="ADDR:PORT", help="the admin endpoint")
    add("--policies", metavar="DIR", help="directory of policy files")
    add(
        "--live",
        action=argparse.BooleanOptionalAction,
        help="send a connection of its own through each redirect, in a cgroup of its own "
        "(by default: when privileged)",
    )
    add("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from proxy.service.doctor import examine
    from proxy.settings import load_settings

    names = {"listen": "listen", "admin": "admin.listen", "policies": "policies"}
    given = {key: getattr(arguments, name) for name, key in names.items()}
    flags = {key: value for key, value in given.items() if value is not None}
    told = {key: f"--{name}" for name, key in names.items()}
    settings = load_settings(arguments.config, flags=flags, flag_names=told, serving=False)
    findings = examine(settings, live=arguments.live)
    failed = any(finding.level.value == "fail" for finding in findings)
    if arguments.json:
        print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    return FINDINGS if failed else OK


def _print(findings: list[Finding]) -> None:
    for finding in findings:
        level = finding.level.value
        print(f"{paint(_COLOURS[level], f'{level:4}')}  {finding.check:11}  {finding.text}")
        if finding.advice:
            print(paint(GREY, f"{'':19}{finding.advice}"))
