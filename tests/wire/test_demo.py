"""`sluicegate demo` as a user runs it: every step shows what it should, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.service.demo_netns import unusable
from proxy.service.demo_steps import STEPS

ROOT = Path(__file__).parents[2]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "SLUICEGATE_LISTEN": "not-for-the-demo"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "NOT AS IT SHOULD BE" not in done.stdout
    assert done.stdout.count("\n   ok\n") == len(STEPS)
    assert f"all {len(STEPS)} steps showed what they should" in done.stdout
    assert "\x1b" not in done.stdout  # not a terminal


def test_on_loopback_without_privileges() -> None:
    done = run_demo("--loopback")
    check(done)
    assert "(static)" in done.stdout


@pytest.mark.root
@pytest.mark.skipif(bool(unusable()), reason=f"no nftables redirect: {unusable()}")
def test_through_an_nftables_redirect() -> None:
    done = run_demo()
    check(done)
    assert "origin 198.18.0.2:80" in done.stdout
    assert "(nft)" in done.stdout
    left = [name for name in os.listdir("/run/netns") if name.startswith("sluicegate-demo-")]
    assert [name for name in left if not os.path.exists(f"/proc/{name.split('-')[2]}")] == []
