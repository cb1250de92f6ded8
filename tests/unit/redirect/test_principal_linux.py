"""Who made a connection: the kernel's word, completed from /proc only where it is still true."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.model import Confidence, Endpoint
from proxy.redirect import cgroups
from proxy.redirect.context import ContextFlag, RedirectContext
from proxy.redirect.principal import Image, Principals, parse_stat

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")

_TICK = 10_000_000
_READY = "print('x', flush=True); import sys; sys.stdin.read(1)"


def start_of(pid: int) -> tuple[int, int]:
    return parse_stat(Path(f"/proc/{pid}/stat").read_text())


def context_of(pid: int) -> RedirectContext:
    """As the kernel would tell it."""
    return RedirectContext(
        original=Endpoint("192.0.2.9", 80), source=None, pid=pid,
        process_start=start_of(pid)[0] * _TICK + 4_000_000, uid=os.getuid(), sid=b"", group_id=0,
        space=1, application="python", flags=ContextFlag(0),
    )  # fmt: skip


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", _READY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"x\n"
        yield process
        process.kill()


def test_a_process_that_lives(child: subprocess.Popen[bytes]) -> None:
    stack = start_of(child.pid)[1]
    found = Principals().of(context_of(child.pid), Image(stack, 1))
    assert found.confidence is Confidence.EXACT
    assert found.exe == os.readlink(f"/proc/{child.pid}/exe")
    assert (found.pid, found.uid, found.comm) == (child.pid, os.getuid(), "python")
    assert found.process_start is not None
    assert 0 <= time.time() - found.process_start < 60


def test_another_process_with_its_number(child: subprocess.Popen[bytes]) -> None:
    context = replace(context_of(child.pid), process_start=start_of(child.pid)[0] * _TICK - 1)
    found = Principals().of(context)
    assert (found.confidence, found.exe) == (Confidence.LIKELY, None)
    assert found.pid == child.pid


def test_a_process_that_became_another_program(child: subprocess.Popen[bytes]) -> None:
    found = Principals().of(context_of(child.pid), Image(start_of(child.pid)[1] + 16, 1))
    assert (found.confidence, found.exe) == (Confidence.LIKELY, None)


def test_a_process_that_is_gone(child: subprocess.Popen[bytes]) -> None:
    context = context_of(child.pid)
    child.kill()
    child.wait()
    found = Principals().of(context)
    assert (found.confidence, found.exe, found.comm) == (Confidence.LIKELY, None, "python")
    assert found.name == "python"


def test_what_it_was_is_remembered_for_the_same_program_only(
    child: subprocess.Popen[bytes],
) -> None:
    principals, context = Principals(), context_of(child.pid)
    stack = start_of(child.pid)[1]
    known = principals.of(context, Image(stack, 1))
    child.kill()
    child.wait()
    assert principals.of(context, Image(stack, 1)) == known
    assert principals.of(context, Image(stack, 2)).exe is None
    assert principals.of(replace(context, process_start=1), Image(stack, 1)).exe is None


def test_parse_stat() -> None:
    fields = " ".join(str(number) for number in range(3, 53))
    assert parse_stat(f"1 (a) b ) {fields}") == (22, 28)
    with pytest.raises(ValueError, match="too short"):
        parse_stat("1 (a) S 1")


_ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/system.slice/docker-{_ID}.scope", _ID),
        (f"/docker/{_ID}", _ID),
        (f"/machine.slice/libpod-{_ID}.scope/container", _ID),
        (f"/machine.slice/libpod-conmon-{_ID}.scope", _ID),
        (f"/kubepods.slice/kubepods-burstable.slice/cri-containerd-{_ID}.scope", _ID),
        (f"/kubepods/besteffort/pod1-2-3/{_ID}", _ID),
        (f"/kubepods.slice/crio-{_ID}.scope", _ID),
        (f"/docker/{'f' * 64}/docker/{_ID}", _ID),
        ("/user.slice/user-1000.slice", None),
        (f"/x{_ID}y", None),
        ("/", None),
    ],
)
def test_container_of(path: str, container: str | None) -> None:
    assert cgroups.container_of(path) == container


def test_cgroup_paths() -> None:
    assert cgroups.parse_path("4:memory:/x\n0::/a/b (deleted)\n") == "/a/b"
    assert cgroups.ancestors("/a/b") == ["/a/b", "/a", "/"]
    assert cgroups.ancestors("/") == ["/"]
