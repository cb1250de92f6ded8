"""What the core tells the accounts: plain records, turned into events and counters there.

The core emits them as values; `proxy.account` alone knows files and metrics. Text from the
wire is carried as it came (bytes or str) and escaped where it is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.limits import Cause, OnException
from proxy.model import Direction, Layer, Protocol


@dataclass(frozen=True, slots=True)
class Decided:
    """A rule that acted, or would have acted (`shadow`)."""

    layer: Layer
    verdict: str  #: permit | block | redirect | redirect_to | respond | edit | tag | log
    rule: str  #: rule id
    policy: str  #: name of the policy file's `policy`
    generation: int
    sublayer: str = "default"
    severity: str = "info"
    tags: tuple[str, ...] = ()
    shadow: bool = False
    veto: bool = False
    reauthorize: bool = False  #: an open connection was judged again
    detail: str = ""
    exchange: int | None = None  #: 1-based number of the exchange in its flow


@dataclass(frozen=True, slots=True)
class Detected:
    protocol: Protocol
    sni: str | None = None
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnomalySeen:
    """A named protocol irregularity and what was done about it."""

    anomaly: str  #: stable id, as in proxy.anomalies
    direction: Direction
    action: str  #: refuse | repair | open
    detail: str = ""
    exchange: int | None = None


@dataclass(frozen=True, slots=True)
class Discarded:
    """Bytes that a callout removed (STREAM_DISCARD)."""

    direction: Direction
    bytes: int
    callout: str


@dataclass(frozen=True, slots=True)
class ExceptionApplied:
    """A row of the exception table was used."""

    cause: Cause
    action: OnException
    callout: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Uninspected:
    """Bytes that passed without a callout having seen them."""

    direction: Direction
    bytes: int
    reason: str  #: permit_ahead | allow_connection | exception_open


@dataclass(frozen=True, slots=True)
class ExchangeEnded:
    """One HTTP exchange, written exactly once, whatever ended it."""

    number: int
    protocol: Protocol
    outcome: str  #: forwarded | blocked | redirected | responded | refused | failed | aborted
    generation: int
    method: bytes = b""
    host: str = ""
    target: bytes = b""
    version: bytes = b""
    status: int | None = None  #: what the client got
    upstream_status: int | None = None
    request_bytes: int = 0  #: body bytes
    response_bytes: int = 0  #: body bytes
    request_content_type: str = ""
    response_content_type: str = ""
    user_agent: bytes = b""
    started: float = 0.0  #: monotonic seconds
    seconds: float = 0.0
    rule: str | None = None  #: the rule that decided, if one did
    rules: tuple[str, ...] = ()  #: every rule that acted
    shadow_rules: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()  #: kinds of edits made
    tags: tuple[str, ...] = ()
    detail: str = ""


Record = (
    Decided | Detected | AnomalySeen | Discarded | ExceptionApplied | Uninspected | ExchangeEnded
)
