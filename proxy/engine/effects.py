"""What the engine asks the shell to do, in order. Plain data; the shell does no judging.

And the indications that are bytes or ends of streams; the rest are `proxy.contract.Signal`s.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.contract import How, Signal
from proxy.model import Direction, Endpoint
from proxy.records import Record

# --- indications ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Data:
    direction: Direction
    data: bytes


@dataclass(frozen=True, slots=True)
class Disconnect:
    """FIN was read from the source of `direction`."""

    direction: Direction


@dataclass(frozen=True, slots=True)
class Abort:
    """RST was read from the source of `direction`."""

    direction: Direction


@dataclass(frozen=True, slots=True)
class StageTimer:
    """A timer set by `SetTimer` has fired."""

    stage: int
    name: str


Indication = Data | Disconnect | Abort | StageTimer | Signal

# --- effects -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write:
    """Send to the sink of `direction` (outbound: the upstream; inbound: the client)."""

    direction: Direction
    data: bytes


@dataclass(frozen=True, slots=True)
class Splice:
    """The next n bytes of `direction` need not be shown to the engine (permit ahead).

    An offer, not a duty: bytes shown all the same pass. None: all that will ever come.
    The shell reports what it moved by `Engine.offloaded`.
    """

    direction: Direction
    n: int | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop reading the source of `direction`."""

    direction: Direction


@dataclass(frozen=True, slots=True)
class Resume:
    direction: Direction


@dataclass(frozen=True, slots=True)
class Finish:
    """FIN to the sink of `direction`, after everything written before."""

    direction: Direction


@dataclass(frozen=True, slots=True)
class End:
    """The flow is over: RST both (RESET), close silently (DROP), or FIN and close (CLOSE)."""

    how: How
    reason: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Leave the upstream, authorise and dial this one; answer by UpstreamConnected/Failed."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class SetTimer:
    stage: int
    name: str
    delay: float | None  #: seconds; None: cancel


@dataclass(frozen=True, slots=True)
class Ask:
    """Run an out-of-band question in a child task; answer by `Engine.resume(id, ...)`."""

    id: int
    question: object
    timeout: float


@dataclass(frozen=True, slots=True)
class Emit:
    record: Record


Effect = Write | Splice | Pause | Resume | Finish | End | Dial | SetTimer | Ask | Emit
