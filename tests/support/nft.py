"""What tests of nftables redirects share: install one, and see where connections arrive."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from proxy.model import Endpoint
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import RedirectOptions
from tests.support.netns import Namespace, connect

PORT = 8080
OPTIONS = RedirectOptions(listen=Endpoint("127.0.0.1", PORT))


@contextlib.contextmanager
def installed(space: Namespace, options: RedirectOptions) -> Iterator[NftProvider]:
    provider = NftProvider(options)
    space.call(provider.install)
    try:
        yield provider
    finally:
        space.call(provider.remove)


async def arrives(
    provider: NftProvider, space: Namespace, listener: socket.socket, host: str, port: int
) -> Endpoint:
    """Connect, take the connection at `listener`, and say where it was going."""
    with connect(space, host, port) as client:
        accepted, address = listener.accept()
        with accepted:
            accepted.setblocking(False)
            assert Endpoint.of(address) == Endpoint.of(client.getsockname())
            found = await provider.identify(accepted, Endpoint.of(address), 1.0)
    assert found.leftover == b""
    assert found.info.provider == "nft"
    return found.info.original_dst


def reaches(space: Namespace, server: socket.socket, host: str, port: int) -> bool:
    """Does a connection made in `space` arrive at the server itself?"""
    with connect(space, host, port) as client:
        server.settimeout(0.0)
        try:
            accepted, address = server.accept()
        except BlockingIOError:
            return False
        with accepted:
            return Endpoint.of(address) == Endpoint.of(client.getsockname())
