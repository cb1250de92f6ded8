"""Network namespaces for tests: real routing, real nftables, and nothing left behind.

    with lab() as net:                        # client -- router -- server, IPv4 and IPv6
        listening = net.server.call(socket.create_server, (net.server_v4, 80))
        sock = net.client.call(socket.create_connection, (net.server_v4, 80))
        net.client.run("curl", "-s", f"http://{net.server_v4}/")
        proxy = net.client.popen(sys.executable, "-m", "proxy", "run", ...)

`call` runs a function in a thread that has entered the namespace: sockets made there stay
there, and processes started there belong to it, /sys (cgroups) as on the machine. `run` and
`popen` go through `ip netns exec`: name resolution from `hosts()`, and a /sys of its own.
Everything that still runs in a namespace is killed when it is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

P = ParamSpec("P")
T = TypeVar("T")

_PREFIX = "sluicegate"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_MOUNTS = Path("/run/netns")  # ip-netns(8)
_CONFIG = Path("/etc/netns")
_SECONDS = 30.0
_numbers = itertools.count(1)


def why_not() -> str | None:
    """What this machine lacks for namespaces and nftables, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def needs_netns() -> list[pytest.MarkDecorator]:
    """For `pytestmark`: marked `root`, skipped where it cannot work."""
    reason = why_not()
    return [pytest.mark.root, pytest.mark.skipif(reason is not None, reason=reason or "")]


@dataclass(frozen=True)
class Namespace:
    """A network namespace with `lo` up."""

    name: str

    def run(self, *command: str, check: bool = True, **options: Any) -> str:
        """Run to the end inside; standard output as text."""
        options = {"capture_output": True, "text": True, "timeout": _SECONDS} | options
        done = subprocess.run(self._exec(command), check=False, **options)
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stderr}")
        return str(done.stdout)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """Start inside; the process id is the command's own."""
        return subprocess.Popen(self._exec(command), **options)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread inside; its result or exception."""
        outcome: list[T] = []
        problem: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter()
                outcome.append(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - handed to the caller below
                problem.append(error)

        thread = threading.Thread(target=inside, name=self.name)
        thread.start()
        thread.join()
        if problem:
            raise problem[0]
        return outcome[0]

    def sysctl(self, key: str, value: int | str) -> None:
        """Set a `net.` sysctl of this namespace."""
        path = Path("/proc/sys", *key.split("."))
        self.call(path.write_text, str(value))

    def hosts(self, names: dict[str, str]) -> None:
        """name -> address, for programs started by `run` and `popen` from now on."""
        folder = _CONFIG / self.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [f"{address} {name}" for name, address in names.items()]
        (folder / "hosts").write_text("\n".join(lines) + "\n")

    def ruleset(self) -> str:
        """nftables' ruleset as text, "" when there is none."""
        return self.run("nft", "list", "ruleset").strip()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)  # os.setns is Python 3.12's
        with (_MOUNTS / self.name).open() as handle:
            if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")

    def _exec(self, command: tuple[str, ...]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


@contextlib.contextmanager
def namespaces(*labels: str) -> Iterator[list[Namespace]]:
    """New namespaces, names unique to this process; removed with all that runs in them."""
    _sweep()
    number = next(_numbers)
    made = []
    try:
        for label in labels:
            space = Namespace(f"{_PREFIX}-{os.getpid()}-{number}-{label}")
            made.append(space)
            _ip(f"netns add {space.name}", f"-n {space.name} link set lo up")
        yield made
    finally:
        for space in made:
            _remove(space.name)


def link(left: Namespace, right: Namespace, name: str, nets: tuple[str, ...]) -> None:
    """A veth pair `name` in both; `nets` are "LEFT_ADDRESS RIGHT_ADDRESS/LENGTH"."""
    _ip(f"link add {name} netns {left.name} type veth peer name {name} netns {right.name}")
    for net in nets:
        one, two = net.split()
        length = two.partition("/")[2]
        # nodad: an IPv6 address is usable at once, without a second of detection.
        nodad = " nodad" if ":" in one else ""
        _ip(f"-n {left.name} addr add {one}/{length} dev {name}{nodad}")
        _ip(f"-n {right.name} addr add {two} dev {name}{nodad}")
    for space in (left, right):
        space.sysctl(f"net.ipv6.conf.{name}.accept_dad", 0)
        _ip(f"-n {space.name} link set {name} up")
    for space in (left, right):
        # Asking makes the kernel take note of the carrier now and not within a second (since
        # Linux 6.9); until then IPv6 answers no neighbour solicitation.
        _ip(f"-n {space.name} link show dev {name}")


@dataclass(frozen=True)
class Lab:
    """client -- router -- server. Interfaces: `inside` client-router, `outside` router-server."""

    client: Namespace
    router: Namespace
    server: Namespace
    client_v4: str = "10.77.1.2"
    client_v6: str = "fd77:1::2"
    router_v4: str = "10.77.1.1"
    router_v6: str = "fd77:1::1"
    server_v4: str = "10.77.2.2"
    server_v6: str = "fd77:2::2"

    @property
    def all(self) -> tuple[Namespace, Namespace, Namespace]:
        return self.client, self.router, self.server


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Three namespaces in a row, routed both ways."""
    with namespaces("client", "router", "server") as (client, router, server):
        link(client, router, "inside", ("10.77.1.2 10.77.1.1/24", "fd77:1::2 fd77:1::1/64"))
        link(router, server, "outside", ("10.77.2.1 10.77.2.2/24", "fd77:2::1 fd77:2::2/64"))
        router.sysctl("net.ipv4.ip_forward", 1)
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        for space, net in ((client, 1), (server, 2)):
            _ip(f"-n {space.name} route add default via 10.77.{net}.1")
            _ip(f"-n {space.name} route add default via fd77:{net}::1")
        yield Lab(client, router, server)


def _ip(*lines: str, check: bool = True) -> str:
    """ip(8), once per line."""
    said = ""
    for line in lines:
        done = subprocess.run(
            ["ip", *line.split()], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"ip {line}: {done.stderr}")
        said += done.stdout
    return said


def _remove(name: str) -> None:
    for pid in _ip(f"netns pids {name}", check=False).split():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(int(pid), signal.SIGKILL)
    _ip(f"netns del {name}", check=False)
    shutil.rmtree(_CONFIG / name, ignore_errors=True)


def _sweep() -> None:
    """Remove what test processes that were killed have left."""
    for path in _MOUNTS.glob(f"{_PREFIX}-*-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            _remove(path.name)


@contextlib.contextmanager
def listening(space: Namespace, host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket in `space`; "::" takes IPv4 too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = space.call(
        socket.create_server, (host, port), family=family, dualstack_ipv6=host == "::"
    )
    sock.settimeout(5)
    with sock:
        yield sock


def connect(space: Namespace, host: str, port: int) -> socket.socket:
    """A connected socket, made in `space`."""

    def inside() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.settimeout(5)
        try:
            sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    return space.call(inside)
