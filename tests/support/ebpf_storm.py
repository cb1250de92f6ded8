"""A storm of short connections through the eBPF redirector: is every one told right?

    python -m tests.support.ebpf_storm --connections 20000

Processes are born and die in two network namespaces under one cgroup. Each connects to addresses
that no other connection of the storm asks for, half of them from a few source ports that are used
again and again, and writes who it is; then it closes at once or when it is answered. The proxy
compares what the redirector tells with what the client wrote: destination, source, pid, start
time, user. Needs root. Prints figures; exit code 1 when anything was told wrong or not at all.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

from proxy.errors import RedirectError
from proxy.model import Confidence, Endpoint, RedirectInfo
from proxy.redirect.ebpf import EbpfProvider
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from tests.support.ebpf import Group, scratch_cgroup
from tests.support.netns import Namespace, link, namespaces

PORT = 15001
AWAY = 8443
_USERS = 4
_EACH = 40  #: connections of one process, which then ends
_NEAR_V4, _NEAR_V6 = "10.79.1.1", "fd79:1::1"

# argv: cgroup, user, first number, how many, how the namespace's addresses begin.
_CLIENT = """
import os, socket, struct, sys
group, uid, first, count, net = sys.argv[1], *map(int, sys.argv[2:])
with open(group + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
os.setuid(uid)
with open("/proc/self/stat") as stat:
    start = int(stat.read().rpartition(")")[2].split()[19])
def connected(family, host, number):
    if number % 4 < 2:
        # Source ports of others that have just closed; one in use or in TIME_WAIT is refused.
        for port in range(20000 + number % 61, 32000, 61):
            sock = socket.socket(family)
            sock.settimeout(30)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("", port))
                sock.connect((host, 8443))
                return sock
            except OSError as error:
                sock.close()
                if error.errno not in (98, 99):
                    raise
    sock = socket.socket(family)
    sock.settimeout(30)
    sock.connect((host, 8443))
    return sock
failed = 0
for number in range(first, first + count):
    six = number % 2
    family = socket.AF_INET6 if six else socket.AF_INET
    tail = struct.pack(">I", number)
    host = socket.inet_ntop(family, bytes.fromhex("20010db8000000000000000%d" % net) + tail if six
                            else bytes([100 + net]) + tail[1:])
    try:
        sock = connected(family, host, number)
        assert sock.getpeername()[:2] == (host, 8443)
        told = "%d %d %d %d %s" % (number, os.getpid(), start, uid, host)
        sock.sendall(told.encode().ljust(128))
        how = number % 3
        if how == 0:
            sock.recv(1)
        elif how == 1:
            sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        failed += 1
        print(number, error, file=sys.stderr)
        continue
    sock.close()
sys.exit(min(failed, 100))
"""


@dataclass
class Tally:
    """What came of it. `wrong` names what was told wrong, each with an example."""

    right: int = 0
    exact: int = 0
    unknown: int = 0  #: the redirector knew nothing of the connection
    failed: int = 0  #: clients that could not connect
    pids: set[int] = field(default_factory=set)
    ports: collections.Counter[Endpoint] = field(default_factory=collections.Counter)
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def reused(self) -> int:
        """Connections from a source that another had had before."""
        return sum(count - 1 for count in self.ports.values())


def check(tally: Tally, info: RedirectInfo, told: str) -> None:
    """Compare with what the client itself said."""
    _, pid, start, uid, host = told.split()
    who = info.principal
    tick = int.from_bytes(info.raw_context[56:64], "little") // 10_000_000
    pairs = {
        "destination": (info.original_dst, Endpoint(host, AWAY)),
        "pid": (who.pid, int(pid)),
        "start": (tick, int(start)),
        "user": (who.uid, int(uid)),
    }
    wrong = {name: f"{got} is not {want}" for name, (got, want) in pairs.items() if got != want}
    tally.wrong |= wrong
    tally.right += not wrong
    tally.exact += who.confidence is Confidence.EXACT
    tally.pids.add(int(pid))
    tally.ports[info.client] += 1


async def serve(provider: EbpfProvider, listener: socket.socket, tally: Tally, total: int) -> None:
    """Accept and compare until `total` have come, or nothing has for a while."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def one(sock: socket.socket, client: Endpoint) -> None:
        with sock:
            try:
                info = (await provider.identify(sock, client, 5.0)).info
            except RedirectError:
                tally.unknown += 1
                return
            told = b""
            while len(told) < 128 and (data := await loop.sock_recv(sock, 128 - len(told))):
                told += data
            check(tally, info, told.decode())
            await asyncio.sleep(0)

    for _ in range(total):
        try:
            sock, address = await asyncio.wait_for(loop.sock_accept(listener), 30)
        except TimeoutError:
            break
        task = loop.create_task(one(sock, Endpoint.of(address)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


def storm(connections: int, at_once: int) -> Tally:
    """The whole: namespaces, redirect, clients. Raises RedirectError, AssertionError."""
    with namespaces("near", "far") as (near, far), scratch_cgroup() as group:
        link(near, far, "between", (f"{_NEAR_V4} 10.79.1.2/24", f"{_NEAR_V6} fd79:1::2/64"))
        for space, way in ((near, "10.79.1.2"), (far, _NEAR_V4)):
            space.run("ip", "route", "add", "default", "via", way)
            space.run("ip", "-6", "route", "add", "default", "dev", "between")
        # A source port is free again at once, so that it is used by many.
        for space in (near, far):
            space.sysctl("net.ipv4.tcp_tw_reuse", 1)
        options = RedirectOptions(
            Endpoint("::", PORT), ports=(PortRange(AWAY, AWAY),), cgroup=group.path,
            foreign=(_NEAR_V4, _NEAR_V6), on_crash=OnCrash.OPEN,
        )  # fmt: skip
        return _run(near, far, group, EbpfProvider(options), connections, at_once)


def _run(
    near: Namespace, far: Namespace, group: Group, provider: EbpfProvider,
    connections: int, at_once: int,
) -> Tally:  # fmt: skip
    tally = Tally()
    listener = near.call(
        socket.create_server, ("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True,
        backlog=4096,
    )  # fmt: skip
    with listener:
        listener.setblocking(False)
        near.call(provider.install)
        try:
            asyncio.run(_both(near, far, group, provider, listener, tally, connections, at_once))
        finally:
            provider.remove()
    return tally


async def _both(
    near: Namespace, far: Namespace, group: Group, provider: EbpfProvider,
    listener: socket.socket, tally: Tally, connections: int, at_once: int,
) -> None:  # fmt: skip
    serving = asyncio.create_task(serve(provider, listener, tally, connections))
    gate = asyncio.Semaphore(at_once)

    async def client(number: int, first: int) -> None:
        async with gate:
            space, net = ((near, 1), (far, 2))[number % 2]
            count = min(_EACH, connections - first)
            uid = 60000 + number % _USERS
            words = [str(group.directory), str(uid), str(first), str(count), str(net)]
            process = await asyncio.to_thread(
                space.call, subprocess.Popen, [sys.executable, "-S", "-E", "-c", _CLIENT, *words]
            )
            tally.failed += await asyncio.to_thread(process.wait)

    firsts = range(0, connections, _EACH)
    await asyncio.gather(*(client(number, first) for number, first in enumerate(firsts)))
    await serving


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=8, help="processes alive at the same time")
    wanted = parser.parse_args()
    begin = time.monotonic()
    tally = storm(wanted.connections, wanted.at_once)
    figures = {
        "connections": wanted.connections,
        "right": tally.right,
        "exact": tally.exact,
        "unknown": tally.unknown,
        "failed": tally.failed,
        "processes": len(tally.pids),
        "sources_used_again": tally.reused,
        "seconds": round(time.monotonic() - begin, 1),
        "wrong": tally.wrong,
    }
    print(json.dumps(figures))
    return int(tally.right != wanted.connections)


if __name__ == "__main__":
    sys.exit(main())
