"""An explicit HTTP proxy: clients that know of us say where they want to go.

`CONNECT host:port` and absolute-form (`curl -x`). No privileges are needed, and nothing is
captured. The destination may be a name: the dialler resolves it and policy judges every
address. The words are parsed in `explicit_preamble`; here are only the socket and the clock.
"""

from __future__ import annotations

import asyncio
import socket

from proxy.contract import DialFailure
from proxy.errors import BadPreamble
from proxy.model import Endpoint, Preamble, RedirectInfo
from proxy.redirect.explicit_preamble import Asked, ExplicitPreamble, refusal, reply
from proxy.redirect.provider import Health, Identified

_READ_BYTES = 16384

# Status, RFC 9209 2.3 error type of Proxy-Status, and what a person reads.
_REFUSED = {
    DialFailure.REFUSED: (502, "connection_refused", "The destination refused the connection."),
    DialFailure.UNREACHABLE: (502, "destination_unavailable", "There is no way to it."),
    DialFailure.TIMEOUT: (504, "connection_timeout", "The destination did not answer in time."),
    DialFailure.RESET: (502, "connection_terminated", "The destination ended the connection."),
    DialFailure.DENIED: (403, "destination_ip_prohibited", "Policy forbids this destination."),
    DialFailure.OVERLOAD: (503, "connection_limit_reached", "The proxy has no capacity left."),
}

#: What a CONNECT client is told once the dial is over.
CONNECT_PREAMBLE = Preamble(
    established=b"HTTP/1.1 200 Connection established\r\n\r\n",
    refused={
        failure.value: reply(status, text, f"Proxy-Status: sluicegate; error={kind}")
        for failure, (status, kind, text) in _REFUSED.items()
    },
)


class ExplicitProvider:
    """Clients name their destination in HTTP."""

    name = "explicit"

    def install(self) -> None:
        """Nothing to do: clients are told to use the proxy."""

    def remove(self) -> None:
        """Nothing to do."""

    def health(self) -> Health:
        return Health(True, "clients say CONNECT or send absolute URLs")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        preamble = ExplicitPreamble()
        try:
            async with asyncio.timeout(within):
                asked = await _read(sock, preamble)
        except TimeoutError:
            raise refusal(408, f"no complete request came within {within:g} s") from None
        info = RedirectInfo(
            self.name,
            asked.target,
            client,
            preamble=CONNECT_PREAMBLE if asked.connect else None,
            explicit=not asked.connect,
        )
        return Identified(info, asked.leftover)

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        """No mark: nothing captures our own connections."""


async def _read(sock: socket.socket, preamble: ExplicitPreamble) -> Asked:
    loop = asyncio.get_running_loop()
    while True:
        data = await loop.sock_recv(sock, _READ_BYTES)
        if not data:
            if preamble.empty:
                raise BadPreamble("the client left without a word")
            raise refusal(400, "the request ended in the middle of its head")
        asked = preamble.feed(data)
        if asked is not None:
            return asked
