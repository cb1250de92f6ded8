"""The contract between a stream callout and the engine: indications in, verdicts out.

The user-mode twin of FWPS_STREAM_CALLOUT_IO_PACKET0 at FWPM_LAYER_STREAM_V4/V6
(learn.microsoft.com, "Stream inspection"). Plain data and two Protocol classes; the rules
are enforced by `proxy.engine`, not here.

The invariance law: take any trace of both directions with its signals, cut each data item
in any way: output bytes, verdicts and records are equal. Every callout keeps it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.model import Direction, Endpoint, FlowInfo
from proxy.records import Record

# --- registration --------------------------------------------------------------------------


class Kind(enum.StrEnum):
    """FWP_ACTION_CALLOUT_TERMINATING or FWP_ACTION_CALLOUT_INSPECTION of a filter."""

    TERMINATING = "terminating"  #: its verdicts are carried out
    INSPECTION = "inspection"  #: it sees a copy of what passes and cannot change the stream


class Mode(enum.StrEnum):
    """How a callout comes to its verdicts."""

    INLINE = "inline"  #: in classify() itself
    OUT_OF_BAND = "out_of_band"  #: it may `ask` and wait for the Answer


# --- indications ---------------------------------------------------------------------------


@dataclass(slots=True)
class StreamData:
    """What a callout is shown of one direction.

    `data` is what the stage holds followed by what is new. It is read-only, valid during the
    call only (it may be the engine's own buffer), and empty only with `disconnect`.
    """

    direction: Direction
    data: bytes | bytearray
    offset: int  #: absolute offset of data[0] in this stage's input of this direction
    missed_bytes: int  #: bytes that stages above removed from this direction so far
    no_more_data: bool  #: FIN was seen: nothing follows `data`; NeedMoreData is not allowed
    disconnect: bool  #: the empty indication after all data: the FIN itself
    buffer_limit_reached: bool  #: NeedMoreData is not allowed: decide on all of `data`
    now: float  #: monotonic seconds


class DialFailure(enum.StrEnum):
    """Why there is no upstream (any more)."""

    REFUSED = "refused"  #: ECONNREFUSED
    UNREACHABLE = "unreachable"  #: no route, host down, name not resolved
    TIMEOUT = "timeout"  #: no answer within the connect time-out
    RESET = "reset"  #: the upstream ended an established connection with RST
    DENIED = "denied"  #: policy refused the new destination (explicit mode)
    OVERLOAD = "overload"  #: no capacity for another upstream connection


@dataclass(frozen=True, slots=True)
class TimerFired:
    name: str


@dataclass(frozen=True, slots=True)
class UpstreamConnected:
    """The upstream asked for (first dial, or `FlowHandle.dial`) is there."""


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    failure: DialFailure
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """The service is stopping: finish the exchange in work, then close."""


@dataclass(frozen=True, slots=True)
class Overload:
    """The process is short of memory or descriptors: shed this flow's next work."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an out-of-band question came to. `error` is set when it failed or timed out.

    When it failed, `value` is the exception.
    """

    ask_id: int
    value: Any = None
    error: str | None = None


Signal = TimerFired | UpstreamConnected | UpstreamFailed | Drain | Overload | Answer

# --- verdicts ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Permit:
    """The leading n bytes pass; n beyond what was indicated is credit (permit ahead)."""

    n: int


@dataclass(frozen=True, slots=True)
class Block:
    """The leading n bytes leave the stream for ever; stages below see missed_bytes += n."""

    n: int


@dataclass(frozen=True, slots=True)
class Replace:
    """`data` takes the place of the leading n bytes (n = 0 inserts, and must insert something)."""

    n: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NeedMoreData:
    """Call again with at least n additional bytes, at end of stream, or at the limit."""

    n: int = 1


@dataclass(frozen=True, slots=True)
class AllowConnection:
    """Never call this callout again for this flow: everything passes, both directions."""


class How(enum.StrEnum):
    """How a flow is ended."""

    RESET = "reset"  #: RST to both sides
    DROP = "drop"  #: silent to the client: nothing more is sent, then the sockets go
    CLOSE = "close"  #: FIN to both sides after what is already written


@dataclass(frozen=True, slots=True)
class DropConnection:
    how: How = How.RESET


@dataclass(frozen=True, slots=True)
class Defer:
    """Stop reading this direction until `FlowHandle.proceed(direction)`."""


Verdict = Permit | Block | Replace | NeedMoreData | AllowConnection | DropConnection | Defer

PERMIT_FIN = Permit(0)  #: the answer to a `disconnect` indication: let the FIN through

# --- the two sides -------------------------------------------------------------------------


class FlowHandle(Protocol):
    """What a callout may ask of its flow, during classify() and signal() only."""

    info: FlowInfo
    now: float

    def inject(self, direction: Direction, data: bytes) -> None:
        """Add bytes at this stage's output in either direction (FwpsStreamInjectAsync).

        During classify of the same direction they go before what the verdict lets pass.
        """

    def proceed(self, direction: Direction) -> None:
        """Undo Defer (FwpsStreamContinue): what is held is indicated again."""

    def finish(self, direction: Direction) -> None:
        """End this stage's output in `direction` with FIN; its later input there is discarded."""

    def drop(self, how: How = How.RESET) -> None:
        """End the flow (for use in signal(); classify() answers DropConnection)."""

    def set_timer(self, name: str, delay: float | None) -> None:
        """(Re)start the named timer, seconds from now; None stops it. Fires once as TimerFired."""

    def ask(self, question: object, timeout: float) -> int:
        """Put a question to the outside; the answer comes as Answer with the same id."""

    def dial(self, endpoint: Endpoint) -> None:
        """Leave the upstream and dial another one (it is authorised first).

        UpstreamConnected or UpstreamFailed follows; meanwhile outbound bytes wait.
        """

    def emit(self, record: Record) -> None:
        """Hand a record to the accounts."""


class StreamCallout(Protocol):
    """One per flow: the object is the flow context (FwpsFlowAssociateContext)."""

    def classify(self, data: StreamData) -> Verdict:
        """Judge the leading bytes of one direction. Called again until nothing is left."""

    def signal(self, signal: Signal) -> bool:
        """Take note of something that is not bytes. True: 'mine, I answer for it'.

        For UpstreamFailed True keeps the client side open; False lets the flow be reset.
        """

    def closed(self, reason: str) -> None:
        """The flow has ended (flowDeleteFn). Called exactly once; may emit records."""
