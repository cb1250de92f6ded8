"""Another proxy says where its clients were going: PROXY headers from trusted peers.

A load balancer or TPROXY haproxy in front of us (`send-proxy`, `send-proxy-v2`). Whoever may
write such a header chooses the client's address and the destination that policy sees: only
peers within `trusted` are believed, everybody else is refused. Nothing is captured here. The
bytes are parsed in `proxy_header`; here are only the socket and the clock.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from proxy.errors import BadPreamble, NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.options import RedirectOptions, Unredirected
from proxy.redirect.provider import Health, Identified
from proxy.redirect.proxy_header import ProxyHeader, Relayed
from proxy.redirect.static import StaticProvider

_READ_BYTES = 16384


class ProxyProtocolProvider:
    """Clients come through another proxy that names them."""

    name = "proxy-protocol"

    def __init__(self, options: RedirectOptions) -> None:
        if not options.trusted:
            raise RedirectError(
                "provider proxy-protocol must know whose headers to believe: "
                'name networks in redirect.trusted, such as ["10.0.0.5/32"]'
            )
        self._trusted = [ipaddress.ip_network(cidr, strict=False) for cidr in options.trusted]
        allowed = options.unredirected is Unredirected.ALLOW and options.upstream is not None
        self._direct = StaticProvider(options) if allowed else None

    def install(self) -> None:
        """Nothing to do: the other proxy is told to use us."""

    def remove(self) -> None:
        """Nothing to do."""

    def health(self) -> Health:
        names = ", ".join(map(str, self._trusted))
        return Health(True, f"PROXY headers are believed from {names}")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        if not any(client.ip in network for network in self._trusted):
            raise NotRedirected(f"PROXY headers are not believed from {client.host}")
        header = ProxyHeader()
        try:
            async with asyncio.timeout(within):
                relayed = await _read(sock, header)
        except TimeoutError:
            raise BadPreamble(f"no complete PROXY header came within {within:g} s") from None
        if relayed.source is None or relayed.destination is None:
            return await self._identify_sender(sock, client, relayed, within)
        info = RedirectInfo(self.name, relayed.destination, relayed.source)
        return Identified(info, relayed.leftover)

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        """No mark: nothing captures our own connections."""

    async def _identify_sender(
        self, sock: socket.socket, client: Endpoint, relayed: Relayed, within: float
    ) -> Identified:
        """LOCAL and UNKNOWN: the sender's own connection, a health check as a rule."""
        if self._direct is None:
            raise NotRedirected(f"{client.host} speaks for itself and names no destination")
        found = await self._direct.identify(sock, client, within)
        return Identified(found.info, relayed.leftover + found.leftover)


async def _read(sock: socket.socket, header: ProxyHeader) -> Relayed:
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(sock, _READ_BYTES)
        if not data:
            raise BadPreamble(
                "the peer left without a word"
                if header.empty
                else "the connection ended inside its PROXY header"
            )
        relayed = header.feed(data)
        if relayed is not None:
            return relayed
