"""TPROXY for IPv4 and IPv6: a router takes connections that pass through it, as they are.

Nothing is translated: the accepted socket's own address is where the client was going. With
`keep_client_address` the server sees the client's address, too. Linux, root (or CAP_NET_ADMIN).
What is captured arrives on the interfaces of `prerouting`; connections of this machine itself
are for the providers nft and ebpf. Follows ip(7) (IP_TRANSPARENT) and the kernel's tproxy.rst.
"""

from __future__ import annotations

import errno
import itertools
import random
import socket
import time

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.guards import local_addresses
from proxy.redirect.nft import check_mark, for_direct_clients, set_mark
from proxy.redirect.nft_table import NftTable
from proxy.redirect.options import RedirectOptions
from proxy.redirect.provider import Health, Identified
from proxy.redirect.tproxy_routes import PolicyRoutes
from proxy.redirect.tproxy_rules import tproxy_line

# linux/in.h, linux/in6.h; the socket module has neither.
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_SOL_IP, _SOL_IPV6 = 0, 41
_ADDRESSES_SECONDS = 5.0
# Ports towards the server, when the address is the client's: below those that Linux (32768),
# Windows and macOS (49152) choose for themselves, so that the client's own connections to the
# same server differ from ours, for connection tracking and for our own loop guard.
_SOURCE_PORTS = range(10000, 32768)
_TRIES = 256


def be_transparent(sock: socket.socket) -> None:
    """Let a socket have an address that is not this machine's. Before bind. Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(_SOL_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(_SOL_IP, _IP_TRANSPARENT, 1)


class TproxyProvider:
    """The redirect is a table of nftables with a routing table behind it."""

    name = "tproxy"

    def __init__(self, options: RedirectOptions) -> None:
        self._options = options
        self._table = NftTable(options.table, options.on_crash)
        wanted = (("-4", options.ipv4), ("-6", options.ipv6))
        self._routes = PolicyRoutes(options.route_table, tuple(f for f, want in wanted if want))
        self._direct = for_direct_clients(options)
        self._own = _OwnAddresses()
        self._ports = itertools.cycle(_SOURCE_PORTS)
        # From anywhere: the ports of the proxy that ran before may still be in TIME_WAIT.
        for _ in range(random.randrange(len(_SOURCE_PORTS))):
            next(self._ports)

    def install(self) -> None:
        """Routes, then rules: a packet with our mark must find its way. Raises RedirectError."""
        _check_scope(self._options)
        line = tproxy_line(self._options)
        check_mark(self.name, self._options.mark)
        new = bool(self._routes.missing())
        self._routes.put()
        try:
            self._table.put(line)
        except RedirectError:
            if new and not self._table.ours:  # else a table of ours needs them
                self._routes.remove()
            raise

    def adopt(self) -> None:
        self._table.adopt()

    def remove(self) -> None:
        if self._table.ours:
            self._table.remove()
            self._routes.remove()

    def health(self) -> Health:
        health = self._table.health()
        if not health.ok:
            return health
        try:
            missing = self._routes.missing()
        except RedirectError as error:
            return Health(False, str(error))
        if missing:
            return Health(False, f"removed by somebody else: {missing}")
        return Health(True, f"{health.detail}, routing table {hex(self._options.route_table)}")

    def snapshot(self) -> str:
        missing = self._routes.missing()
        if missing:
            raise RedirectError(f"this is not there: {missing}")
        return self._table.text()

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        original = Endpoint.of(sock.getsockname())
        if original.port == self._options.listen.port and self._own.has(original):
            if self._direct is None:
                raise NotRedirected("the client connected to the listener itself")
            return await self._direct.identify(sock, client, within)
        return Identified(RedirectInfo(self.name, original, client, captured=True))

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        set_mark(sock, self._options)
        if self._keeps_client(info):
            be_transparent(sock)
            self._bind(sock, info.client.host)

    def _keeps_client(self, info: RedirectInfo) -> bool:
        """Not to ourselves: the answers of a server on this machine would go to the client."""
        if not self._options.keep_client_address or info.provider != self.name:
            return False
        to, client = info.original_dst, info.client
        return (":" in to.host) == (":" in client.host) and not self._own.has(to)

    def _bind(self, sock: socket.socket, host: str) -> None:
        """The client's address with a port that is free for it here. Raises OSError."""
        for port in itertools.islice(self._ports, _TRIES):
            try:
                sock.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRNOTAVAIL, f"no port is left for connections as {host}")


class _OwnAddresses:
    """Is an address this machine's? Asks the system again every few seconds."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._fresh_until = float("-inf")

    def has(self, endpoint: Endpoint) -> bool:
        address = endpoint.ip
        if address is None or address.is_loopback or address.is_unspecified:
            return True
        now = time.monotonic()
        if now >= self._fresh_until:
            self._known, self._fresh_until = local_addresses(), now + _ADDRESSES_SECONDS
        return endpoint.host in self._known


def _check_scope(options: RedirectOptions) -> None:
    if not options.prerouting:
        raise RedirectError(
            "tproxy captures what arrives on interfaces: name them in redirect.prerouting; "
            "for this machine's own connections use provider nft or ebpf"
        )
    for name in ("uid", "cgroup", "exempt_uid"):
        if getattr(options, name) is not None:
            raise RedirectError(
                f"redirect.{name} does not fit provider tproxy: what a router forwards was made "
                "by no process of this machine"
            )
