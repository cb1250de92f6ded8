"""What an nftables redirect captures and what it leaves alone, on the real kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import OnCrash, PortRange, Unredirected
from tests.support.netns import Lab, connect, listening, needs_netns
from tests.support.nft import OPTIONS, PORT, arrives, installed, reaches

pytestmark = needs_netns()

GATEWAY = replace(OPTIONS, listen=Endpoint("::", PORT), output=False, prerouting=("inside",))


@pytest.mark.parametrize("on_crash", OnCrash)
async def test_connections_made_here_are_redirected_and_tell_where_they_were_going(
    net: Lab, on_crash: OnCrash
) -> None:
    with (
        installed(net.client, replace(OPTIONS, on_crash=on_crash)) as provider,
        listening(net.client, "127.0.0.1", PORT) as four,
        listening(net.client, "::1", PORT) as six,
    ):
        for listener, host in ((four, net.server_v4), (six, net.server_v6)):
            for port in (80, 443, 25):
                got = await arrives(provider, net.client, listener, host, port)
                assert got == Endpoint(host, port)


async def test_a_dual_stack_listener_sees_ipv4_destinations_as_ipv4(net: Lab) -> None:
    options = replace(OPTIONS, listen=Endpoint("::", PORT))
    with (
        installed(net.client, options) as provider,
        listening(net.client, "::", PORT) as listener,
    ):
        for host in (net.server_v4, net.server_v6):
            got = await arrives(provider, net.client, listener, host, 80)
            assert got == Endpoint(host, 80)


async def test_a_router_captures_what_arrives_on_its_inside(net: Lab) -> None:
    with (
        installed(net.router, GATEWAY) as provider,
        listening(net.router, "::", PORT) as listener,
    ):
        for host in (net.server_v4, net.server_v6):
            got = await arrives(provider, net.client, listener, host, 80)
            assert got == Endpoint(host, 80)


@pytest.mark.parametrize("host", ["server_v4", "server_v6"])
def test_only_the_inside_interface_is_captured(net: Lab, host: str) -> None:
    address = getattr(net, host.replace("server", "client"))
    with installed(net.router, GATEWAY), listening(net.client, address, 80) as direct:
        assert reaches(net.server, direct, address, 80)


@pytest.mark.parametrize("host", ["server_v4", "server_v6"])
def test_our_own_marked_connections_are_not_redirected(net: Lab, host: str) -> None:
    address = getattr(net, host)
    with installed(net.client, OPTIONS) as provider, listening(net.server, address, 80) as server:

        def dial() -> socket.socket:
            sock = socket.socket(server.family)
            sock.settimeout(5)
            info = RedirectInfo("nft", Endpoint(address, 80), Endpoint("127.0.0.1", 1))
            provider.prepare_upstream(sock, info)
            sock.connect((address, 80))
            return sock

        with net.client.call(dial) as upstream, server.accept()[0] as accepted:
            assert accepted.getpeername() == upstream.getsockname()


@pytest.mark.parametrize("host", ["server_v4", "server_v6"])
def test_unnamed_ports_excluded_networks_and_a_removed_redirect_go_direct(
    net: Lab, host: str
) -> None:
    address = getattr(net, host)
    excluding = replace(OPTIONS, exclude=("10.77.0.0/16", "10.77.2.0/24", "fd77:2::/32"))
    with (
        listening(net.server, address, 80) as server,
        listening(net.server, address, 2222) as other,
    ):
        with installed(net.client, OPTIONS):
            assert reaches(net.client, other, address, 2222)
            with pytest.raises(ConnectionRefusedError):  # captured, and nobody listens
                connect(net.client, address, 80)
        with installed(net.client, excluding):
            assert reaches(net.client, server, address, 80)
        assert reaches(net.client, server, address, 80)


@pytest.mark.parametrize(("four", "six"), [(True, False), (False, True)])
def test_one_family_alone(net: Lab, four: bool, six: bool) -> None:
    options = replace(OPTIONS, ipv4=four, ipv6=six, listen=Endpoint("::", PORT))
    with (
        installed(net.client, options),
        listening(net.server, net.server_v4, 80) as server4,
        listening(net.server, net.server_v6, 80) as server6,
        listening(net.client, "::", PORT),
    ):
        assert reaches(net.client, server4, net.server_v4, 80) is not four
        assert reaches(net.client, server6, net.server_v6, 80) is not six


async def test_this_machines_own_addresses_are_captured_only_when_asked(net: Lab) -> None:
    own = ("127.0.0.1", "::1", net.client_v4, net.client_v6)
    for host in own:
        with installed(net.client, OPTIONS), listening(net.client, host, 80) as direct:
            assert reaches(net.client, direct, host, 80)
    everything = replace(
        OPTIONS,
        listen=Endpoint("::", PORT),
        include_loopback=True,
        ports=(PortRange(1, 65535),),
        admin=Endpoint("127.0.0.1", 9090),
    )
    with (
        installed(net.client, everything) as provider,
        listening(net.client, "::", PORT) as listener,
        listening(net.client, "127.0.0.1", 9090) as admin,
    ):
        for host in own:
            got = await arrives(provider, net.client, listener, host, 80)
            assert got == Endpoint(host, 80)
            with pytest.raises(NotRedirected):
                await arrives(provider, net.client, listener, host, PORT)
        assert reaches(net.client, admin, "127.0.0.1", 9090)


def test_ipv6_link_local_destinations_are_left_alone(net: Lab) -> None:
    """They mean nothing without an interface, and the original destination has none."""
    scope = net.client.call(socket.if_nametoindex, "inside")
    peer = net.router.run("ip", "-6", "-o", "addr", "show", "dev", "inside", "scope", "link")
    address = peer.split()[3].partition("/")[0]
    with installed(net.client, OPTIONS), listening(net.router, "::", 80) as server:

        def dial() -> socket.socket:
            sock = socket.socket(socket.AF_INET6)
            sock.settimeout(5)
            sock.connect((address, 80, 0, scope))
            return sock

        with net.client.call(dial) as client, server.accept()[0] as accepted:
            assert accepted.getpeername()[1] == client.getsockname()[1]


async def test_a_direct_client_is_told_from_a_redirected_one(net: Lab) -> None:
    with (
        installed(net.client, OPTIONS) as provider,
        listening(net.client, "127.0.0.1", PORT) as listener,
        pytest.raises(NotRedirected),
    ):
        await arrives(provider, net.client, listener, "127.0.0.1", PORT)
    allowing = replace(OPTIONS, unredirected=Unredirected.ALLOW, upstream=Endpoint("192.0.2.7", 81))
    with (
        installed(net.client, allowing) as provider,
        listening(net.client, "127.0.0.1", PORT) as listener,
        connect(net.client, "127.0.0.1", PORT) as client,
        listener.accept()[0] as accepted,
    ):
        found = await provider.identify(accepted, Endpoint.of(client.getsockname()), 1.0)
        assert found.info.original_dst == Endpoint("192.0.2.7", 81)
        assert found.info.provider == "static"


async def test_two_proxies_side_by_side(net: Lab) -> None:
    """A table each, and neither captures the other's upstream connections."""
    web = replace(OPTIONS, ports=(PortRange(80, 80),))
    mail = replace(OPTIONS, listen=Endpoint("127.0.0.1", 8025), ports=(PortRange(25, 25),))
    with (
        installed(net.client, web) as one,
        listening(net.client, "127.0.0.1", PORT) as first,
        listening(net.client, "127.0.0.1", 8025) as second,
    ):
        with installed(net.client, mail) as two:
            host = net.server_v4
            assert await arrives(one, net.client, first, host, 80) == Endpoint(host, 80)
            assert await arrives(two, net.client, second, host, 25) == Endpoint(host, 25)
        assert await arrives(one, net.client, first, host, 80) == Endpoint(host, 80)
        assert net.client.call(one.health).ok


# --- whose connections -----------------------------------------------------------------------


def test_only_one_users_connections(net: Lab) -> None:
    nobody = 65534
    with (
        installed(net.client, replace(OPTIONS, uid=nobody)),
        listening(net.server, net.server_v4, 80) as server,
        listening(net.client, "127.0.0.1", PORT) as listener,
    ):
        assert reaches(net.client, server, net.server_v4, 80)
        as_nobody = ("setpriv", f"--reuid={nobody}", "--clear-groups")
        net.client.run(*as_nobody, sys.executable, "-c", _DIAL, net.server_v4)
        accepted, address = listener.accept()
        with accepted:
            assert Endpoint.of(address).host == net.client_v4


_DIAL = """
import socket, sys
socket.create_connection((sys.argv[1], 80), timeout=5).close()
"""


def cgroup_v2() -> Path | None:
    """Where cgroup v2 is mounted and can be written, alone or beside v1."""
    for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (path / "cgroup.controllers").is_file() and os.access(path, os.W_OK):
            return path
    return None


@pytest.fixture
def cgroup() -> Iterator[Path]:
    root = cgroup_v2()
    if root is None:
        pytest.skip("cgroup v2 is not mounted writable")
    path = root / f"sluicegate-test-{os.getpid()}" / "inner"
    path.mkdir(parents=True)
    yield path
    path.rmdir()
    path.parent.rmdir()


def test_only_one_cgroups_connections(net: Lab, cgroup: Path) -> None:
    scope = f"{cgroup.parent.name}/inner"

    def dial() -> None:
        script = f'echo $$ > {cgroup}/cgroup.procs; exec "$@"'
        command = ["sh", "-c", script, "sh", sys.executable, "-c", _DIAL, net.server_v4]
        subprocess.run(command, check=True, timeout=10)

    with (
        installed(net.client, replace(OPTIONS, cgroup=scope)),
        listening(net.server, net.server_v4, 80) as server,
        listening(net.client, "127.0.0.1", PORT) as listener,
    ):
        assert reaches(net.client, server, net.server_v4, 80)
        net.client.call(dial)
        accepted, address = listener.accept()
        with accepted:
            assert Endpoint.of(address).host == net.client_v4


def test_a_cgroup_that_is_not_there_is_refused(net: Lab) -> None:
    provider = NftProvider(replace(OPTIONS, cgroup="no/such.slice"))
    with pytest.raises(RedirectError, match="cgroup"):
        net.client.call(provider.install)


@pytest.mark.parametrize("on_crash", OnCrash)
def test_thousands_of_excluded_networks(net: Lab, on_crash: OnCrash) -> None:
    """One line of 100 kB: more than a pipe or a line editor may like."""
    many = tuple(f"10.{80 + i // 250}.{i % 250}.0/26" for i in range(5000))
    options = replace(OPTIONS, exclude=(*many, "10.77.2.2"), on_crash=on_crash)
    with (
        installed(net.client, options),
        listening(net.server, net.server_v4, 80) as server,
    ):
        assert reaches(net.client, server, net.server_v4, 80)
