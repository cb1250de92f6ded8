"""deploy/ says what the program has: settings, exit codes, exception policies, providers."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from proxy import cli
from proxy.limits import Cause
from proxy.redirect.registry import PROVIDER_NAMES
from proxy.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy"
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def settings_in(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, entry in model.model_fields.items():
        kind = entry.annotation
        if get_origin(kind) is tuple:
            kind = get_args(kind)[0]  # an array; of tables, perhaps
        inner = inspect.isclass(kind) and issubclass(kind, BaseModel)
        found |= settings_in(kind, f"{name}.") if inner else {prefix + name}
    return found


def first_column(heading: str) -> set[str]:
    """Everything in backticks in the first column of the tables under a heading."""
    section = README.partition(f"# {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_tables_list_every_setting_and_no_other() -> None:
    assert first_column("Settings") == settings_in(Settings)


def test_every_exception_policy_is_described() -> None:
    assert first_column("Exception policies") == {f"exceptions.{cause.value}" for cause in Cause}


def test_every_provider_is_described() -> None:
    assert first_column("Redirect providers") == set(PROVIDER_NAMES)


def test_exit_codes_and_verbs_are_described() -> None:
    section = README.partition("## Commands and exit codes\n")[2].partition("\n## ")[0]
    codes = re.findall(r"(?m)^\| (\d) \|", section)
    assert codes == [str(c) for c in (cli.OK, cli.FINDINGS, cli.USAGE, cli.CANNOT_START)]
    verbs = {words.split()[0] for words in re.findall(r"`([^`]+)`", section.splitlines()[1])}
    assert verbs - {"--help", "--json"} == {
        *("run", "exec", "doctor", "redirect", "service", "check", "schema", "layers", "status"),
        *("reload", "demo", "version"),
    }


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (DEPLOY / target).exists(), target


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    """With a program and a user that are there: systemd-analyze looks for both."""
    text = unit.read_text(encoding="utf-8").replace("/opt/sluicegate/bin/sluicegate", "/bin/true")
    text = re.sub(r"(?m)^(User|Group)=sluicegate$", r"\1=root", text)
    (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    mine = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, mine) == (0, [])
