"""`sluicegate doctor` in namespaces of its own: what it sends around, finds, and leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RedirectError
from proxy.redirect.registry import PROVIDER_NAMES
from proxy.service.exec_cgroup import PREFIX, locate
from tests.support.netns import Namespace, namespaces, needs_netns


def _cgroup() -> Path | None:
    try:
        mount, own = locate()
    except RedirectError:
        return None
    return mount / own if os.access(mount / own, os.W_OK) else None


pytestmark = [
    *needs_netns(),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="not installed: setpriv"),
    pytest.mark.skipif(_cgroup() is None, reason="cgroup v2 is not mounted writable"),
]


@pytest.fixture
def space() -> Iterator[Namespace]:
    with namespaces("machine") as (made,):
        yield made


def doctor(space: Namespace, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, Any]:
    """Exit code, and the findings of each check."""
    done = space.call(
        subprocess.run,
        [*before, sys.executable, "-m", "proxy", "doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in told["findings"]:
        found.setdefault(finding["check"], []).append(finding)
    return done.returncode, found


def leftovers() -> list[str]:
    where = _cgroup()
    assert where is not None
    found = [path.name for path in where.glob(f"{PREFIX}*")]
    return [name for name in found if not Path("/proc", name.split("-")[2]).exists()]


def test_connections_come_back_through_each_redirect_and_nothing_stays(space: Namespace) -> None:
    code, found = doctor(space)
    assert code == 0
    ways = [way for way in ("ebpf", "nft") if way in PROVIDER_NAMES]
    assert [finding["level"] for finding in found["loop"]] == ["ok"] * 2 * len(ways)
    assert found["redirect"][0]["text"].endswith(", ".join(ways))
    if "ebpf" in ways:
        assert f"its process ({os.path.realpath(sys.executable)})" in found["loop"][0]["text"]
    assert space.ruleset() == ""
    assert leftovers() == []


def test_somebody_elses_redirect_is_named_and_left_alone(space: Namespace) -> None:
    rules = "type nat hook output priority -150; tcp dport 80 redirect to :15006"
    space.run("nft", f"add table inet mesh {{ chain out {{ {rules}; }}; }}")
    before = space.ruleset()
    code, found = doctor(space, "--no-live")
    assert code == 0
    assert [finding["level"] for finding in found["redirectors"]] == ["warn"]
    assert (
        "inet mesh out (hook output): redirect, priority -150, before ours"
        in (found["redirectors"][0]["text"])
    )
    assert space.ruleset() == before


def test_a_redirect_that_leads_to_nobody_fails(space: Namespace) -> None:
    """What a crash with on_crash: closed leaves, until the proxy is back."""
    rules = "type nat hook output priority -100; tcp dport 80 redirect to :15001"
    space.run("nft", f"add table inet sluicegate_15001 {{ chain output {{ {rules}; }}; }}")
    code, found = doctor(space, "--no-live")
    assert code == 1
    assert "nobody listens" in found["nft"][-1]["text"]
    with space.call(socket.create_server, ("127.0.0.1", 15001)):
        listening = doctor(space, "--no-live", "--listen", "127.0.0.1:15002")
    assert listening[0] == 0


def test_a_port_that_is_in_use_fails_and_its_holder_is_named(space: Namespace) -> None:
    with space.call(socket.create_server, ("127.0.0.1", 15001)):
        code, found = doctor(space, "--no-live")
    assert code == 1
    text = found["ports"][0]["text"]
    assert text.startswith("listen 127.0.0.1:15001 is in use by ")
    assert f"(process {os.getpid()})" in text


def test_policies_that_are_not_usable_fail(space: Namespace, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("version: 1\npolicy: b\ndescription: d\nrules: 7\n")
    code, found = doctor(space, "--no-live", "--policies", str(tmp_path))
    assert code == 1
    assert "broken.yaml:4:" in found["policies"][0]["text"]


def test_without_privileges_it_says_what_to_do(space: Namespace) -> None:
    unprivileged = (
        *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
        # Reading is all that is left: the interpreter may be where only root looks.
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    )
    code, found = doctor(space, before=unprivileged)
    assert code == 1
    assert "CAP_NET_ADMIN" in found["privileges"][0]["text"]
    assert found["loop"][0]["text"] == "no connection was sent through a redirect"
    assert found["redirect"][0]["level"] == "fail"
    assert "--redirect explicit" in found["redirect"][0]["advice"]


def test_for_people_each_line_has_a_level_and_what_to_do(space: Namespace) -> None:
    command = [sys.executable, "-m", "proxy", "doctor", "--no-live"]
    done = space.call(subprocess.run, command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    system       linux, kernel ")
    warned = next(n for n, line in enumerate(lines) if line.startswith("warn  loop"))
    assert lines[warned + 1].strip().startswith("sluicegate doctor --live")
    assert "\x1b" not in done.stdout
