"""The provider ebpf on the real kernel: what is captured, what is not, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Confidence, Endpoint, RedirectInfo
from proxy.redirect.ebpf import EbpfProvider
from proxy.redirect.nft import SO_MARK
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from proxy.redirect.original_dst import original_destination
from tests.support.ebpf import (
    ClientProcess,
    Done,
    Group,
    needs_ebpf,
    scratch_cgroup,
)
from tests.support.netns import Lab, Namespace, link, namespaces

pytestmark = needs_ebpf()

PORT = 15001
AWAY_V4, AWAY_V6 = "192.0.2.9", "2001:db8::9"
MAPPED = f"::ffff:{AWAY_V4}"
OPTIONS = RedirectOptions(
    Endpoint("::", PORT), ports=(PortRange(80, 80), PortRange(8000, 8100)), on_crash=OnCrash.OPEN
)
UDP = socket.SOCK_DGRAM


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    with scratch_cgroup() as made:
        yield made


@pytest.fixture(scope="module")
def client(_lab: Lab, group: Group) -> Iterator[ClientProcess]:
    with ClientProcess(_lab.client, group.directory) as process:
        yield process


@dataclass
class Proxy:
    """Our side: a listener, and the provider that sends connections to it."""

    provider: EbpfProvider
    listener: socket.socket
    space: Namespace

    def accept(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        return sock

    def identify(self, sock: socket.socket) -> RedirectInfo:
        client = Endpoint.of(sock.getpeername())
        return asyncio.run(self.provider.identify(sock, client, 5.0)).info

    def next(self) -> RedirectInfo:
        with self.accept() as sock:
            return self.identify(sock)


def listen(space: Namespace, port: int) -> socket.socket:
    return space.call(
        partial(socket.create_server, backlog=512, dualstack_ipv6=True),
        ("::", port),
        family=socket.AF_INET6,
    )


@contextlib.contextmanager
def proxy(space: Namespace, options: RedirectOptions) -> Iterator[Proxy]:
    listener = listen(space, options.listen.port)
    provider = EbpfProvider(options)
    with listener:
        listener.settimeout(5)
        space.call(provider.install)
        try:
            yield Proxy(provider, listener, space)
        finally:
            provider.remove()


def scoped(group: Group, **changes: object) -> RedirectOptions:
    return replace(OPTIONS, cgroup=group.path, **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def outcome(client: ClientProcess, host: str, port: int, **how: object) -> Iterator[Done]:
    done = client.connect(host, port, **how)
    with done.sock:
        yield done


def captured(proxy: Proxy, client: ClientProcess, host: str, port: int, **how: object) -> bool:
    """Does the connection come to the proxy (True) or to the server?"""
    with outcome(client, host, port, **how) as done:
        assert done.errno == 0
        proxy.listener.setblocking(False)  # a finished connect is in the queue already
        try:
            proxy.listener.accept()[0].close()
        except BlockingIOError:
            return False
        finally:
            proxy.listener.settimeout(5)
        return True


@pytest.fixture(scope="module")
def servers(_lab: Lab) -> Iterator[None]:
    """Something to reach when nothing is captured."""
    with contextlib.ExitStack() as stack:
        for port in (80, 81, 8050):
            stack.enter_context(listen(_lab.server, port))
        yield


@pytest.mark.parametrize("asked", [AWAY_V4, AWAY_V6, MAPPED])
def test_the_destination_and_who_asked_for_it(
    net: Lab, group: Group, client: ClientProcess, asked: str
) -> None:
    with proxy(net.client, scoped(group)) as ours, outcome(client, asked, 80) as done:
        info = ours.next()
        assert info.client == Endpoint.of(done.sock.getsockname())
    assert info.original_dst == Endpoint(asked.removeprefix("::ffff:"), 80)
    who = info.principal
    assert (who.pid, who.uid, who.user) == (client.pid, 0, "root")
    assert who.cgroup == f"/{group.path}"
    assert who.container == ""
    assert who.comm
    assert who.exe is not None
    assert "python" in who.exe
    assert who.confidence is Confidence.EXACT
    assert who.process_start is not None
    assert abs(who.process_start - time.time()) < 600


@pytest.mark.parametrize("asked", [AWAY_V4, AWAY_V6, MAPPED])
def test_the_client_sees_the_address_that_it_asked_for(
    net: Lab, group: Group, client: ClientProcess, asked: str
) -> None:
    with proxy(net.client, scoped(group)) as ours, outcome(client, asked, 80) as done:
        assert done.peer == (asked, 80)
        ours.next()


@pytest.mark.parametrize("asked", [AWAY_V4, AWAY_V6])
def test_the_original_destination_as_netfilter_tells_it(
    net: Lab, group: Group, client: ClientProcess, asked: str
) -> None:
    with (
        proxy(net.client, scoped(group)) as ours,
        outcome(client, asked, 8000),
        ours.accept() as sock,
    ):
        assert original_destination(sock) == Endpoint(asked, 8000)


def test_a_client_that_binds_keeps_its_address(
    net: Lab, group: Group, client: ClientProcess
) -> None:
    with (
        proxy(net.client, scoped(group)) as ours,
        outcome(client, AWAY_V4, 80, bind=(net.client_v4, 0)),
        ours.accept() as sock,
    ):
        info = ours.identify(sock)
        assert info.client.host == net.client_v4
        assert info.original_dst == Endpoint(AWAY_V4, 80)


def test_a_client_bound_to_a_device_does_not_escape(
    net: Lab, group: Group, client: ClientProcess
) -> None:
    device = [socket.SOL_SOCKET, 25, "inside"]  # SO_BINDTODEVICE
    with proxy(net.client, scoped(group)) as ours:
        for host in (AWAY_V4, AWAY_V6):
            with outcome(client, host, 80, options=[device]) as done:
                assert done.errno == 0
                assert ours.next().original_dst == Endpoint(host, 80)


@pytest.mark.skipif(not Path("/proc/sys/net/mptcp/enabled").exists(), reason="kernel has no MPTCP")
def test_multipath_tcp_does_not_escape(net: Lab, group: Group, client: ClientProcess) -> None:
    with (
        proxy(net.client, scoped(group)) as ours,
        outcome(client, AWAY_V4, 80, protocol=262) as done,  # IPPROTO_MPTCP
    ):
        assert done.errno == 0
        info = ours.next()
        assert (info.original_dst, info.principal.pid) == (Endpoint(AWAY_V4, 80), client.pid)


def test_a_direct_connection_is_no_redirected_one(
    net: Lab, group: Group, client: ClientProcess
) -> None:
    with proxy(net.client, scoped(group, include_loopback=True)) as ours:
        for host in ("127.0.0.1", "::1", net.client_v4):
            with outcome(client, host, PORT), pytest.raises(NotRedirected):
                ours.next()


# --- scope


@pytest.mark.usefixtures("servers")
def test_only_what_is_in_scope(net: Lab, group: Group, client: ClientProcess) -> None:
    options = scoped(
        group, exclude=(net.server_v4,), include=("10.0.0.0/8", f"{net.server_v6}/128")
    )
    with proxy(net.client, scoped(group)) as ours:
        assert captured(ours, client, net.server_v4, 80)
        assert captured(ours, client, net.server_v4, 8050)
        assert not captured(ours, client, net.server_v4, 81)
        ours.provider.change(options)  # while it runs
        assert not captured(ours, client, net.server_v4, 80)
        assert captured(ours, client, net.server_v6, 80)
        ours.provider.change(replace(options, ports=(PortRange(81, 81),)))
        assert not captured(ours, client, net.server_v6, 80)
        assert captured(ours, client, net.server_v6, 81)
        ours.provider.change(replace(options, ipv6=False))
        assert not captured(ours, client, net.server_v6, 80)
        ours.provider.change(scoped(group, include=("192.0.2.0/24",)))
        assert not captured(ours, client, net.server_v4, 80)


def test_what_cannot_change_while_it_runs_is_refused(net: Lab, group: Group) -> None:
    with proxy(net.client, scoped(group)) as ours:
        with pytest.raises(RedirectError, match=r"redirect\.listen cannot change"):
            ours.provider.change(scoped(group, listen=Endpoint("::", PORT + 1)))


@pytest.mark.usefixtures("servers")
def test_only_one_users_connections(net: Lab, group: Group, client: ClientProcess) -> None:
    with (
        proxy(net.client, scoped(group, uid=65534)) as ours,
        ClientProcess(net.client, group.directory, uid=65534) as other,
    ):
        assert not captured(ours, client, net.server_v4, 80)
        with outcome(other, net.server_v4, 80):
            info = ours.next()
        assert (info.principal.pid, info.principal.uid) == (other.pid, 65534)
        assert info.principal.user == "nobody"


@pytest.mark.usefixtures("servers")
def test_who_is_exempt(net: Lab, group: Group, client: ClientProcess) -> None:
    """Marked sockets, exempt cgroups with all below them, and this very process."""
    inner = group.directory / "inner" / "most"
    inner.mkdir(parents=True)
    mark = [socket.SOL_SOCKET, SO_MARK, OPTIONS.mark]
    other = [socket.SOL_SOCKET, SO_MARK, OPTIONS.mark + 1]
    options = scoped(group, exempt_cgroups=(f"{group.path}/inner",))
    with proxy(net.client, options) as ours, ClientProcess(net.client, inner) as nested:
        assert captured(ours, client, net.server_v4, 80, options=[other])
        assert not captured(ours, client, net.server_v4, 80, options=[mark])
        assert not captured(ours, nested, net.server_v6, 80)
        ours.provider.change(scoped(group))
        assert captured(ours, nested, net.server_v6, 80)
    inner.rmdir()
    inner.parent.rmdir()


@pytest.mark.usefixtures("servers")
def test_the_proxys_own_process_is_exempt(net: Lab) -> None:
    """Without a mark, and although the whole hierarchy is captured in this namespace."""
    with proxy(net.client, OPTIONS) as ours, ClientProcess(net.client) as other:
        with net.client.call(socket.create_connection, (net.server_v4, 80), 5) as sock:
            assert sock.getpeername() == (net.server_v4, 80)
        assert captured(ours, other, net.server_v4, 80)


def test_this_machines_own_addresses_only_if_asked(
    net: Lab, group: Group, client: ClientProcess
) -> None:
    with (
        net.client.call(socket.create_server, (net.client_v4, 80)),
        net.client.call(socket.create_server, ("127.0.0.1", 80)),
        proxy(net.client, scoped(group)) as ours,
    ):
        for host in (net.client_v4, "127.0.0.1"):
            assert not captured(ours, client, host, 80)
        ours.provider.change(scoped(group, include_loopback=True))
        for host in (net.client_v4, "127.0.0.1"):
            assert captured(ours, client, host, 80)


# --- UDP


def test_udp_is_left_alone(net: Lab, group: Group, client: ClientProcess) -> None:
    with (
        proxy(net.client, scoped(group, ports=(PortRange(443, 443),))),
        net.server.call(socket.socket, socket.AF_INET, UDP) as server,
    ):
        server.bind((net.server_v4, 443))
        server.settimeout(5)
        with outcome(client, net.server_v4, 443, type=UDP) as done:
            assert (done.errno, done.peer) == (0, (net.server_v4, 443))
            done.sock.send(b"quic")
            assert server.recv(10) == b"quic"


@pytest.mark.parametrize("sendto", [False, True])
def test_quic_is_refused_where_asked(
    net: Lab, group: Group, client: ClientProcess, sendto: bool
) -> None:
    hosts = [net.server_v4, net.server_v6, f"::ffff:{net.server_v4}"]
    how = {"type": UDP, "sendto": sendto}
    with proxy(net.client, scoped(group, block_quic=True)) as ours:
        for host in hosts:
            with outcome(client, host, 443, **how) as done:
                assert done.errno == errno.EPERM, host
            with outcome(client, host, 53, **how) as done:
                assert done.errno == 0, host
        ours.provider.change(scoped(group, block_quic=True, exclude=(net.server_v4,)))
        with outcome(client, net.server_v4, 443, **how) as done:
            assert done.errno == 0


# --- routes


def test_no_route_means_no_redirect() -> None:
    """A dual-stack client must learn that IPv6 leads nowhere, and when it does again."""
    with namespaces("v4only", "beyond") as (space, beyond), scratch_cgroup() as group:
        link(space, beyond, "out", ("10.9.9.1 10.9.9.2/24",))
        space.run("ip", "route", "add", "default", "via", "10.9.9.2")
        with ClientProcess(space, group.directory) as client, proxy(space, scoped(group)) as ours:
            assert refused_by_routing(client, AWAY_V6)
            with outcome(client, AWAY_V4, 80) as done:
                assert done.errno == 0
                assert ours.next().original_dst.host == AWAY_V4
            space.run("ip", "-6", "route", "add", "default", "dev", "out")
            space.run("ip", "route", "add", "unreachable", "192.0.2.0/24")
            until(lambda: refused_by_routing(client, AWAY_V4))
            until(lambda: not refused_by_routing(client, AWAY_V6))
            assert ours.provider.health().ok


def refused_by_routing(client: ClientProcess, host: str) -> bool:
    with outcome(client, host, 80) as done:
        return done.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


def until(holds: object) -> None:
    """Within seconds: the kernel's word about routes is on its way."""
    assert callable(holds)
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- network namespaces


@pytest.mark.usefixtures("servers")
def test_another_network_namespace_under_the_same_cgroup(net: Lab, group: Group) -> None:
    """Its loopback is another one: left alone, unless it is told how to reach the listener."""
    near_by = (net.client_v4, net.client_v6)
    with (
        proxy(net.client, scoped(group)) as ours,
        ClientProcess(net.router, group.directory) as far,
        ClientProcess(net.client, group.directory) as near,
    ):
        assert not captured(ours, far, net.server_v4, 80)
        assert captured(ours, near, net.server_v4, 80)
        ours.provider.change(scoped(group, foreign=near_by))
        for asked in (AWAY_V4, AWAY_V6, MAPPED):
            for client in (far, near):
                with outcome(client, asked, 80) as done:
                    info = ours.next()
                    assert done.peer == (asked, 80)
                assert info.original_dst == Endpoint(asked.removeprefix("::ffff:"), 80)
                assert info.principal.pid == client.pid
        with net.router.call(socket.create_server, ("127.0.0.1", 80)):
            assert not captured(ours, far, "127.0.0.1", 80)
        with outcome(far, net.client_v4, PORT), pytest.raises(NotRedirected):
            ours.next()
        ours.provider.change(scoped(group, foreign=(net.client_v4,)))
        assert not captured(ours, far, net.server_v6, 80)  # no IPv6 from over there


# --- life and death of connections


def test_a_client_that_is_gone_before_it_is_identified(
    net: Lab, group: Group, client: ClientProcess
) -> None:
    """It connected, wrote and closed before we accepted: its context must not have gone too."""
    with proxy(net.client, scoped(group)) as ours:
        done = client.connect(AWAY_V4, 80)
        done.sock.sendall(b"fire and forget")
        done.sock.close()
        with ours.accept() as sock:
            assert ours.identify(sock).original_dst == Endpoint(AWAY_V4, 80)
            assert sock.recv(100) == b"fire and forget"


def test_a_source_address_outlives_no_connection(
    net: Lab, group: Group, client: ClientProcess
) -> None:
    """Whoever gets the port later and connects to us directly is not taken for the one before."""
    at_once = struct.pack("ii", 1, 0)
    with proxy(net.client, scoped(group)) as ours, ClientProcess(net.client) as stranger:
        done = client.connect(AWAY_V4, 80)
        source = done.sock.getsockname()
        assert ours.next().principal.pid == client.pid
        done.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        done.sock.close()
        reuse = [socket.SOL_SOCKET, socket.SO_REUSEADDR, 1]
        with outcome(stranger, "127.0.0.1", PORT, bind=source, options=[reuse]) as again:
            assert again.errno == 0
            assert again.sock.getsockname() == source
            with pytest.raises(NotRedirected):
                ours.next()


def test_a_socket_that_is_used_again(net: Lab, group: Group, client: ClientProcess) -> None:
    """The same socket asks for another address after one that failed; only the last counts."""
    with proxy(net.client, scoped(group)) as ours:
        ours.listener.close()
        with outcome(client, AWAY_V4, 80) as done:
            assert done.errno == errno.ECONNREFUSED
        with listen(net.client, PORT) as again:
            again.settimeout(5)
            with outcome(client, AWAY_V4, 8080) as done:
                sock, _ = again.accept()
                with sock:
                    assert ours.identify(sock).original_dst == Endpoint(AWAY_V4, 8080)


def test_a_process_that_has_ended(net: Lab, group: Group) -> None:
    with proxy(net.client, scoped(group)) as ours:
        with ClientProcess(net.client, group.directory) as client:
            done = client.connect(AWAY_V4, 80)
        with done.sock:
            who = ours.next().principal
    assert (who.pid, who.uid, who.cgroup) == (client.pid, 0, f"/{group.path}")
    assert who.exe is None
    assert who.confidence is Confidence.LIKELY
