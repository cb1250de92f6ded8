"""What a redirect provider is told: where to listen, what to capture, what to leave alone.

Plain frozen data, checked when it is made. `settings` builds one; the scope defaults are a
machine-wide redirect's: named TCP ports, loopback and our own endpoints excluded.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.context_layouts import LAYOUT_NAMES, Field

DEFAULT_MARK = 0x5347  #: "SG"; SO_MARK of our own upstream sockets

_ROUTE_MARK = 0x53470000  #: "SG", then the listener's port: two proxies live side by side
_FIRST_FREE_TABLE = 256  #: below are default, main and local, ip-route(8)
_NUMBER = re.compile(r"[0-9]{1,5}")
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")  # IFNAMSIZ is 16 with the final NUL
_CGROUP = re.compile(r"[\w.:@\\-]+(/[\w.:@\\-]+)*", re.ASCII)  # systemd escapes as \x2d


class OnCrash(enum.StrEnum):
    """What a redirect does when the proxy dies without taking it down."""

    OPEN = "open"  #: it vanishes with the process: connections go out uninspected
    CLOSED = "closed"  #: it stays: captured connections fail until the proxy is back


class Unredirected(enum.StrEnum):
    """What becomes of a client that connected to the listener by itself."""

    REFUSE = "refuse"
    ALLOW = "allow"  #: served as by `static` when an upstream is set, else as by `explicit`


class Managed(enum.StrEnum):
    """Who puts the redirect in place and takes it away."""

    SELF = "self"  #: the proxy: from its start to its drain
    EXTERNAL = "external"  #: `sluicegate redirect up` and `down`, apart from the proxy


class PortRange(NamedTuple):
    """TCP ports, both ends included."""

    first: int
    last: int

    @classmethod
    def parse(cls, value: int | str) -> PortRange:
        """From 80, "80" or "8000-8100". Raises ValueError with what was expected."""
        first, dash, last = str(value).partition("-")
        ends = (first, last if dash else first)
        if all(_NUMBER.fullmatch(end) for end in ends):
            found = cls(*map(int, ends))
            if 1 <= found.first <= found.last <= 65535:
                return found
        raise ValueError(f"{value!r} is not a TCP port (1-65535) or a range such as 8000-8100")

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


#: Mail submission, HTTP and its usual alternates, TLS.
DEFAULT_PORTS = tuple(PortRange(port, port) for port in (25, 80, 443, 587, 8000, 8080))


@dataclass(frozen=True, slots=True)
class RedirectOptions:
    """Everything a provider may need; each provider uses its part. Raises RedirectError."""

    listen: Endpoint
    admin: Endpoint | None = None
    upstream: Endpoint | None = None  #: `static`, and `unredirected: allow`
    unredirected: Unredirected = Unredirected.REFUSE
    on_crash: OnCrash = OnCrash.CLOSED
    managed: Managed = Managed.SELF
    mark: int = DEFAULT_MARK
    ports: tuple[PortRange, ...] = DEFAULT_PORTS
    ipv4: bool = True
    ipv6: bool = True
    include: tuple[str, ...] = ()  #: only these destinations are captured (CIDRs); empty: all
    exclude: tuple[str, ...] = ()  #: CIDRs that are never captured
    include_loopback: bool = False  #: capture connections to this machine's own addresses too
    uid: int | None = None  #: only connections made by this user
    cgroup: str | None = None  #: only connections made in this cgroup v2 path (and below)
    exempt_cgroups: tuple[str, ...] = ()  #: `ebpf`: never those of these cgroups (and below)
    foreign: tuple[str, ...] = ()  #: `ebpf`: where other network namespaces reach the listener
    block_quic: bool = False  #: `ebpf`: refuse UDP/443, so that browsers fall back to TCP
    exempt_uid: int | None = None  #: a proxy of this user needs no mark (never root)
    output: bool = True  #: connections made on this machine
    prerouting: tuple[str, ...] = ()  #: connections that arrive on these interfaces (a router)
    nft_table: str = ""  #: empty: sluicegate_<listener's port>
    route_mark: int = 0  #: `tproxy`: mark and routing table; 0: 0x53470000 + listener's port
    keep_client_address: bool = False  #: `tproxy`: the server sees the client's own address
    trusted: tuple[str, ...] = ()  #: `proxy-protocol`: who may say where connections go (CIDRs)
    context_layout: str = "sluicegate"  #: `wfp`: whose redirect contexts the driver attaches
    context_fields: tuple[str, ...] = ()  #: `wfp`: of the layout `custom`, NAME=TYPE@OFFSET

    def __post_init__(self) -> None:
        for name in ("include", "exclude", "trusted"):
            for cidr in getattr(self, name):
                _check_cidr(name, cidr)
        for interface in self.prerouting:
            _check(_INTERFACE, interface, "an interface name")
        if self.cgroup is not None:
            _check(_CGROUP, self.cgroup, "a cgroup v2 path such as system.slice/app.service")
        for cgroup in self.exempt_cgroups:
            _check(_CGROUP, cgroup, "a cgroup v2 path such as system.slice/app.service")
        _check_foreign(self.foreign)
        if self.nft_table:
            _check(_TABLE_NAME, self.nft_table, "a table name (letters, digits, _)")
        if self.context_layout not in LAYOUT_NAMES:
            raise RedirectError(f"{self.context_layout!r} is not one of {', '.join(LAYOUT_NAMES)}")
        for text in self.context_fields:
            Field.parse(text)
        if not self.ports:
            raise RedirectError("ports: name at least one port to capture")
        if not 0 < self.mark < 2**32:
            raise RedirectError(f"mark {self.mark} is not within 1..0xffffffff")
        if not 0 <= self.route_mark < 2**32 or 0 < self.route_mark < _FIRST_FREE_TABLE:
            raise RedirectError(f"route_mark {self.route_mark} is not within 256..0xffffffff")
        if self.exempt_uid == 0:
            raise RedirectError("exempt_uid: root's connections are not exempt; name another user")

    @property
    def table(self) -> str:
        """The nftables table's name, one per listener, so that two proxies live side by side."""
        return self.nft_table or f"sluicegate_{self.listen.port}"

    @property
    def route_table(self) -> int:
        """`tproxy`: the mark of captured packets, and the routing table that delivers them."""
        return self.route_mark or _ROUTE_MARK + self.listen.port


def _check(pattern: re.Pattern[str], value: str, expected: str) -> None:
    # These values are written into an nft script: nothing but names may get there.
    parts = value.split("/")
    if not pattern.fullmatch(value) or "." in parts or ".." in parts:
        raise RedirectError(f"{value!r} is not {expected}")


def _check_cidr(name: str, cidr: str) -> None:
    try:
        ipaddress.ip_network(cidr, strict=False)
    except ValueError as error:
        raise RedirectError(f"{name}: {cidr!r} is not a network: {error}") from None


def _check_foreign(addresses: tuple[str, ...]) -> None:
    """At most one address of each family."""
    families = []
    for address in addresses:
        try:
            families.append(ipaddress.ip_address(address).version)
        except ValueError:
            raise RedirectError(f"foreign: {address!r} is not an IP address") from None
    if len(set(families)) < len(families):
        raise RedirectError("foreign: name at most one IPv4 and one IPv6 address")
