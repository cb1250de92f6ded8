"""The small parts of the flow's shell, each by itself."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from pathlib import Path

import pytest

from proxy.contract import DialFailure
from proxy.flow.dial import DialError, dial, resolve, to_dial_error
from proxy.flow.hangup import HangupWatch
from proxy.flow.stall import Stall
from proxy.model import Direction, Endpoint

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


def test_a_sink_that_takes_nothing_is_stuck_after_the_limit() -> None:
    stall = Stall()
    stall.change(OUT, False, 100.0)
    assert not stall.stuck(105.0, 10.0, lambda _: 500)  # first look: 500 wait
    assert not stall.stuck(114.0, 10.0, lambda _: 500)
    assert stall.stuck(116.0, 10.0, lambda _: 500)


def test_a_sink_that_takes_a_little_is_not_stuck() -> None:
    stall = Stall()
    stall.change(IN, False, 0.0)
    waiting = iter(range(1000, 0, -1))
    assert not any(stall.stuck(now, 2.0, lambda _: next(waiting)) for now in range(0, 100, 5))
    stall.change(IN, True, 100.0)
    assert not stall.stuck(900.0, 2.0, lambda _: 7)


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.ECONNREFUSED, DialFailure.REFUSED),
        (errno.ETIMEDOUT, DialFailure.TIMEOUT),
        (errno.EHOSTUNREACH, DialFailure.UNREACHABLE),
        (errno.ENETUNREACH, DialFailure.UNREACHABLE),
        (errno.EMFILE, DialFailure.OVERLOAD),
        (errno.EADDRNOTAVAIL, DialFailure.OVERLOAD),
    ],
)
def test_errno_becomes_a_dial_failure(number: int, failure: DialFailure) -> None:
    error = to_dial_error(OSError(number, "text"), Endpoint("192.0.2.1", 80))
    assert error.failure is failure
    assert "192.0.2.1:80" in error.detail


async def test_the_local_address_is_known_before_the_connection_is_made() -> None:
    """So that a dial that is redirected back to us is recognised at once."""
    order: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = Endpoint.of(listening.getsockname())
        sock = await dial(
            asyncio.get_running_loop(),
            target,
            lambda s: order.append(f"prepare {s.getsockname()[1] == 0}"),
            lambda s: order.append(f"bound {s.getsockname()[1] != 0}"),
            5.0,
        )
        sock.close()
    assert order == ["prepare True", "bound True"]


async def test_a_socket_that_cannot_be_prepared_is_not_connected() -> None:
    """A provider that cannot set its mark or records must not let the dial go out bare."""

    def refuse(sock: socket.socket) -> None:
        raise PermissionError(errno.EPERM, "no CAP_NET_ADMIN")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        target = Endpoint.of(listening.getsockname())
        with pytest.raises(DialError, match="CAP_NET_ADMIN"):
            await dial(asyncio.get_running_loop(), target, refuse, lambda s: None, 5.0)
        with pytest.raises(BlockingIOError):
            listening.accept()


async def test_names_resolve_to_normalised_addresses_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()

    async def answers(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = ["::ffff:192.0.2.1", "192.0.2.1", "2001:db8::1"]
        return [(0, 0, 0, "", (address, port)) for address in found]

    monkeypatch.setattr(loop, "getaddrinfo", answers)
    found = await resolve(loop, Endpoint("a.test", 80), 1.0)
    assert [str(endpoint) for endpoint in found] == ["192.0.2.1:80", "[2001:db8::1]:80"]


@pytest.mark.skipif(not Path("/proc").exists(), reason="epoll is Linux's")
async def test_a_reset_is_reported_once_while_nobody_reads() -> None:
    watch = HangupWatch.create(asyncio.get_running_loop())
    assert watch is not None
    told: asyncio.Queue[int] = asyncio.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            watch.add(accepted.fileno(), told.put_nowait)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert await asyncio.wait_for(told.get(), 5) == errno.ECONNRESET
            await asyncio.sleep(0.05)
            assert told.empty()
    watch.close()
