"""What every redirect provider keeps, whatever it is made of. A new provider adds a Case."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from proxy.errors import BadPreamble, NotRedirected, RedirectError
from proxy.model import Endpoint, Principal, RedirectInfo
from proxy.redirect import registry
from proxy.redirect.driver_windows import DriverProvider
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from proxy.redirect.provider import Provider
from proxy.redirect.registry import PROVIDER_NAMES, listening, make_provider
from proxy.redirect.wfp import WfpHnsProvider, WfpProvider
from proxy.service.listener import open_listener
from tests.support.ebpf import ClientProcess, needs_ebpf, pins_may_be_mounted, scratch_cgroup
from tests.support.fake_driver import FakeDriver
from tests.support.fake_windows import FakeWindows
from tests.support.netns import Namespace, link, namespaces, needs_netns

PORT = 18080
UPSTREAM = Endpoint("192.0.2.9", 8443)


@dataclass(frozen=True)
class Case:
    """How a client of this provider behaves, and what must come of it."""

    name: str
    options: RedirectOptions
    says: bytes = b""  #: first bytes of a client, of which `leftover` belong to the flow
    leftover: bytes = b""
    direct: bytes = b""  #: what a client says that was not redirected
    direct_error: type[RedirectError] | None = None  #: None: the provider cannot tell
    redirected: bool = False  #: the client connects to the destination, not to the listener
    silent_error: type[RedirectError] | None = None
    names: Endpoint | None = None  #: what its words say the client is
    routed: bool = False  #: the client is on another machine, and the redirect on its router
    own_process: bool = False  #: the provider tells who connected, and leaves its own process out
    windows: Callable[..., Any] | None = (
        None  #: the provider; the system is tests.support.fake_windows
    )


def with_our_driver(options: RedirectOptions, libraries: Callable[[], Any]) -> Provider:
    """The driver is on the machine, too; there is one."""
    if not hasattr(libraries().load("kernel32"), "DeviceIoControl"):
        FakeDriver(libraries())
    return DriverProvider(options, libraries)


LISTEN = Endpoint("::", PORT)
CASES = {
    "static": Case("static", RedirectOptions(LISTEN, upstream=UPSTREAM)),
    "explicit": Case(
        "explicit",
        RedirectOptions(LISTEN),
        says=b"CONNECT 192.0.2.9:8443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01",
        leftover=b"\x16\x03\x01",
        direct=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        direct_error=BadPreamble,
        silent_error=BadPreamble,
    ),
    "proxy-protocol": Case(
        "proxy-protocol",
        RedirectOptions(LISTEN, trusted=("127.0.0.1", "::1")),
        says=b"PROXY TCP4 198.51.100.7 192.0.2.9 40000 8443\r\n\x16\x03\x01",
        leftover=b"\x16\x03\x01",
        direct=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        direct_error=BadPreamble,
        silent_error=BadPreamble,
        names=Endpoint("198.51.100.7", 40000),
    ),
    "nft": Case(
        "nft",
        RedirectOptions(LISTEN, ports=(PortRange(8443, 8443),)),
        direct_error=NotRedirected,
        redirected=True,
    ),
    "nft-open": Case(
        "nft",
        RedirectOptions(LISTEN, ports=(PortRange(8443, 8443),), on_crash=OnCrash.OPEN),
        direct_error=NotRedirected,
        redirected=True,
    ),
    "tproxy": Case(
        "tproxy",
        RedirectOptions(LISTEN, ports=(PortRange(8443, 8443),), prerouting=("inside",)),
        direct_error=NotRedirected,
        redirected=True,
        routed=True,
    ),
    "ebpf": Case(
        "ebpf",
        RedirectOptions(LISTEN, ports=(PortRange(8443, 8443),)),
        direct_error=NotRedirected,
        redirected=True,
        own_process=True,
    ),
    "ebpf-open": Case(
        "ebpf",
        RedirectOptions(LISTEN, ports=(PortRange(8443, 8443),), on_crash=OnCrash.OPEN),
        direct_error=NotRedirected,
        redirected=True,
        own_process=True,
    ),
    "wfp": Case(
        "wfp",
        RedirectOptions(LISTEN),
        direct_error=NotRedirected,
        redirected=True,
        windows=WfpProvider,
    ),
    "wfp-hns": Case(
        "wfp-hns",
        RedirectOptions(LISTEN),
        direct_error=NotRedirected,
        redirected=True,
        windows=WfpHnsProvider,
    ),
    "wfp-driver": Case(
        "wfp-driver",
        RedirectOptions(LISTEN),
        direct_error=NotRedirected,
        redirected=True,
        windows=with_our_driver,
    ),
}


@dataclass(frozen=True)
class Place:
    """Where the case runs: here, or in a namespace of its own."""

    case: Case
    provider: Provider
    listener: socket.socket
    call: Callable[..., Any]
    client_call: Callable[..., Any]
    pid: int | None = None  #: of the client, where the provider tells it
    records: bytes = b""  #: of some redirected connection, where such a thing is

    def pair(self, host: str, port: int) -> tuple[socket.socket, socket.socket, Endpoint]:
        """(client, accepted and non-blocking, the client's endpoint)."""
        direct = host in ("127.0.0.1", "::1")
        call = self.call if direct else self.client_call
        client = call(socket.create_connection, (host, port), 5)
        accepted, address = self.listener.accept()
        accepted.setblocking(False)
        return client, accepted, Endpoint.of(address)

    def target(self, family: int) -> tuple[str, int]:
        """Where a client of that family connects to."""
        if self.case.redirected:
            return ("192.0.2.9" if family == 4 else "2001:db8::9", 8443)
        return ("127.0.0.1" if family == 4 else "::1", self.listener.getsockname()[1])


def params() -> list[Any]:
    return [pytest.param(name, id=name, marks=marks(case)) for name, case in CASES.items()]


def marks(case: Case) -> list[pytest.MarkDecorator]:
    if not case.redirected or case.windows:
        return []
    return needs_ebpf() if case.own_process else needs_netns()


@pytest.fixture(params=params(), scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    case = CASES[request.param]
    with contextlib.ExitStack() as stack:
        call = client_call = direct_call
        pid = None
        system = FakeWindows()
        if case.windows is not None:
            client_call = system.call
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            make = partial(case.windows, libraries=lambda: system.libraries)
            patch.setitem(registry._PROVIDERS, case.name, make)
        elif case.routed:
            inside, space = stack.enter_context(namespaces("inside", "conform"))
            route_through(space, inside)
            call, client_call = space.call, inside.call
        elif case.redirected:
            (space,) = stack.enter_context(namespaces("conform"))
            route_everywhere(space)
            call = client_call = space.call
        if case.own_process:
            stack.enter_context(pins_may_be_mounted())
            group = stack.enter_context(scratch_cgroup())
            client = stack.enter_context(ClientProcess(space, group.directory))
            client_call, pid = partial(client_call_of, client), client.pid
            case = replace(case, options=replace(case.options, cgroup=group.path))
        port = PORT if case.redirected and case.windows is None else 0
        listener = call(open_listener, Endpoint("::", port), listening(case.name).prepare)
        stack.enter_context(listener)
        listener.settimeout(5)
        system.driver.proxy_port = listener.getsockname()[1]
        records = system.driver.capture(("192.0.2.1", 1), ("192.0.2.9", 8443), 0).records
        provider = make_provider(case.name, case.options)
        call(provider.install)
        yield Place(case, provider, listener, call, client_call, pid, records)
        call(provider.remove)


def direct_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def client_call_of(client: ClientProcess, function: Any, *args: Any) -> socket.socket:
    assert function is socket.create_connection
    return client.create_connection(*args)


def route_everywhere(space: Namespace) -> None:
    """A connection needs a route before its destination can be rewritten."""
    space.run("ip", "route", "add", "default", "dev", "lo")
    space.run("ip", "-6", "route", "add", "default", "dev", "lo")


def route_through(router: Namespace, inside: Namespace) -> None:
    """The client's way to everywhere is the router; the router's own, nowhere."""
    link(inside, router, "inside", ("10.78.1.2 10.78.1.1/24", "fd78:1::2 fd78:1::1/64"))
    inside.run("ip", "route", "add", "default", "via", "10.78.1.1")
    inside.run("ip", "-6", "route", "add", "default", "via", "fd78:1::1")
    router.sysctl("net.ipv4.ip_forward", 1)
    router.sysctl("net.ipv6.conf.all.forwarding", 1)


def test_every_provider_is_here() -> None:
    assert {case.name for case in CASES.values()} == set(PROVIDER_NAMES)


@pytest.mark.parametrize("family", [4, 6])
async def test_identify(place: Place, family: int) -> None:
    """The right destination, IPv4 never written as IPv6, and no byte of the flow lost."""
    client, accepted, endpoint = place.pair(*place.target(family))
    with client, accepted:
        client.sendall(place.case.says)
        found = await place.provider.identify(accepted, endpoint, 5.0)
        host, port = place.target(family) if place.case.redirected else ("192.0.2.9", 8443)
        assert found.info.original_dst == Endpoint(host, port)
        assert endpoint == Endpoint.of(client.getsockname())
        assert found.info.client == (place.case.names or endpoint)
        assert found.info.provider == place.provider.name == place.case.name
        assert found.info.principal.pid == place.pid
        if place.pid is None:
            assert found.info.principal == Principal()
        assert found.leftover == place.case.leftover
        client.sendall(b"more")
        loop = asyncio.get_running_loop()
        assert await asyncio.wait_for(loop.sock_recv(accepted, 100), 5) == b"more"


async def test_two_clients_at_once_are_told_apart(place: Place) -> None:
    pairs = [place.pair(*place.target(family)) for family in (4, 6)]
    for client, _, _ in pairs:
        client.sendall(place.case.says)
    found = await asyncio.gather(
        *(place.provider.identify(accepted, endpoint, 5.0) for _, accepted, endpoint in pairs)
    )
    for (client, accepted, endpoint), one in zip(pairs, found, strict=True):
        assert endpoint == Endpoint.of(client.getsockname())
        assert one.info.client == (place.case.names or endpoint)
        client.close()
        accepted.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_that_was_not_redirected(place: Place, host: str) -> None:
    port = place.listener.getsockname()[1]
    client, accepted, endpoint = place.pair(host, port)
    with client, accepted:
        client.sendall(place.case.direct)
        if place.case.direct_error is None:
            await place.provider.identify(accepted, endpoint, 5.0)
            return
        with pytest.raises(place.case.direct_error):
            await place.provider.identify(accepted, endpoint, 5.0)


async def test_a_silent_client_is_not_waited_for_longer_than_allowed(place: Place) -> None:
    client, accepted, endpoint = place.pair(*place.target(4))
    with client, accepted:
        begin = time.monotonic()
        with contextlib.suppress(place.case.silent_error or AssertionError):
            await place.provider.identify(accepted, endpoint, 0.05)
        assert time.monotonic() - begin < 2.0


async def test_a_client_that_is_gone_is_an_ordinary_error(place: Place) -> None:
    client, accepted, endpoint = place.pair(*place.target(4))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with accepted, contextlib.suppress(RedirectError, OSError):
        await place.provider.identify(accepted, endpoint, 1.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_prepare_upstream_goes_before_connect(place: Place, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ends = Endpoint(host, 1), Endpoint("127.0.0.1", 2)
    info = RedirectInfo(place.provider.name, *ends, records=place.records)
    with (
        place.call(socket.create_server, (host, 0), family=family) as server,
        place.call(socket.socket, family, socket.SOCK_STREAM) as upstream,
    ):
        upstream.settimeout(5)
        place.provider.prepare_upstream(upstream, info)
        upstream.connect(server.getsockname()[:2])
        server.accept()[0].close()


def test_install_and_remove_are_idempotent(place: Place) -> None:
    provider = make_provider(place.case.name, place.case.options)
    place.call(provider.remove)
    place.call(place.provider.install)
    place.call(place.provider.install)
    health = place.call(place.provider.health)
    assert health.ok
    assert health.detail
    place.call(place.provider.remove)
    place.call(place.provider.remove)
    place.call(place.provider.install)
    assert place.call(place.provider.health).ok
