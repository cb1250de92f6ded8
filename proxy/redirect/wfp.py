"""Windows: connections that a WFP callout driver has sent to us, at ALE_CONNECT_REDIRECT.

The driver captures; we ask Winsock where an accepted connection was going (its redirect
context, whose layout is the driver's own) and put its redirect records on the connection that
we make for it, so that Windows still sees the original application (learn.microsoft.com:
"Using Bind or Connect Redirection", "Using Proxied Connections Tracking").

INVARIANT: a connection with records serves one client only. There is no pool of upstream
connections here, and if there ever were one, records would have to be part of its key.
Never run on Windows: tested against a fake of Winsock made from the documentation.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial

from proxy.errors import NotRedirected, RecordsNotSettable, RedirectError, WinApiError
from proxy.model import Endpoint, Principal, RedirectInfo, normalise_ip
from proxy.redirect import winapi
from proxy.redirect.context import ContextFlag, RedirectContext
from proxy.redirect.context_layouts import decoder, socket_address
from proxy.redirect.nft import for_direct_clients
from proxy.redirect.options import RedirectOptions
from proxy.redirect.principal_windows import Ends, WindowsPrincipals
from proxy.redirect.provider import Health, Identified
from proxy.redirect.winprocess import Processes
from proxy.redirect.wintcp import Connections

_RECORDS = winapi.SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
_CONTEXT = winapi.SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
#: Who looks a process up longer than this is judged without: a name may be asked far away.
_LOOK_UP_SECONDS = 1.0
_LOOK_UPS_AT_ONCE = 4
# SO_ORIGINAL_DST is documented by its number only, not by its errors.
_NOT_BY_HNS = {winapi.WSAENOPROTOOPT, winapi.WSAEINVAL, winapi.FWP_E_NOT_FOUND}


class _Windows:
    """What both providers share: Windows itself, records, principals, the listener."""

    name = ""

    def __init__(
        self,
        options: RedirectOptions,
        libraries: Callable[[], winapi.Libraries] = winapi.SystemLibraries,
    ) -> None:
        self._options = options
        self._libraries = libraries
        self._direct = for_direct_clients(options)
        self._installed = False
        # Threads of their own: a domain controller that does not answer must not use up those
        # that reload policies. They end with the provider.
        self._lookups = ThreadPoolExecutor(_LOOK_UPS_AT_ONCE, "principal")

    def install(self) -> None:
        """Nothing is captured by us; but what would make every connection fail is told now."""
        _check_listener(self.name, self._options)
        self._installed = self._winsock is not None and self._principals is not None

    def remove(self) -> None:
        """The driver stays as it is."""
        self._installed = False

    def health(self) -> Health:
        if not self._installed:
            return Health(False, "the listener is not in use")
        if not self._processes.elevated():
            why = "redirect records need an administrator: run the proxy elevated, or as a service"
            return Health(False, why)
        return Health(True, f"a driver sends connections to port {self._options.listen.port}")

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        """Windows is told whose connection this is. Raises RecordsNotSettable."""
        if info.provider != self.name:
            return  # a direct client's: Windows has redirected nothing
        if not info.records:
            raise RecordsNotSettable("no redirect records came with the connection")
        try:
            self._winsock.set_records(sock.fileno(), info.records)
        except WinApiError as error:
            raise RecordsNotSettable(str(error)) from error

    @cached_property
    def _winsock(self) -> winapi.Winsock:
        return winapi.Winsock(self._libraries())

    @cached_property
    def _processes(self) -> Processes:
        return Processes(self._libraries())

    @cached_property
    def _principals(self) -> WindowsPrincipals:
        return WindowsPrincipals(self._processes, Connections(self._libraries()))

    def _records(self, sock: socket.socket) -> bytes:
        """Empty when WFP has none; whether that will do is asked before the dial."""
        try:
            return self._winsock.query(sock.fileno(), _RECORDS)
        except WinApiError as error:
            if error.code == winapi.FWP_E_NOT_FOUND:
                return b""
            raise

    async def _principal(
        self, context: RedirectContext, sock: socket.socket, client: Endpoint
    ) -> Principal:
        known = self._principals.known(context)
        if known is not None:
            return known
        ends = Ends(client, Endpoint.of(sock.getsockname()))
        loop = asyncio.get_running_loop()
        look_up = partial(self._principals.look_up, context, ends)
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                return await loop.run_in_executor(self._lookups, look_up)
        except TimeoutError:
            return self._principals.told(context)

    async def _not_redirected(
        self, sock: socket.socket, client: Endpoint, within: float, why: str
    ) -> Identified:
        """On the wildcard address anybody may connect: refused unless settings allow it."""
        if self._direct is None:
            raise NotRedirected(why)
        return await self._direct.identify(sock, client, within)


class WfpProvider(_Windows):
    """Any callout driver: ours, or one whose context we know how to read."""

    name = "wfp"

    def __init__(
        self,
        options: RedirectOptions,
        libraries: Callable[[], winapi.Libraries] = winapi.SystemLibraries,
    ) -> None:
        super().__init__(options, libraries)
        self._decode = decoder(options.context_layout, options.context_fields)

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        try:
            raw = self._winsock.query(sock.fileno(), _CONTEXT)
        except WinApiError as error:
            if error.code != winapi.FWP_E_NOT_FOUND:
                raise
            why = "WFP has redirected no such connection, or its driver attaches no context"
            return await self._not_redirected(sock, client, within, why)
        context = self._decode(raw)
        records = self._records(sock)
        info = RedirectInfo(
            self.name,
            context.original,
            client,
            principal=await self._principal(context, sock, client),
            raw_context=raw,
            records=records,
        )
        return Identified(info)


class WfpHnsProvider(_Windows):
    """The Host Network Service's layer 4 proxy policy (Windows Server 2022), for containers.

    Winsock tells the original destination; there is no context, so the process is looked up in
    the table of connections, which knows those of this machine and not of virtual machines.
    """

    name = "wfp-hns"

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        local = Endpoint.of(sock.getsockname())
        original = self._original(sock, local)
        if original is None or original == local:
            why = "Windows tells no original destination: the client connected by itself"
            return await self._not_redirected(sock, client, within, why)
        records = self._records(sock)
        context = RedirectContext(original, client, 0, 0, None, b"", 0, 0, "", ContextFlag(0))
        principal = await self._principal(context, sock, client)
        info = RedirectInfo(self.name, original, client, principal=principal, records=records)
        return Identified(info)

    def _original(self, sock: socket.socket, local: Endpoint) -> Endpoint | None:
        # A dual-stack listener's socket is AF_INET6 although the packets are IPv4: by packets.
        six = ":" in normalise_ip(local.host)
        try:
            return socket_address(self._winsock.original_destination(sock.fileno(), six=six))
        except WinApiError as error:
            if error.code in _NOT_BY_HNS:
                return None
            raise


def _check_listener(provider: str, options: RedirectOptions) -> None:
    """A driver sends a client to loopback or, if it had bound an address, to that very one."""
    listen = options.listen
    if listen.host not in ("::", "0.0.0.0"):
        raise RedirectError(
            f"{provider} redirects to whatever address a client had bound: listen on "
            f"[::]:{listen.port} instead of {listen}; who was not redirected is refused"
        )
    if options.ipv6 and listen.host == "0.0.0.0":
        raise RedirectError(
            f"{listen} takes no IPv6: listen on [::]:{listen.port}, or set redirect.ipv6 = false"
        )
