"""The words of the house as plain data: endpoints, principals, redirect information, flows.

Imports nothing of ours but the standard library, holds no behaviour beyond parsing and
printing its own values, and is shared by every layer.
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field


class Direction(enum.IntEnum):
    """Which of a flow's two byte streams. The numbers index per-direction lists."""

    OUTBOUND = 0  #: client -> original destination (FWPS_STREAM_FLAG_SEND of the application)
    INBOUND = 1  #: original destination -> client (FWPS_STREAM_FLAG_RECEIVE)

    @property
    def label(self) -> str:
        """The word used in policies, events and metrics."""
        return "outbound" if self is Direction.OUTBOUND else "inbound"

    @property
    def opposite(self) -> Direction:
        return Direction.INBOUND if self is Direction.OUTBOUND else Direction.OUTBOUND


class Layer(enum.StrEnum):
    """Named points at which policy may look, after WFP's where WFP has one."""

    CONNECT_REDIRECT = "connect_redirect"
    AUTH_CONNECT = "auth_connect"
    FLOW_ESTABLISHED = "flow_established"
    STREAM = "stream"
    STREAM_DISCARD = "stream_discard"
    ENDPOINT_CLOSURE = "endpoint_closure"
    TLS_CLIENT_HELLO = "tls_client_hello"
    HTTP_REQUEST = "http_request"
    HTTP_REQUEST_BODY = "http_request_body"
    HTTP_RESPONSE = "http_response"
    HTTP_RESPONSE_BODY = "http_response_body"


class Protocol(enum.StrEnum):
    """What a flow was recognised as, from its own first bytes."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    TLS = "tls"
    SSH = "ssh"
    SMTP = "smtp"
    OPAQUE = "opaque"  #: decided: none of the above
    UNKNOWN = "unknown"  #: not decided (yet, or within the budget)


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def normalise_ip(text: str) -> str:
    """Canonical text of an address: IPv4-mapped IPv6 becomes IPv4, a zone id is dropped.

    Raises ValueError for what is not an address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP endpoint. `host` is a canonical IP address, or a name still to be resolved."""

    host: str
    port: int

    @classmethod
    def of(cls, sockaddr: tuple[object, ...]) -> Endpoint:
        """From a socket's address tuple (2 or 4 items), normalised."""
        return cls(normalise_ip(str(sockaddr[0])), int(str(sockaddr[1])))

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From `host:port` or `[v6]:port`. Raises ValueError with what was expected."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{text!r} is not ADDRESS:PORT (for IPv6: [ADDRESS]:PORT)")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: write an IPv6 address in brackets: [{host}]:{port}")
        try:
            return cls(normalise_ip(host), int(port))
        except ValueError:
            return cls(host, int(port))

    @property
    def ip(self) -> IPAddress | None:
        """The address, or None while `host` is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Confidence(enum.StrEnum):
    """How far a principal may be trusted."""

    EXACT = "exact"  #: captured by the redirector at connect time
    LIKELY = "likely"  #: looked up afterwards; the process may have been replaced
    NONE = "none"


#: What Linux puts behind /proc/PID/exe once the file is unlinked or replaced (proc(5)).
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Principal:
    """The process and user behind a flow. None means unknown, never 'no such process'.

    `container` and `package` are "" where it is known that there is none; they are read from
    the control group, so where that is known and they are None, there is none either.
    """

    pid: int | None = None
    process_start: float | None = None  #: seconds since the epoch
    exe: str | None = None  #: as the system tells it, " (deleted)" included
    uid: int | None = None
    user: str | None = None
    cgroup: str | None = None
    container: str | None = None
    confidence: Confidence = Confidence.NONE
    comm: str | None = None  #: the kernel's short name; a process may choose its own
    package: str | None = None  #: Windows package family; snap:NAME or flatpak:ID

    @property
    def program(self) -> str | None:
        """Where the program's file was when the process began to run it."""
        return self.exe.removesuffix(_DELETED) if self.exe else None

    @property
    def deleted(self) -> bool | None:
        """Whether that file is gone or has been replaced since."""
        return self.exe.endswith(_DELETED) if self.exe else None

    @property
    def name(self) -> str | None:
        """The program's file name; the kernel's short name where the path is unknown."""
        program = self.program
        if program is None:
            return self.comm or None
        return program.rpartition("/" if program.startswith("/") else "\\")[2]


#: Redirect providers whose clients come to the proxy; all others capture connections.
COME_BY_THEMSELVES = frozenset({"explicit", "proxy-protocol", "static"})


@dataclass(frozen=True, slots=True)
class Preamble:
    """What an explicit proxy protocol owes its client once the outcome is known.

    `established` is written when the dial succeeded; `refused` maps a DialFailure value
    (see proxy.contract) to bytes. Empty bytes mean: say nothing.
    """

    established: bytes = b""
    refused: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RedirectInfo:
    """Where a redirected connection was going and who made it (CONNECT_REDIRECT's context)."""

    provider: str
    original_dst: Endpoint
    client: Endpoint
    dst_name: str | None = None  #: the name an explicit client asked for, once it is resolved
    principal: Principal = Principal()
    preamble: Preamble | None = None
    explicit: bool = False  #: HTTP absolute-form is legitimate on this flow
    #: (client, original_dst) are the ends of one real connection. Not so where the destination
    #: is rewritten at connect: there two connections may share the client's port.
    captured: bool = False
    raw_context: bytes = b""
    records: bytes = b""
    redirect_to: Endpoint | None = None  #: policy sends it there instead (connect_redirect)
    loopback: bool | None = None  #: `destination` is this machine itself; None: not looked up

    @property
    def destination(self) -> Endpoint:
        """Where the flow goes: the original destination unless policy has changed it."""
        return self.redirect_to or self.original_dst


@dataclass(slots=True)
class FlowInfo:
    """One flow as policy and records see it. Only its own flow's code changes it."""

    id: str
    redirect: RedirectInfo
    opened_at: float  #: wall clock, seconds since the epoch
    protocol: Protocol = Protocol.UNKNOWN
    sni: str | None = None
    alpn: tuple[str, ...] = ()
    tags: list[str] = field(default_factory=list)
    tunnel: bool = False  #: a protocol with exchanges gave way to bytes (CONNECT, 101)

    def add_tags(self, tags: tuple[str, ...]) -> None:
        """Add tags in order, each once."""
        self.tags.extend(tag for tag in tags if tag not in self.tags)
