"""A connection of our own through a real redirect: does it come back, and as what?

In a cgroup of its own, so that nothing but the probe is captured, and to a loopback address
with nobody at it, so that nothing leaves the machine whether it is captured or not.
"""

from __future__ import annotations

import asyncio
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from proxy.errors import RedirectError, SluicegateError
from proxy.model import Confidence, Endpoint, RedirectInfo
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from proxy.redirect.registry import listening, make_provider
from proxy.service.doctor_facts import Loop
from proxy.service.exec_cgroup import ScopedCgroup
from proxy.service.listener import can_listen, open_listeners

_SECONDS = 5.0
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
#: Waits until it may begin, connects, and holds the connection until it is told to end.
_PROBE = """
import socket, sys
host, port = sys.stdin.readline().split()
try:
    sock = socket.create_connection((host, int(port)), 5)
except OSError as error:
    sys.exit(error.strerror or str(error))
sys.stdin.readline()
"""


def run_loops(providers: Sequence[str]) -> tuple[Loop, ...]:
    """One for each provider that scopes by cgroup, and each family that the machine has."""
    families = [family for family, host in _LOOPBACK.items() if can_listen(host)]
    return tuple(_loop(provider, family) for provider in providers for family in families)


def _loop(provider: str, family: int) -> Loop:
    try:
        return Loop(provider, family, True, _sent_around(provider, family))
    except (SluicegateError, OSError) as error:
        return Loop(provider, family, False, str(error))


def _sent_around(name: str, family: int) -> str:
    """What came back. Raises RedirectError with what is wrong."""
    with ExitStack() as undo:
        target = undo.enter_context(_NobodyThere(family))
        sockets = open_listeners(Endpoint("127.0.0.1", 0), listening(name), ipv6=family == 6)
        for sock in sockets:
            undo.callback(sock.close)
        cgroup = ScopedCgroup()
        undo.callback(cgroup.remove)
        listen = Endpoint.of(sockets[0].getsockname())
        provider = make_provider(name, _options(listen, target, cgroup.path, family))
        undo.callback(provider.remove)
        provider.install()
        probe = undo.enter_context(_probe())
        cgroup.add(probe.pid)
        accepted, client = _arrives(probe, target, sockets)
        with accepted:
            info = asyncio.run(provider.identify(accepted, client, _SECONDS)).info
        return _judged(info, target, probe.pid)


def _options(listen: Endpoint, target: Endpoint, cgroup: str, family: int) -> RedirectOptions:
    return RedirectOptions(
        listen=listen,
        ports=(PortRange(target.port, target.port),),
        include_loopback=True,
        cgroup=cgroup,
        ipv6=family == 6,
        on_crash=OnCrash.OPEN,
    )


class _NobodyThere:
    """A loopback port that is ours and at which nobody listens."""

    def __init__(self, family: int) -> None:
        self._sock = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
        self._host = _LOOPBACK[family]

    def __enter__(self) -> Endpoint:
        try:
            self._sock.bind((self._host, 0))
        except OSError as error:
            self._sock.close()
            raise RedirectError(f"{self._host} cannot be used: {error.strerror}") from error
        return Endpoint(self._host, self._sock.getsockname()[1])

    def __exit__(self, *exception: object) -> None:
        self._sock.close()


def _probe() -> subprocess.Popen[str]:
    """Isolated, so that it starts at once and reads nothing of ours."""
    command = [sys.executable, "-I", "-S", "-c", _PROBE]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _arrives(
    probe: subprocess.Popen[str], target: Endpoint, sockets: Sequence[socket.socket]
) -> tuple[socket.socket, Endpoint]:
    """Let the probe connect; the connection as it comes in to us. Raises RedirectError."""
    assert probe.stdin is not None
    assert probe.stderr is not None
    probe.stdin.write(f"{target.host} {target.port}\n")
    probe.stdin.flush()
    watched = [*(sock.fileno() for sock in sockets), probe.stderr.fileno()]
    ready = select.select(watched, [], [], _SECONDS)[0]
    for sock in sockets:
        if sock.fileno() in ready:
            accepted, address = sock.accept()
            accepted.setblocking(False)
            return accepted, Endpoint.of(address)
    said = probe.stderr.readline().strip() if ready else "no answer"
    raise RedirectError(f"the connection did not come to us ({said})")


def _judged(info: RedirectInfo, target: Endpoint, pid: int) -> str:
    """A sentence when all is right. Raises RedirectError."""
    if info.original_dst != target:
        raise RedirectError(f"it meant to go to {target}, and came as one to {info.original_dst}")
    principal = info.principal
    if principal.confidence is Confidence.NONE:
        return "a connection came back with its destination (this provider knows no principal)"
    if principal.pid != pid:
        raise RedirectError(f"process {pid} connected, and came as process {principal.pid}")
    return f"a connection came back with its destination and its process ({principal.exe})"
