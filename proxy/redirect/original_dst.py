"""Ask netfilter where a redirected connection was going: SO_ORIGINAL_DST.

linux/netfilter_ipv4.h and linux/netfilter_ipv6/ip6_tables.h: getsockopt(SOL_IP or SOL_IPV6,
80) answers a sockaddr_in or sockaddr_in6 from the connection tracking entry.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, normalise_ip

# Linux numbers, not the socket module's: it lacks them elsewhere, and tests run anywhere.
SOL_IP, SOL_IPV6 = 0, 41
SO_ORIGINAL_DST = 80
_AF_INET, _AF_INET6 = 2, 10

# Family in host order; port and address in network order.
SOCKADDR_IN = struct.Struct("=H2s4s8x")
SOCKADDR_IN6 = struct.Struct("=H2s4x16s4x")

# ENOENT: no connection tracking entry. ENOPROTOOPT: no connection tracking at all.
_NOT_TRACKED = {errno.ENOENT, errno.ENOPROTOOPT}


def decode_sockaddr(data: bytes) -> Endpoint:
    """A sockaddr_in or sockaddr_in6 as an endpoint, normalised. Raises RedirectError."""
    for layout, family in ((SOCKADDR_IN, _AF_INET), (SOCKADDR_IN6, _AF_INET6)):
        if len(data) == layout.size:
            found, port, address = layout.unpack(data)
            if found == family:
                host = normalise_ip(str(ipaddress.ip_address(address)))
                return Endpoint(host, int.from_bytes(port, "big"))
    raise RedirectError(f"SO_ORIGINAL_DST: {len(data)} bytes that are no socket address")


def original_destination(sock: socket.socket) -> Endpoint:
    """Where the peer of an accepted socket meant to go. Raises NotRedirected, OSError."""
    local = sock.getsockname()
    # A dual-stack listener's socket is AF_INET6 although the packets are IPv4: ask by packets.
    six = ":" in normalise_ip(local[0])
    level, size = (SOL_IPV6, SOCKADDR_IN6.size) if six else (SOL_IP, SOCKADDR_IN.size)
    try:
        original = decode_sockaddr(sock.getsockopt(level, SO_ORIGINAL_DST, size))
    except OSError as error:
        if error.errno in _NOT_TRACKED:
            raise NotRedirected("the kernel has redirected no such connection") from error
        raise
    if original == Endpoint.of(local):
        raise NotRedirected("the client connected to the listener itself")
    return original
