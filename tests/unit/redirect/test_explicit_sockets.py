"""The explicit provider on real sockets: reading, time, and what clients are told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import h11
import pytest
import uvloop

from proxy.contract import DialFailure
from proxy.errors import BadPreamble
from proxy.model import Endpoint
from proxy.redirect.explicit import CONNECT_PREAMBLE, ExplicitProvider
from proxy.redirect.provider import Identified

CLIENT = Endpoint("127.0.0.1", 1234)


async def identify(*pieces: bytes, end: bool = False, within: float = 5.0) -> Identified:
    """Send the pieces one by one, each once the one before was taken; then perhaps FIN."""
    client, accepted = socket.socketpair()
    with client, accepted:
        accepted.setblocking(False)
        task = asyncio.create_task(ExplicitProvider().identify(accepted, CLIENT, within))
        for piece in pieces:
            client.send(piece)
            await asyncio.sleep(0)  # let the reader run between pieces
        if end:
            client.shutdown(socket.SHUT_WR)
        return await task


async def test_connect_in_pieces() -> None:
    found = await identify(b"CON", b"NECT a.test:44", b"3 HTTP/1.1\r\nHost: a", b"\r\n\r\n", b"")
    assert found.info.original_dst == Endpoint("a.test", 443)
    assert found.info.preamble == CONNECT_PREAMBLE
    assert not found.info.explicit
    assert found.leftover == b""


async def test_absolute_form_keeps_every_byte() -> None:
    data = b"GET http://a.test:81/x HTTP/1.1\r\nHost: a.test:81\r\n\r\n"
    found = await identify(data)
    assert found.info.original_dst == Endpoint("a.test", 81)
    assert found.info.preamble is None
    assert found.info.explicit
    assert found.leftover == data


async def test_a_request_that_does_not_end_is_answered_408() -> None:
    with pytest.raises(BadPreamble, match=r"within 0\.05 s") as caught:
        await identify(b"CONNECT a.test:443 HTTP/1.1\r\n", within=0.05)
    assert caught.value.reply.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_leaves_in_the_middle_is_answered_400() -> None:
    with pytest.raises(BadPreamble) as caught:
        await identify(b"CONNECT a.test:443 HTTP/1.1\r\n", end=True)
    assert caught.value.reply.startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_leaves_without_a_word_is_answered_nothing() -> None:
    with pytest.raises(BadPreamble) as caught:
        await identify(end=True)
    assert caught.value.reply == b""


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_socket_can_become_a_transport_afterwards(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        client, accepted = socket.socketpair()
        accepted.setblocking(False)
        with client:
            with pytest.raises(BadPreamble):
                await ExplicitProvider().identify(accepted, CLIENT, 0.02)
            client.send(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\n\r\nfirst")
            found = await ExplicitProvider().identify(accepted, CLIENT, 5.0)
            assert found.leftover == b"first"
            client.send(b"second")
            client.shutdown(socket.SHUT_WR)
            reader = asyncio.StreamReader()
            transport, _ = await loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader), accepted
            )
            assert await asyncio.wait_for(reader.read(), 5) == b"second"
            transport.close()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


def test_every_dial_failure_has_an_answer() -> None:
    statuses = {}
    for failure in DialFailure:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="CONNECT", target="a:1", headers=[("Host", "a")]))
        client.receive_data(CONNECT_PREAMBLE.refused[failure.value])
        answer = client.next_event()
        assert isinstance(answer, h11.Response)
        assert dict(answer.headers)[b"proxy-status"].startswith(b"sluicegate; error=")
        statuses[failure] = answer.status_code
    assert statuses == {
        DialFailure.REFUSED: 502,
        DialFailure.UNREACHABLE: 502,
        DialFailure.TIMEOUT: 504,
        DialFailure.RESET: 502,
        DialFailure.DENIED: 403,
        DialFailure.OVERLOAD: 503,
    }


def test_established_is_an_answer_that_opens_a_tunnel() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="CONNECT", target="a:1", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(CONNECT_PREAMBLE.established + b"SSH-2.0")
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    assert answer.status_code == 200
    assert client.their_state is h11.SWITCHED_PROTOCOL
    assert client.trailing_data == (b"SSH-2.0", False)
