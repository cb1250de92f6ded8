"""The scrape configuration and the alerts that we ship, by promtool itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.account.metrics import Counters
from proxy.model import Layer

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
)
def test_promtool_agrees(command: list[str]) -> None:
    run = subprocess.run(
        ["promtool", *command], cwd=FOLDER, capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_alerts_ask_only_for_metrics_and_label_values_that_exist() -> None:
    counters = Counters()
    counters.decided(Layer.STREAM, "block", "r", shadow=False)
    exposed = counters.expose()[0].decode()
    rules = (FOLDER / "alerts.yml").read_text()
    for name in set(re.findall(r"\bsluicegate_\w+", rules)):
        assert re.search(rf"^{name}[ {{]", exposed, re.MULTILINE), name
    for label, pattern in re.findall(r'(\w+)=~?"([^"]+)"', rules):
        if label == "job":
            continue
        for value in pattern.split("|"):
            assert f'{label}="{value}"' in exposed, value


def test_the_table_lists_every_metric() -> None:
    counters = Counters()
    exposed = counters.expose()[0].decode()
    declared = set(re.findall(r"^# TYPE (sluicegate_\w+) ", exposed, re.MULTILINE))
    listed = set(
        re.findall(r"^\| `(sluicegate_\w+)` \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    )
    assert {name for name in declared if not name.endswith("_created")} == listed
