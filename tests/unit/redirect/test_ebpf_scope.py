"""From options to the bytes of the redirector's maps."""

from __future__ import annotations

import struct

import pytest

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.ebpf_scope import Flag, make_scope, near_addresses, networks, trie_key
from proxy.redirect.options import PortRange, RedirectOptions

LISTEN = Endpoint("::", 15001)


def settings_of(options: RedirectOptions, **known: bool) -> tuple[object, ...]:
    scope = make_scope(options, 77, groups=known.get("groups", False), routes=True)
    return struct.unpack("=QII4s16s4s16s2s2sI", scope.settings)


def test_settings() -> None:
    options = RedirectOptions(
        LISTEN, admin=Endpoint("127.0.0.1", 15021), uid=1000, foreign=("10.0.0.1", "fd00::1"),
        block_quic=True, include=("10.0.0.0/8",), include_loopback=True,
    )  # fmt: skip
    space, flags, uid, near4, near6, far4, far6, port, admin, reserved = settings_of(options)
    assert (space, uid, reserved) == (77, 1000, 0)
    assert flags == ~Flag.EXEMPT_GROUPS & sum(Flag)
    assert (near4, near6) == (b"\x7f\0\0\1", bytes(15) + b"\1")
    assert (far4, far6) == (b"\x0a\0\0\1", b"\xfd\0" + bytes(13) + b"\1")
    assert (port, admin) == ((15001).to_bytes(2, "big"), (15021).to_bytes(2, "big"))


def test_what_is_not_asked_for_is_off() -> None:
    _, flags, uid, _, _, far4, far6, _, admin, _ = settings_of(RedirectOptions(LISTEN, ipv6=False))
    assert flags == Flag.IPV4 | Flag.ROUTES
    assert (uid, far4, far6, admin) == (0, bytes(4), bytes(16), bytes(2))


@pytest.mark.parametrize(
    ("host", "near"),
    [
        ("127.0.0.1", ("127.0.0.1", "::1")),
        ("0.0.0.0", ("127.0.0.1", "::1")),
        ("10.0.0.1", ("10.0.0.1", "::1")),
        ("fd00::1", ("127.0.0.1", "fd00::1")),
    ],
)
def test_where_connections_are_sent(host: str, near: tuple[str, str]) -> None:
    assert near_addresses(Endpoint(host, 1)) == near


def test_ports_are_bits() -> None:
    options = RedirectOptions(
        LISTEN, ports=(PortRange(1, 1), PortRange(62, 65), PortRange(65535, 65535))
    )
    words = make_scope(options, 0, groups=False, routes=False).ports
    found = {
        64 * struct.unpack("=I", key)[0] + bit
        for key, value in words.items()
        for bit in range(64)
        if struct.unpack("=Q", value)[0] >> bit & 1
    }
    assert found == {1, 62, 63, 64, 65, 65535}
    assert len(words) == 1024


def test_networks() -> None:
    options = RedirectOptions(
        LISTEN, exclude=("10.1.2.3/8", "2001:db8::/32", "::ffff:192.0.2.0/120")
    )
    tries = make_scope(options, 0, groups=False, routes=False).tries
    assert set(tries["exclude4"]) == {
        struct.pack("=I4s", 8, b"\x0a\0\0\0"), struct.pack("=I4s", 24, b"\xc0\0\2\0")
    }  # fmt: skip
    (link_local,) = networks(["fe80::/10"])
    assert set(tries["exclude6"]) == {
        trie_key(link_local),
        trie_key(networks(["2001:db8::/32"])[0]),
    }
    assert tries["include4"] == tries["include6"] == {}


@pytest.mark.parametrize(
    ("addresses", "complaint"),
    [
        (("x",), "'x' is not an IP address"),
        (("10.0.0.1", "10.0.0.2"), "at most one IPv4"),
    ],
)
def test_foreign_addresses_are_checked(addresses: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(RedirectError, match=complaint):
        RedirectOptions(LISTEN, foreign=addresses)
