"""TPROXY on a router, on the real kernel: what it captures, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from proxy.redirect.tproxy import TproxyProvider, be_transparent
from proxy.service.listener import open_listener
from tests.support.netns import Lab, Namespace, connect, listening, needs_netns
from tests.support.nft import reaches

pytestmark = needs_netns()

PORT = 8080
OPTIONS = RedirectOptions(
    Endpoint("::", PORT),
    prerouting=("inside",),
    ports=tuple(PortRange(port, port) for port in (25, 80, 443)),
)


def routing(space: Namespace) -> list[str]:
    """All policy routing and all rules of a namespace, as text."""
    asked = ("rule", "-6 rule", "route show table all", "-6 route show table all")
    return [*(space.run("ip", *words.split()) for words in asked), space.ruleset()]


@contextlib.contextmanager
def installed(space: Namespace, options: RedirectOptions) -> Iterator[TproxyProvider]:
    """The redirect; nothing of it is left afterwards."""
    before = routing(space)
    provider = TproxyProvider(options)
    space.call(provider.install)
    try:
        yield provider
    finally:
        space.call(provider.remove)
    assert routing(space) == before


@contextlib.contextmanager
def transparent(space: Namespace, host: str = "::", port: int = PORT) -> Iterator[socket.socket]:
    with space.call(open_listener, Endpoint(host, port), be_transparent) as sock:
        sock.settimeout(5)
        yield sock


def arrives(
    net: Lab, provider: TproxyProvider, listener: socket.socket, host: str, port: int
) -> Endpoint:
    """Connect from the client, take it at `listener`, and say where it was going."""
    with connect(net.client, host, port) as client:
        accepted, address = listener.accept()
        with accepted:
            assert Endpoint.of(address) == Endpoint.of(client.getsockname())
            asked = provider.identify(accepted, Endpoint.of(address), 1.0)
            found = net.router.call(asyncio.run, asked)
            client.sendall(b"ping")
            assert accepted.recv(10) == b"ping"
            accepted.sendall(b"pong")
            assert client.recv(10) == b"pong"
    assert found.info.provider == "tproxy"
    return found.info.original_dst


@pytest.mark.parametrize("on_crash", OnCrash)
def test_connections_through_the_router_arrive_as_they_are(net: Lab, on_crash: OnCrash) -> None:
    with (
        installed(net.router, replace(OPTIONS, on_crash=on_crash)) as provider,
        transparent(net.router) as listener,
    ):
        for host in (net.server_v4, net.server_v6):
            for port in (80, 443, 25):
                got = arrives(net, provider, listener, host, port)
                assert got == Endpoint(host, port)
        assert net.router.call(provider.health).ok


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "10.77.1.1", "fd77:1::1"])
def test_the_listener_may_stand_on_any_address(net: Lab, host: str) -> None:
    """On loopback it is out of everybody's reach, and captures all the same."""
    six = ":" in host
    options = replace(OPTIONS, listen=Endpoint(host, PORT), ipv4=not six, ipv6=six)
    target = net.server_v6 if six else net.server_v4
    with (
        installed(net.router, options) as provider,
        transparent(net.router, host) as listener,
    ):
        assert arrives(net, provider, listener, target, 80) == Endpoint(target, 80)


@pytest.mark.parametrize("host", ["server_v4", "server_v6"])
def test_what_is_not_in_its_scope_passes(net: Lab, host: str) -> None:
    address = getattr(net, host)
    back = getattr(net, host.replace("server", "client"))
    excluding = replace(OPTIONS, exclude=("10.77.0.0/16", "fd77:2::/32"))
    elsewhere = replace(OPTIONS, include=("192.0.2.0/24", "2001:db8::/32"))
    with (
        listening(net.server, address, 80) as server,
        listening(net.server, address, 2222) as other,
        listening(net.server, address, PORT) as same_port,
        listening(net.client, back, 80) as inside,
        transparent(net.router),
    ):
        with installed(net.router, OPTIONS):
            assert not reaches(net.client, server, address, 80)
            assert reaches(net.client, other, address, 2222)
            # To the listener's own port on another machine: its wildcard socket is not it.
            assert reaches(net.client, same_port, address, PORT)
            assert reaches(net.server, inside, back, 80)  # not from this interface
        for options in (excluding, elsewhere):
            with installed(net.router, options):
                assert reaches(net.client, server, address, 80)
        assert reaches(net.client, server, address, 80)


def test_connections_older_than_the_redirect_live_on(net: Lab) -> None:
    with (
        listening(net.server, net.server_v4, 80) as server,
        transparent(net.router) as listener,
        connect(net.client, net.server_v4, 80) as old,
        server.accept()[0] as accepted,
    ):
        with installed(net.router, OPTIONS) as provider:
            arrives(net, provider, listener, net.server_v4, 80)
            old.sendall(b"still here")
            assert accepted.recv(100) == b"still here"


def test_a_client_of_the_listener_itself_is_told_apart(net: Lab) -> None:
    everything = replace(OPTIONS, ports=(PortRange(1, 65535),))
    with (
        installed(net.router, everything) as provider,
        transparent(net.router) as listener,
    ):
        for host in (net.router_v4, net.router_v6):
            with pytest.raises(NotRedirected):
                arrives(net, provider, listener, host, PORT)
            with pytest.raises(ConnectionRefusedError):
                connect(net.client, host, 80)  # the router's own addresses are not captured
        host = net.server_v4  # but this is: another machine's port of the same number
        assert arrives(net, provider, listener, host, PORT) == Endpoint(host, PORT)


@pytest.mark.parametrize("host", ["server_v4", "server_v6"])
def test_without_a_listener_closed_refuses(net: Lab, host: str) -> None:
    """TPROXY itself lets pass what nobody listens for."""
    address = getattr(net, host)
    with (
        listening(net.server, address, 80),
        installed(net.router, OPTIONS),
        pytest.raises(ConnectionRefusedError),
    ):
        connect(net.client, address, 80)


# --- the client's address towards the server -------------------------------------------------


def dial(
    net: Lab, provider: TproxyProvider, host: str, client: Endpoint, port: int = 80
) -> socket.socket:
    """As the flow does: from the router, prepared by the provider."""

    def inside() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.settimeout(5)
        try:
            provider.prepare_upstream(
                sock, RedirectInfo("tproxy", Endpoint(host, port), client, captured=True)
            )
            sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    return net.router.call(inside)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_the_server_sees_the_clients_address_when_asked(net: Lab, family: str, keep: bool) -> None:
    host, client, router = (
        getattr(net, f"{who}_{family}") for who in ("server", "client", "router")
    )
    options = replace(OPTIONS, keep_client_address=keep)
    with (
        installed(net.router, options) as provider,
        listening(net.server, host, 80) as server,
        dial(net, provider, host, Endpoint(client, 40000)) as upstream,
    ):
        accepted, address = server.accept()
        with accepted:
            assert (Endpoint.of(address).host == client) is keep
            with ThreadPoolExecutor(1) as server_side:
                sent = server_side.submit(send_and_end, accepted, 3_000_000)
                size = 0
                while data := upstream.recv(1 << 20):
                    size += len(data)
                sent.result(5)
            assert size == 3_000_000
            upstream.sendall(b"after its FIN")
            assert accepted.recv(100) == b"after its FIN"
        assert router != client


def send_and_end(sock: socket.socket, size: int) -> None:
    sock.settimeout(5)
    sock.sendall(bytes(size))
    sock.shutdown(socket.SHUT_WR)


def test_every_connection_of_a_client_has_a_port_of_its_own(net: Lab) -> None:
    """Never one that the client itself would choose."""
    options = replace(OPTIONS, keep_client_address=True)
    with (
        installed(net.router, options) as provider,
        listening(net.server, net.server_v4, 80) as server,
        contextlib.ExitStack() as stack,
    ):
        ports = set()
        for _ in range(100):
            stack.enter_context(dial(net, provider, net.server_v4, Endpoint(net.client_v4, 1)))
            accepted, address = server.accept()
            stack.enter_context(accepted)
            ports.add(address[1])
        assert len(ports) == 100
        assert all(10000 <= port < 32768 for port in ports)


def test_a_server_on_the_router_itself_is_not_shown_a_foreign_address(net: Lab) -> None:
    """Its answers would leave for the client instead of reaching us."""
    options = replace(OPTIONS, keep_client_address=True)
    with (
        installed(net.router, options) as provider,
        listening(net.router, "::", 81) as server,
    ):
        for host in ("127.0.0.1", "::1", net.router_v4, net.router_v6):
            six = ":" in host
            client = Endpoint(net.client_v6 if six else net.client_v4, 1)
            with dial(net, provider, host, client, 81), server.accept()[0] as accepted:
                assert Endpoint.of(accepted.getpeername()).host == host


# --- what it leaves, and what it finds -------------------------------------------------------


@pytest.mark.parametrize("on_crash", OnCrash)
def test_install_and_remove_again_are_harmless(net: Lab, on_crash: OnCrash) -> None:
    before = routing(net.router)
    provider = TproxyProvider(replace(OPTIONS, on_crash=on_crash))
    net.router.call(provider.remove)
    assert not net.router.call(provider.health).ok
    net.router.call(provider.install)
    once = routing(net.router)
    assert once != before
    net.router.call(provider.install)
    assert routing(net.router) == once
    net.router.call(provider.remove)
    net.router.call(provider.remove)
    assert routing(net.router) == before


def test_what_a_dead_proxy_left_is_taken_over(net: Lab) -> None:
    before = routing(net.router)
    net.router.call(TproxyProvider(OPTIONS).install)
    left = routing(net.router)
    second = TproxyProvider(OPTIONS)
    net.router.call(second.install)
    assert routing(net.router) == left
    net.router.call(second.remove)
    assert routing(net.router) == before


NUMBER = 0x53470000 + PORT


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (f"rule add fwmark {NUMBER} lookup 77 priority 9", "fwmark"),
        (f"-6 rule add fwmark {NUMBER} lookup 77 priority 9", "ip -6 rule 9"),
        (f"rule add from 10.9.9.9 lookup {NUMBER} priority 9", "from 10.9.9.9"),
        (f"route add 10.9.9.0/24 dev inside table {NUMBER}", "10.9.9.0/24"),
    ],
)
def test_a_number_that_is_in_use_is_named_and_nothing_is_touched(
    net: Lab, words: str, named: str
) -> None:
    net.router.run("ip", *words.split())
    before = routing(net.router)
    try:
        with pytest.raises(RedirectError, match=named) as caught:
            net.router.call(TproxyProvider(OPTIONS).install)
        assert "redirect.route_mark" in str(caught.value)
        assert routing(net.router) == before
        with installed(net.router, replace(OPTIONS, route_mark=0x1234)):
            assert "0x1234" in net.router.run("ip", "rule")
    finally:
        net.router.run("ip", *words.replace(" add ", " del ").split())


def test_rules_that_could_not_be_made_leave_no_routes(net: Lab) -> None:
    net.router.run("nft", 'add table inet sluicegate_8080 { comment "somebody\'s"; }')
    before = routing(net.router)
    with pytest.raises(RedirectError, match="nft_table"):
        net.router.call(TproxyProvider(OPTIONS).install)
    assert routing(net.router) == before
    net.router.run("nft", "delete table inet sluicegate_8080")


@pytest.mark.parametrize(
    "damage", ["ip rule del priority 530", f"ip -6 route flush table {NUMBER}", "nft flush ruleset"]
)
def test_health_tells_what_is_gone(net: Lab, damage: str) -> None:
    with installed(net.router, OPTIONS) as provider:
        net.router.run(*damage.split())
        health = net.router.call(provider.health)
        assert not health.ok
        assert "removed by somebody else" in health.detail
        net.router.call(provider.install)
        assert net.router.call(provider.health).ok


def test_two_proxies_side_by_side(net: Lab) -> None:
    web = replace(OPTIONS, ports=(PortRange(80, 80),))
    mail = replace(OPTIONS, listen=Endpoint("::", 8025), ports=(PortRange(25, 25),))
    host = net.server_v4
    with (
        installed(net.router, web) as one,
        transparent(net.router) as first,
        transparent(net.router, port=8025) as second,
    ):
        with installed(net.router, mail) as two:
            assert arrives(net, one, first, host, 80) == Endpoint(host, 80)
            assert arrives(net, two, second, host, 25) == Endpoint(host, 25)
        assert arrives(net, one, first, host, 80) == Endpoint(host, 80)


def test_a_listener_that_cannot_be_transparent_says_why(net: Lab) -> None:
    as_nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all")
    said = net.router.run(*as_nobody, sys.executable, "-c", _REFUSED)
    assert "CAP_NET_ADMIN" in said


_REFUSED = """
from proxy.errors import StartError
from proxy.model import Endpoint
from proxy.redirect.registry import listening
from proxy.service.listener import open_listeners
try:
    open_listeners(Endpoint("::", 8080), listening("tproxy"))
except StartError as error:
    print(error)
"""
