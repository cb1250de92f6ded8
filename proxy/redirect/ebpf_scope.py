"""From options to the bytes of the redirector's maps (deploy/redirector/redirect_maps.h). Pure."""

from __future__ import annotations

import enum
import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.options import RedirectOptions

SETTINGS = struct.Struct("=QII4s16s4s16sHHI")
NET4 = struct.Struct("=I4s")
NET6 = struct.Struct("=I16s")
EXEMPT = struct.Struct("=IIQ")
WORD = struct.Struct("=Q")
NUMBER = struct.Struct("=I")
_PORT = struct.Struct("=H")

SETTINGS_KEY = NUMBER.pack(0)
_PORT_WORDS = 1024
_LINK_LOCAL = "fe80::/10"  # RFC 4291 2.4: says nothing without an interface, so not dialled
_PRESENT = NUMBER.pack(1)

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Flag(enum.IntFlag):
    """SG_… of the header."""

    IPV4 = 0x01
    IPV6 = 0x02
    LOCAL = 0x04
    UID = 0x08
    FOREIGN = 0x10
    BLOCK_QUIC = 0x20
    INCLUDE = 0x40
    ROUTES = 0x80
    EXEMPT_GROUPS = 0x100


class Route(enum.IntEnum):
    """Values of the routes tries."""

    NONE = 0
    AWAY = 1
    LOCAL = 2


class Exempt(enum.IntEnum):
    """Kinds of exemption."""

    MARK = 1
    PROCESS = 2
    GROUP = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """The contents of every map that the proxy fills."""

    settings: bytes
    ports: dict[bytes, bytes]
    tries: dict[str, dict[bytes, bytes]] = field(default_factory=dict)


def make_scope(options: RedirectOptions, space: int, *, groups: bool, routes: bool) -> Scope:
    """`space`: cookie of the listener's network namespace; `groups`: there are exempt cgroups;
    `routes`: the routes tries are kept. Raises RedirectError."""
    exclude = networks((*options.exclude, _LINK_LOCAL))
    include = networks(options.include)
    return Scope(
        settings=_settings(options, space, _flags(options, groups=groups, routes=routes)),
        ports=_ports(options),
        tries={
            "exclude4": trie(net for net in exclude if net.version == 4),
            "exclude6": trie(net for net in exclude if net.version == 6),
            "include4": trie(net for net in include if net.version == 4),
            "include6": trie(net for net in include if net.version == 6),
        },
    )


def networks(cidrs: Iterable[str]) -> list[IPNetwork]:
    """As networks; an IPv4-mapped one means IPv4, which it is in the tries."""
    return [_unmapped(ipaddress.ip_network(cidr, strict=False)) for cidr in cidrs]


def trie(nets: Iterable[IPNetwork], value: bytes = _PRESENT) -> dict[bytes, bytes]:
    """Entries of an LPM trie of one family, all with the same value."""
    return {trie_key(net): value for net in nets}


def trie_key(net: IPNetwork) -> bytes:
    """struct bpf_lpm_trie_key: the prefix's length, then the address."""
    layout = NET4 if net.version == 4 else NET6
    return layout.pack(net.prefixlen, net.network_address.packed)


def exempt_key(kind: Exempt, number: int, pid: int = 0) -> bytes:
    """`number`: the mark, the process's start in hundredths of a second, or the cgroup's id."""
    return EXEMPT.pack(kind, pid, number)


def _unmapped(net: IPNetwork) -> IPNetwork:
    if net.version == 6 and net.prefixlen >= 96 and (four := net.network_address.ipv4_mapped):
        return ipaddress.IPv4Network((four, net.prefixlen - 96))
    return net


def _flags(options: RedirectOptions, *, groups: bool, routes: bool) -> Flag:
    chosen = {
        Flag.IPV4: options.ipv4,
        Flag.IPV6: options.ipv6,
        Flag.LOCAL: options.include_loopback,
        Flag.UID: options.uid is not None,
        Flag.FOREIGN: bool(options.foreign),
        Flag.BLOCK_QUIC: options.block_quic,
        Flag.INCLUDE: bool(options.include),
        Flag.ROUTES: routes,
        Flag.EXEMPT_GROUPS: groups,
    }
    flags = Flag(0)
    for flag, wanted in chosen.items():
        if wanted:
            flags |= flag
    return flags


def _settings(options: RedirectOptions, space: int, flags: Flag) -> bytes:
    near4, near6 = near_addresses(options.listen)
    far4, far6 = _far_addresses(options.foreign)
    return SETTINGS.pack(
        space,
        flags,
        options.uid or 0,
        ipaddress.IPv4Address(near4).packed,
        ipaddress.IPv6Address(near6).packed,
        ipaddress.IPv4Address(far4).packed,
        ipaddress.IPv6Address(far6).packed,
        _network_order(options.listen.port),
        _network_order(options.admin.port if options.admin else 0),
        0,
    )


def near_addresses(listen: Endpoint) -> tuple[str, str]:
    """Where this namespace's connections go: the listener's address, or loopback for a wildcard."""
    four, six = "127.0.0.1", "::1"
    if listen.host not in ("0.0.0.0", "::"):
        if ":" in listen.host:
            six = listen.host
        else:
            four = listen.host
    return four, six


def _far_addresses(addresses: tuple[str, ...]) -> tuple[str, str]:
    four, six = "0.0.0.0", "::"
    for address in addresses:
        if ":" in address:
            six = address
        else:
            four = address
    return four, six


def _network_order(port: int) -> int:
    """A port as the kernel's native 16 bits whose bytes are in network order."""
    return int(_PORT.unpack(port.to_bytes(2, "big"))[0])


def _ports(options: RedirectOptions) -> dict[bytes, bytes]:
    words = [0] * _PORT_WORDS
    for ports in options.ports:
        for port in range(ports.first, ports.last + 1):
            words[port >> 6] |= 1 << (port & 63)
    return {NUMBER.pack(number): WORD.pack(word) for number, word in enumerate(words)}


__all__ = [
    "Exempt", "Flag", "RedirectError", "Route", "Scope",
    "exempt_key", "make_scope", "near_addresses", "networks", "trie", "trie_key",
]  # fmt: skip
