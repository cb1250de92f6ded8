"""Lint inside `sluicegate check`: warnings beside an ok, findings under --strict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy import cli

Capture = pytest.CaptureFixture[str]
HEAD = "version: 1\npolicy: p\nrules:\n"
HIDDEN = """  - {id: a, layer: http_request, when: {host: a.test}, then: {block: true}}
  - {id: b, layer: http_request, when: {host: a.test}, then: {log: true}}
"""
COSTLY = "  - {id: c, layer: http_response_body, when: {body: x}, then: {block: true}}\n"


def write(directory: Path, rules: str) -> str:
    (directory / "p.yaml").write_text(HEAD + rules, encoding="utf-8")
    return str(directory)


def test_a_warning_has_its_place_its_id_and_advice_and_is_no_failure(
    capsys: Capture, tmp_path: Path
) -> None:
    assert cli.main(["check", write(tmp_path, HIDDEN)]) == cli.OK
    warning, total = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"{tmp_path}/p.yaml:5:5: warning lint.unreachable: b is never asked")
    assert "(give it more weight" in warning
    assert total == "ok: 1 policy, 2 rules, 1 warning"


def test_strict_makes_a_warning_a_finding_and_an_info_never_is(
    capsys: Capture, tmp_path: Path
) -> None:
    assert cli.main(["check", "--strict", write(tmp_path, HIDDEN)]) == cli.FINDINGS
    assert cli.main(["check", "--strict", write(tmp_path, COSTLY)]) == cli.OK
    assert "p.yaml:4:5: info lint.cost: c: every response body" in capsys.readouterr().out


def test_warnings_are_in_the_json(capsys: Capture, tmp_path: Path) -> None:
    assert cli.main(["check", "--json", write(tmp_path, HIDDEN + COSTLY)]) == cli.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    told = [(w["id"], w["level"], w["rule"], w["line"]) for w in answer["warnings"]]
    assert told == [("lint.unreachable", "warning", "b", 5), ("lint.cost", "info", "c", 6)]


def test_lint_can_be_left_out(capsys: Capture, tmp_path: Path) -> None:
    directory = write(tmp_path, HIDDEN)
    assert cli.main(["check", "--strict", "--no-lint", directory]) == cli.OK
    assert capsys.readouterr().out == "ok: 1 policy, 2 rules\n"


def test_policies_with_mistakes_are_not_linted(capsys: Capture, tmp_path: Path) -> None:
    directory = write(tmp_path, HIDDEN + "  - {id: d}\n")
    assert cli.main(["check", directory]) == cli.FINDINGS
    assert "lint." not in capsys.readouterr().out
