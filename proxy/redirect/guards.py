"""Refuse to dial ourselves, whatever the provider said.

Without this, a client that asks for the proxy's own listener makes it connect to itself for
ever, and one that asks for the admin endpoint reaches it from a trusted address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import psutil

from proxy.model import Endpoint, normalise_ip

_REFRESH_SECONDS = 5.0


def own_address(endpoint: Endpoint, own_ports: frozenset[int], local: frozenset[str]) -> bool:
    """Does `endpoint` reach a port of ours on any address of this machine? Pure.

    All local addresses count, not only the one that we listen on: addresses are forwarded
    among each other (REDIRECT, docker's port publishing), and 0.0.0.0 and :: are "this host"
    to connect(2).
    """
    if endpoint.port not in own_ports:
        return False
    try:
        host = normalise_ip(endpoint.host)
    except ValueError:
        return False  # a name: its addresses are checked when it is resolved
    address = Endpoint(host, endpoint.port).ip
    return address is not None and (address.is_loopback or address.is_unspecified or host in local)


def local_addresses() -> frozenset[str]:
    """Canonical addresses of this machine's interfaces (zones dropped)."""
    found = set()
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            try:
                found.add(normalise_ip(address.address))
            except ValueError:
                continue  # a link-layer address
    return frozenset(found)


class SelfGuard:
    """Knows our own endpoints, and the machine's addresses."""

    def __init__(
        self,
        own: Iterable[Endpoint],
        addresses: Callable[[], frozenset[str]] = local_addresses,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ports = frozenset(endpoint.port for endpoint in own if endpoint.port)
        self._addresses = addresses
        self._clock = clock
        self._local: frozenset[str] = frozenset()
        self._fresh_until = float("-inf")

    def check(self, destination: Endpoint) -> str | None:
        """Why `destination` must not be dialled, or None."""
        if destination.port not in self._ports:
            return None
        if own_address(destination, self._ports, self._addresses_now()):
            return f"the destination {destination} is this proxy itself"
        return None

    def is_local(self, destination: Endpoint) -> bool | None:
        """Is it this machine, by loopback or by an address of its own? None for a name."""
        address = destination.ip
        if address is None:
            return None
        if address.is_loopback or address.is_unspecified:
            return True
        return destination.host in self._addresses_now()

    def _addresses_now(self) -> frozenset[str]:
        """As of at most 5 s ago."""
        now = self._clock()
        if now >= self._fresh_until:
            self._local, self._fresh_until = self._addresses(), now + _REFRESH_SECONDS
        return self._local
