"""Behind another proxy: whose headers count, and what policy sees of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from proxy.errors import BadPreamble, NotRedirected, RedirectError
from proxy.model import Endpoint
from proxy.redirect.options import RedirectOptions, Unredirected
from proxy.redirect.proxy_protocol import ProxyProtocolProvider
from tests.support.live import ask, live, origin

OPTIONS = RedirectOptions(Endpoint("127.0.0.1", 1), trusted=("10.1.0.0/16", "2001:db8::/32"))
LOCAL = bytes.fromhex("0d0a0d0a000d0a515549540a20000000")
POLICY = """version: 1
policy: behind
description: By the client that the header names.
rules:
  - id: not-that-client
    layer: http_request
    when: {client.ip: 198.51.100.66}
    then: {block: {status: 403}}
"""


async def identify(options: RedirectOptions, peer: str, says: bytes, *, end: bool = False) -> str:
    """Where the flow goes, and what was left; or raises."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(says)
        if end:
            theirs.shutdown(socket.SHUT_WR)
        provider = ProxyProtocolProvider(options)
        found = await provider.identify(ours, Endpoint(peer, 5), 2.0)
        return f"{found.info.provider} {found.info.original_dst} {found.leftover.decode()}"


HEADER = b"PROXY TCP4 1.2.3.4 192.0.2.9 1 80\r\nGET"


@pytest.mark.parametrize("peer", ["10.1.2.3", "2001:db8::5"])
async def test_trusted_peers_name_the_destination(peer: str) -> None:
    assert await identify(OPTIONS, peer, HEADER) == "proxy-protocol 192.0.2.9:80 GET"


@pytest.mark.parametrize("peer", ["10.2.0.1", "127.0.0.1", "2001:db9::1"])
@pytest.mark.parametrize("unredirected", Unredirected)
async def test_everybody_else_is_refused(peer: str, unredirected: Unredirected) -> None:
    options = RedirectOptions(
        OPTIONS.listen, trusted=OPTIONS.trusted, unredirected=unredirected, upstream=OPTIONS.listen
    )
    with pytest.raises(NotRedirected, match="not believed"):
        await identify(options, peer, HEADER)


@pytest.mark.parametrize("says", [LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_a_sender_that_speaks_for_itself(says: bytes) -> None:
    """A health check: refused, or served where settings name an upstream for such clients."""
    with pytest.raises(NotRedirected, match="for itself"):
        await identify(OPTIONS, "10.1.2.3", says)
    serving = RedirectOptions(
        OPTIONS.listen,
        trusted=OPTIONS.trusted,
        unredirected=Unredirected.ALLOW,
        upstream=Endpoint("192.0.2.1", 8080),
    )
    assert await identify(serving, "10.1.2.3", says + b"GET") == "static 192.0.2.1:8080 GET"


@pytest.mark.parametrize(
    ("says", "words"), [(b"", "without a word"), (b"PROXY TCP4 1.2", "inside its PROXY header")]
)
async def test_a_peer_that_leaves_early(says: bytes, words: str) -> None:
    with pytest.raises(BadPreamble, match=words):
        await identify(OPTIONS, "10.1.2.3", says, end=True)


def test_nobody_is_trusted_by_default() -> None:
    with pytest.raises(RedirectError, match=r"redirect\.trusted"):
        ProxyProtocolProvider(RedirectOptions(OPTIONS.listen))


async def test_policy_sees_the_client_and_the_server_the_request(tmp_path: Path) -> None:
    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET /page HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()

    request = b"GET /page HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    settings = {"redirect__provider": "proxy-protocol", "redirect__trusted": ["127.0.0.1"]}
    async with origin(server) as there:
        async with live(tmp_path, None, POLICY, **settings) as service:
            port = there.endpoint.port
            for client, status in (("198.51.100.5", b"200"), ("198.51.100.66", b"403")):
                header = f"PROXY TCP4 {client} 127.0.0.1 40000 {port}\r\n".encode()
                answer = await ask(service, header + request)
                assert answer.split()[1] == status
            itself = f"PROXY TCP4 1.2.3.4 127.0.0.1 4 {service.endpoint.port}\r\n".encode()
            with contextlib.suppress(ConnectionResetError):
                assert await ask(service, itself + request) == b""
        assert there.connections == 1
    flows = service.events("ENDPOINT_CLOSURE")
    assert {flow["source.ip"] for flow in flows} == {"198.51.100.5", "198.51.100.66"}
    assert service.events("CLASSIFY_DROP")[-1]["sluicegate.reason"] == "self"
