"""Bounds and exception policies as plain frozen data; `settings` fills them in.

Everything that holds bytes or waits takes its maximum from here. Sizes in bytes, times in
seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Cause(enum.StrEnum):
    """Why the normal way of deciding was not possible: the rows of the exception table."""

    PARSE_ERROR = "parse_error"
    BUFFER_LIMIT = "buffer_limit"
    CALLOUT_EXCEPTION = "callout_exception"
    CALLOUT_OVERRUN = "callout_overrun"
    UNDECIDED = "undecided"
    UNINSPECTABLE = "uninspectable"
    UNDECODABLE = "undecodable"
    NO_REDIRECT_INFO = "no_redirect_info"
    RECORDS_NOT_SETTABLE = "records_not_settable"
    OVERLOAD = "overload"


class OnException(enum.StrEnum):
    CLOSED = "closed"  #: the flow (or message) is refused
    OPEN = "open"  #: it goes on uninspected, which is counted and reported


@dataclass(frozen=True, slots=True)
class ExceptionPolicies:
    """One row per Cause; a field's name is the Cause's value."""

    parse_error: OnException = OnException.CLOSED
    buffer_limit: OnException = OnException.CLOSED
    callout_exception: OnException = OnException.CLOSED
    callout_overrun: OnException = OnException.CLOSED
    undecided: OnException = OnException.CLOSED
    uninspectable: OnException = OnException.CLOSED
    undecodable: OnException = OnException.CLOSED
    no_redirect_info: OnException = OnException.CLOSED
    records_not_settable: OnException = OnException.CLOSED
    overload: OnException = OnException.CLOSED

    def action(self, cause: Cause) -> OnException:
        value: OnException = getattr(self, cause.value)
        return value


@dataclass(frozen=True, slots=True)
class Limits:
    """What a flow may hold and how long it may wait."""

    stage_buffer: int = 8 * 1024 * 1024  #: held bytes per stage and direction (WFP: 8 MB)
    process_buffer: int = 256 * 1024 * 1024  #: held bytes of all flows together
    callout_seconds: float = 0.5  #: one classify() call; above it: CALLOUT_OVERRUN
    detect_bytes: int = 4096
    detect_seconds: float = 10.0
    client_hello_bytes: int = 65536
    head_bytes: int = 65536
    head_fields: int = 200
    head_seconds: float = 10.0  #: first byte of a request head to its last (else 408)
    keepalive_seconds: float = 75.0  #: between exchanges
    chunk_line_bytes: int = 256  #: chunk size with its extensions
    trailer_bytes: int = 16384
    sniff_bytes: int = 1445
    sniff_seconds: float = 0.25
    page_bytes: int = 65536
    decode_ratio: int = 100  #: decoded bytes per coded byte, once `decode_ratio_from` is passed
    decode_ratio_from: int = 8 * 1024 * 1024  #: decoded bytes up to which any ratio is fine
    decoded_bytes: int = 0  #: of one body; 0: no maximum (it streams)
    gather_bytes: int = 65536  #: an edited request body up to this keeps a Content-Length
    hold_seconds: float = 1.0  #: how long `block: {hold: ...}` may hold a body back


@dataclass(frozen=True, slots=True)
class FlowTimes:
    """What the shell of a flow waits for."""

    connect_seconds: float = 5.0
    #: Where policy answers requests itself, the dial waits so long for the client's first byte,
    #: and then for bytes that need it. 0: dial at once.
    dial_wait_seconds: float = field(default=0.25, metadata={"zero": True})
    identify_seconds: float = 5.0  #: an explicit client's preamble
    idle_seconds: float = 300.0  #: no byte either way, on flows with exchanges
    opaque_idle_seconds: float = 0.0  #: the same on opaque flows; 0: none, TCP keepalive only
    write_seconds: float = 60.0  #: a peer that takes nothing while bytes wait for it
    linger_seconds: float = 2.0  #: after our last FIN, for the peer's
    drain_seconds: float = 30.0  #: SIGTERM: for exchanges in work


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What the pure half of a flow needs to know of the settings."""

    limits: Limits = field(default_factory=Limits)
    exceptions: ExceptionPolicies = field(default_factory=ExceptionPolicies)
    proxy_id: str = "sluicegate"  #: shown on pages; also the loop marker's value
