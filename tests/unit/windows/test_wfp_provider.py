"""What the Windows providers ask of the settings and of the system, and say of themselves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from proxy.contract import DialFailure
from proxy.errors import RecordsNotSettable, RedirectError, SettingsError, WinApiError
from proxy.flow.dial import DialError, dial, to_dial_error
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.options import RedirectOptions, Unredirected
from proxy.redirect.registry import make_provider
from proxy.redirect.wfp import WfpHnsProvider, WfpProvider
from proxy.service.listener import Listener, open_listener
from proxy.settings import load_settings
from tests.support.completing_loop import CompletingLoop, completing
from tests.support.fake_windows import FakeWindows

EVERYWHERE = RedirectOptions(Endpoint("::", 15001))
BOTH = pytest.mark.parametrize("kind", [WfpProvider, WfpHnsProvider])


@pytest.fixture
def system() -> FakeWindows:
    return FakeWindows()


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.1"])
def test_it_listens_on_the_wildcard(kind: type[WfpProvider], host: str) -> None:
    with pytest.raises(RedirectError, match=r"listen on \[::\]:15001 instead of"):
        kind(RedirectOptions(Endpoint(host, 15001))).install()


@BOTH
def test_both_families_unless_one_is_switched_off(
    kind: type[WfpProvider], system: FakeWindows
) -> None:
    make = partial(kind, libraries=lambda: system.libraries)
    four = Endpoint("0.0.0.0", 15001)
    with pytest.raises(RedirectError, match="takes no IPv6"):
        make(RedirectOptions(four)).install()
    make(RedirectOptions(four, ipv6=False)).install()


@BOTH
def test_elsewhere_than_on_windows_it_cannot_start(kind: type[WfpProvider]) -> None:
    with pytest.raises(RedirectError, match="work on Windows only"):
        make_provider(kind.name, EVERYWHERE).install()


@BOTH
def test_health_tells_of_a_missing_privilege(kind: type[WfpProvider], system: FakeWindows) -> None:
    provider = kind(EVERYWHERE, libraries=lambda: system.libraries)
    assert not provider.health().ok
    provider.install()
    assert provider.health().ok
    system.processes.elevated = False
    assert not provider.health().ok
    assert "need an administrator" in provider.health().detail


def test_a_connection_that_came_without_records_is_not_made(system: FakeWindows) -> None:
    provider = WfpProvider(EVERYWHERE, libraries=lambda: system.libraries)
    info = RedirectInfo("wfp", Endpoint("192.0.2.9", 443), Endpoint("127.0.0.1", 2))
    with socket.socket() as new, pytest.raises(RecordsNotSettable, match="no redirect records"):
        provider.prepare_upstream(new, info)


def test_a_direct_client_has_no_records_and_needs_none(system: FakeWindows) -> None:
    options = RedirectOptions(Endpoint("::", 15001), unredirected=Unredirected.ALLOW)
    provider = WfpProvider(options, libraries=lambda: system.libraries)
    info = RedirectInfo("explicit", Endpoint("192.0.2.9", 443), Endpoint("127.0.0.1", 2))
    with socket.socket() as new:
        provider.prepare_upstream(new, info)
    assert system.calls == []


@pytest.fixture
def accepted(system: FakeWindows) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        system.driver.proxy_port = listener.getsockname()[1]
        with system.driver.connect(("192.0.2.9", 443), 7), listener.accept()[0] as found:
            yield found


async def test_an_error_of_windows_refuses_the_connection(
    system: FakeWindows, accepted: socket.socket
) -> None:
    provider = WfpProvider(EVERYWHERE, libraries=lambda: system.libraries)
    system.winsock.supported = False
    with pytest.raises(WinApiError, match="Windows 8 or Server 2012 is needed"):
        await provider.identify(accepted, Endpoint.of(accepted.getpeername()), 5.0)


async def test_a_slow_domain_controller_does_not_hold_connections(
    system: FakeWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is left out then, what the driver said stays; later the name is known."""
    monkeypatch.setattr("proxy.redirect.wfp._LOOK_UP_SECONDS", 0.02)
    provider = WfpProvider(EVERYWHERE, libraries=lambda: system.libraries)
    system.processes.start(7)
    system.processes.directory.clear()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        system.driver.proxy_port = listener.getsockname()[1]

        async def connect() -> RedirectInfo:
            stack.enter_context(system.driver.connect(("192.0.2.9", 443), 7))
            accepted, address = listener.accept()
            stack.enter_context(accepted)
            return (await provider.identify(accepted, Endpoint.of(address), 5.0)).info

        for _ in range(10):  # more than there are threads for looking up
            found = await connect()
            assert found.original_dst == Endpoint("192.0.2.9", 443)
            assert (found.principal.pid, found.principal.user) == (7, None)
            assert found.principal.confidence == "likely"
        system.processes.directory.set()
        monkeypatch.setattr("proxy.redirect.wfp._LOOK_UP_SECONDS", 10.0)
        found = await connect()
        assert found.principal.user == r"WORKSTATION\alice"
        assert found.principal.confidence == "exact"


# --- settings


def test_a_described_layout_is_checked_with_the_settings() -> None:
    flags = {"redirect.provider": "wfp", "redirect.context_layout": "custom", "listen": "[::]:1"}
    with pytest.raises(SettingsError, match="custom needs its fields"):
        load_settings(environment={}, flags=flags)
    with pytest.raises(SettingsError, match="is not NAME=TYPE@OFFSET"):
        load_settings(environment={}, flags=flags | {"redirect.context_fields": ["x"]})
    with pytest.raises(SettingsError, match="is not one of sluicegate"):
        load_settings(environment={}, flags=flags | {"redirect.context_layout": "x"})
    fields = ["original=sockaddr@0"]
    settings = load_settings(environment={}, flags=flags | {"redirect.context_fields": fields})
    options = settings.redirect_options(Endpoint("::", 1), None)
    assert options.context_fields == ("original=sockaddr@0",)


# --- a loop that completes calls: Windows' Proactor


def run(work: object) -> CompletingLoop:
    with completing() as loop_factory, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)  # type: ignore[arg-type]
        loop = runner.get_loop()
        assert isinstance(loop, CompletingLoop)
        return loop


def test_accepting_without_readiness() -> None:
    """Connections are taken one after the other; an error of one is counted and not the end."""
    taken: list[Endpoint] = []
    errors: list[int] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CompletingLoop)
        failures = [OSError(errno.ECONNABORTED, "gone"), OSError(errno.EMFILE, "no more")]
        real = loop.sock_accept

        async def accept(sock: socket.socket) -> object:
            if failures:
                raise failures.pop(0)
            return await real(sock)

        loop.sock_accept = accept  # type: ignore[method-assign,assignment]
        both = asyncio.Event()

        def accepted(sock: socket.socket, client: Endpoint) -> None:
            assert sock.gettimeout() == 0
            sock.close()
            taken.append(client)
            if len(taken) == 2:
                both.set()

        listening = open_listener(Endpoint("::", 0))
        listener = Listener(loop, [listening], accepted, lambda: errors.append(1))
        listener.start()
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("::1", port)):
            await asyncio.wait_for(both.wait(), 5)
        listener.close()
        assert listening.fileno() < 0

    run(serve())
    assert {client.host for client in taken} == {"127.0.0.1", "::1"}
    assert len(errors) == 2


def test_connecting_without_readiness() -> None:
    """What is prepared is prepared before bind and connect; the address is known after."""
    order: list[str] = []

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CompletingLoop)
        loop.calls = order
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = Endpoint.of(server.getsockname())
            prepare, bound = (lambda sock, w=word: order.append(w) for word in ("prepare", "known"))
            sock = await dial(loop, endpoint, prepare, bound, 5.0)
            assert Endpoint.of(sock.getpeername()) == endpoint
            sock.close()
        with pytest.raises(DialError) as found:
            await dial(loop, endpoint, prepare, bound, 5.0)
        assert found.value.failure is DialFailure.REFUSED

    run(connect())
    assert order[:4] == ["prepare", "bind", "sock_connect", "known"]


@pytest.mark.parametrize(
    ("winerror", "failure"),
    [
        (1225, DialFailure.REFUSED),
        (121, DialFailure.TIMEOUT),
        (64, DialFailure.RESET),
        (10013, DialFailure.DENIED),
        (1231, DialFailure.UNREACHABLE),
    ],
)
def test_what_windows_says_of_a_connect_that_failed(winerror: int, failure: DialFailure) -> None:
    class WindowsError(OSError):
        """OSError has `winerror` on Windows only."""

    error = WindowsError(errno.EINVAL, os.strerror(errno.EINVAL))
    error.winerror = winerror  # type: ignore[attr-defined]
    assert to_dial_error(error, Endpoint("192.0.2.9", 443)).failure is failure
