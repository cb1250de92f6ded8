"""For tests of the eBPF redirector: cgroups, client processes, and what the kernel has loaded.

    with scratch_cgroup() as group, ClientProcess(space, group.directory) as client:
        done = client.connect("192.0.2.9", 80)     # made in that namespace and cgroup
        done.sock, done.peer, client.pid

A client is a process of its own, because the proxy's own connections are exempt. Sockets that
it makes come back through a Unix socket (SCM_RIGHTS).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RedirectError
from proxy.redirect import cgroups, ebpf_pins
from proxy.redirect.ebpf_object import find_object
from proxy.redirect.libbpf import library
from tests.support import netns
from tests.support.netns import Namespace

_numbers = itertools.count(1)
_SECONDS = 20.0

_CLIENT = """
import json, os, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
if sys.argv[2]:
    with open(sys.argv[2] + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
if sys.argv[3]:
    os.setuid(int(sys.argv[3]))
channel.sendall(b"{}")
while line := channel.recv(4096):
    ask = json.loads(line)
    sock = socket.socket(ask["family"], ask["type"], ask["protocol"])
    answer = {"peer": None, "errno": 0}
    try:
        sock.settimeout(10)
        for level, option, value in ask["options"]:
            sock.setsockopt(level, option, value if isinstance(value, int) else value.encode())
        if ask["bind"]:
            sock.bind(tuple(ask["bind"]))
        if ask["sendto"]:
            sock.sendto(b"x", (ask["host"], ask["port"]))
        else:
            sock.connect((ask["host"], ask["port"]))
            answer["peer"] = sock.getpeername()[:2]
    except OSError as error:
        answer["errno"] = error.errno or 110
    socket.send_fds(channel, [json.dumps(answer).encode()], [sock.fileno()])
    sock.close()
"""


@functools.cache
def why_not() -> str | None:
    """What this machine lacks for the redirector, or None."""
    reason = netns.why_not()
    if reason is not None:
        return reason
    if shutil.which("bpftool") is None:
        return "not installed: bpftool"
    try:
        cgroups.mount_point()
        library()
        find_object()
    except RedirectError as error:
        return str(error)
    return None


def needs_ebpf() -> list[pytest.MarkDecorator]:
    """For `pytestmark`: marked `root`, skipped where it cannot work."""
    reason = why_not()
    return [pytest.mark.root, pytest.mark.skipif(reason is not None, reason=reason or "")]


@dataclass(frozen=True)
class Group:
    """A cgroup: `path` as settings take it."""

    path: str
    directory: Path


@contextlib.contextmanager
def scratch_cgroup() -> Iterator[Group]:
    """A new cgroup v2; who is in it is moved out when it is removed."""
    name = f"sluicegate-test-{os.getpid()}-{next(_numbers)}"
    directory = cgroups.mount_point() / name
    directory.mkdir()
    try:
        yield Group(name, directory)
    finally:
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                (directory.parent / "cgroup.procs").write_text(pid)
        for below in sorted(directory.glob("*/"), reverse=True):
            below.rmdir()
        directory.rmdir()


@contextlib.contextmanager
def pins_may_be_mounted() -> Iterator[None]:
    """The redirector mounts the BPF file system where there is none: undone afterwards."""
    before = ebpf_pins.is_mounted()
    yield
    if ebpf_pins.is_mounted() != before and not list(ebpf_pins.ROOT.glob("sluicegate/*")):
        # Not checked: another run of the suite on this machine may have been quicker.
        subprocess.run(["umount", str(ebpf_pins.ROOT)], check=False, capture_output=True)


@dataclass(frozen=True)
class Done:
    """What became of a client's connect. `errno`: 0 when it succeeded."""

    sock: socket.socket
    peer: tuple[str, int] | None
    errno: int


class ClientProcess:
    """A process in a network namespace, a cgroup, and perhaps of another user."""

    def __init__(self, space: Namespace, cgroup: Path | None = None, uid: int | None = None):
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_SECONDS)
        where, who = str(cgroup or ""), "" if uid is None else str(uid)
        command = [sys.executable, "-c", _CLIENT, str(theirs.fileno()), where, who]
        with theirs:
            self._process = space.call(subprocess.Popen, command, pass_fds=[theirs.fileno()])
        assert self._channel.recv(64) == b"{}"
        self.pid = self._process.pid

    def connect(self, host: str, port: int, **how: Any) -> Done:
        """`how`: family, type, protocol, bind (address, port), options ([level, option, value]),
        sendto."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        ask = {"family": family, "type": socket.SOCK_STREAM, "bind": None, "options": []}
        ask |= {"protocol": 0, "sendto": False, "host": host, "port": port} | how
        self._channel.sendall(json.dumps(ask).encode())
        data, fds, _, _ = socket.recv_fds(self._channel, 4096, 1)
        answer = json.loads(data)
        peer = answer["peer"] and (answer["peer"][0], answer["peer"][1])
        return Done(socket.socket(fileno=fds[0]), peer, answer["errno"])

    def create_connection(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """socket.create_connection, made by the other process."""
        done = self.connect(*address)
        if done.errno:
            done.sock.close()
            raise OSError(done.errno, os.strerror(done.errno))
        done.sock.settimeout(timeout)
        return done.sock

    def close(self) -> None:
        self._channel.close()
        self._process.wait(_SECONDS)

    def __enter__(self) -> ClientProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def loaded() -> dict[str, list[str]]:
    """Names of our programs and maps in the kernel, and all links, as bpftool shows them."""
    found = {}
    for kind in ("prog", "map", "link"):
        told = subprocess.run(["bpftool", "-j", kind, "list"], capture_output=True, check=True)
        items = json.loads(told.stdout or b"[]")
        found[kind] = sorted(str(item.get("name", item["id"])) for item in items)
    return found
