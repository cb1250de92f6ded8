"""Routes as rtnetlink tells them."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest

from proxy.redirect.ebpf_scope import Route
from proxy.redirect.netlink_routes import parse_route


def message(family: int, length: int, kind: int, dst: bytes = b"", flags: int = 0) -> bytes:
    attributes = struct.pack("=HHI", 8, 15, 254)  # RTA_TABLE, which is not looked at
    if dst:
        attributes += struct.pack("=HH", 4 + len(dst), 1) + dst
    return struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 2, 0, kind, flags) + attributes


V6 = bytes.fromhex("20010db8") + bytes(12)


@pytest.mark.parametrize(
    ("told", "net", "route"),
    [
        (message(socket.AF_INET, 0, 1), "0.0.0.0/0", Route.AWAY),
        (message(socket.AF_INET, 8, 1, b"\x0a\0\0\0"), "10.0.0.0/8", Route.AWAY),
        (message(socket.AF_INET, 32, 2, b"\x7f\0\0\1"), "127.0.0.1/32", Route.LOCAL),
        (message(socket.AF_INET6, 32, 7, V6), "2001:db8::/32", Route.NONE),
        (message(socket.AF_INET6, 32, 6, V6), "2001:db8::/32", Route.NONE),
        (message(socket.AF_INET6, 0, 1), "::/0", Route.AWAY),
        (message(socket.AF_INET6, 128, 4, V6), "2001:db8::/128", Route.LOCAL),
    ],
)
def test_a_route(told: bytes, net: str, route: Route) -> None:
    assert parse_route(told) == (ipaddress.ip_network(net), route)


def test_what_is_only_remembered_is_no_route() -> None:
    assert parse_route(message(socket.AF_INET6, 128, 1, V6, flags=0x200)) is None
