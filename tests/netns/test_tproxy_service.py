"""The whole service as a transparent router: HTTP is judged, streams are whole, addresses kept."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.netns import Lab, connect, listening, needs_netns
from tests.support.redirect_verb import get, proxy, refused, routing, web

pytestmark = needs_netns()

_SIZE = 20_000_000
SETTINGS = (
    "--redirect", "tproxy", "--set", "redirect.managed=self", "--set", "redirect.prerouting=inside",
)  # fmt: skip
KEEP = ("--set", "redirect.keep_client_address=true")


@pytest.fixture(autouse=True)
def _nothing_is_left(net: Lab) -> Iterator[None]:
    before = routing(net.router)
    yield
    assert routing(net.router) == before


@pytest.mark.parametrize("keep", [True, False])
def test_requests_are_judged_and_the_server_sees_who_it_should(net: Lab, keep: bool) -> None:
    """Listening on loopback only: nobody reaches the proxy but through the redirect."""
    with web(net.server):
        with proxy(net.router, *SETTINGS, *(KEEP if keep else ())):
            for host, client, router in (
                (net.server_v4, net.client_v4, "10.77.2.1"),
                (f"[{net.server_v6}]", net.client_v6, "fd77:2::1"),
            ):
                for _ in range(5):
                    assert get(net.client, f"http://{host}/") == (200, client if keep else router)
                assert get(net.client, f"http://{host}/admin")[0] == 403
            assert refused(net.client, net.router_v4, 15001)
        assert get(net.client, f"http://{net.server_v4}/admin") == (200, net.client_v4)


def swap(listener: socket.socket, address: str) -> int:
    """Read all, and only then send as much: the number of bytes that came."""
    accepted, peer = listener.accept()
    with accepted:
        accepted.settimeout(20)
        assert peer[0] == address
        size = 0
        while data := accepted.recv(1 << 18):
            size += len(data)
        accepted.sendall(b"\xff" * size)
        return size


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_a_large_transfer_with_a_half_close(net: Lab, family: str) -> None:
    host, address = getattr(net, f"server_{family}"), getattr(net, f"client_{family}")
    with (
        listening(net.server, host, 25) as listener,
        proxy(net.router, *SETTINGS, *KEEP),
        connect(net.client, host, 25) as client,
        ThreadPoolExecutor(1) as server_side,
    ):
        swapped = server_side.submit(swap, listener, address)
        client.settimeout(20)
        client.sendall(b"\xff" * _SIZE)
        client.shutdown(socket.SHUT_WR)
        size = 0
        while data := client.recv(1 << 18):
            size += len(data)
        assert (size, swapped.result(20)) == (_SIZE, _SIZE)


@pytest.mark.parametrize("on_crash", ["open", "closed"])
def test_when_the_proxy_is_killed(net: Lab, on_crash: str) -> None:
    """closed: connections are refused until it is back; open: they pass."""
    crash = ("--set", f"redirect.on_crash={on_crash}")
    with web(net.server):
        with pytest.raises(AssertionError, match="-9"):
            with proxy(net.router, *SETTINGS, *crash, end=signal.SIGKILL):
                assert get(net.client, f"http://{net.server_v4}/admin")[0] == 403
        if on_crash == "closed":
            assert refused(net.client, net.server_v4)
            assert refused(net.client, net.server_v6)
        else:
            assert get(net.client, f"http://{net.server_v4}/admin")[0] == 200
        with proxy(net.router, *SETTINGS, *crash):
            assert get(net.client, f"http://{net.server_v4}/admin")[0] == 403
