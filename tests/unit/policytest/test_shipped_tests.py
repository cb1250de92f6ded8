"""The tests that ship with the policies: they hold, and between them show every rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main

POLICIES = Path(__file__).parents[3] / "policies"


@pytest.mark.parametrize("directory", [POLICIES, POLICIES / "examples"], ids=lambda path: path.name)
def test_the_tests_of_shipped_policies_hold(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["test", str(directory), "--json", "--min-coverage", "100"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [test["name"] for test in report["tests"] if not test["ok"]] == []
    assert report["coverage"]["missing"] == []
    assert code == 0


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for path in [*POLICIES.glob("*.yaml"), *POLICIES.glob("examples/*.yaml")]
        if not path.stem.endswith("_test")
    ),
    ids=lambda path: path.stem,
)
def test_every_shipped_policy_has_tests_of_its_own(path: Path) -> None:
    assert path.with_name(f"{path.stem}_test.yaml").is_file()
