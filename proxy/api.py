"""What the author of a callout imports: three kinds of callouts and what they answer.

- A *stream callout* sees raw bytes of both directions as one stage of the waterfall
  (`StreamCallout`, the twin of a callout at FWPM_LAYER_STREAM). One object per flow.
- An *HTTP callout* sees messages: heads, and bodies whole or in pieces. One object per flow.
- A *connection callout* is asked before a flow's destination is dialled. One object for all.

Each is registered in the settings (`[[callouts]]`) by the name of its factory, a class or a
function, which is called with the table `options` of its registration:

    def make(flow: FlowHandle, options: Mapping[str, Any]) -> StreamCallout: ...
    def make(flow: FlowInfo, options: Mapping[str, Any]) -> HttpCallout: ...
    def make(options: Mapping[str, Any]) -> ConnectionCallout: ...

At the start of the service each factory is called once on trial, with a flow that leads
nowhere, so that a mistake is told before there is traffic: raise ValueError for wrong options.

Modes: `inline` callouts have plain methods, called in the flow's own turn: they must be quick.
The methods of `out_of_band` ones are coroutines, run in a task of the flow with a time-out
while the bytes in question wait; the task is cancelled when the flow ends. `proxy.testing`
proves that a callout keeps the contract.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from proxy.contract import (
    PERMIT_FIN,
    AllowConnection,
    Block,
    Defer,
    DropConnection,
    FlowHandle,
    How,
    NeedMoreData,
    Permit,
    Replace,
    Signal,
    StreamCallout,
    StreamData,
    Verdict,
)
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Direction, FlowInfo

__all__ = [
    "PERMIT_FIN",
    "AllowConnection",
    "AsyncStreamCallout",
    "Block",
    "BlockMessage",
    "ConnectionCallout",
    "Defer",
    "Direction",
    "DropConnection",
    "Field",
    "FlowHandle",
    "FlowInfo",
    "Forward",
    "How",
    "HttpAnswer",
    "HttpCallout",
    "Interest",
    "Message",
    "NeedMoreData",
    "Permit",
    "Refuse",
    "Replace",
    "RequestHead",
    "RespondWith",
    "ResponseHead",
    "Signal",
    "StreamBase",
    "StreamCallout",
    "StreamData",
    "Verdict",
]


class StreamBase:
    """What most stream callouts do about signals and the end of the flow: nothing."""

    def signal(self, signal: Signal) -> bool:
        """False: not mine."""
        return False

    def closed(self, reason: str) -> None:
        """The flow has ended."""


class AsyncStreamCallout(Protocol):
    """A stream callout registered `out_of_band`: as `StreamCallout`, but classify() waits.

    It is asked about one indication of a direction at a time; `data.data` stays valid. Any
    verdict but Defer. It has no use of its FlowHandle while it waits: that is for signal().
    A callout that rather calls `FlowHandle.ask` itself has a plain classify() and answers
    Defer until the Answer comes as a signal; any function without arguments that returns an
    awaitable is a question.
    """

    async def classify(self, data: StreamData) -> Verdict:
        """Judge the leading bytes of one direction."""

    def signal(self, signal: Signal) -> bool:
        """As in StreamCallout; its own answers are not shown."""

    def closed(self, reason: str) -> None:
        """The flow has ended, an open question is cancelled."""


class Interest(enum.Flag):
    """What an HTTP callout wants to be asked about."""

    REQUEST = enum.auto()  #: request heads
    RESPONSE = enum.auto()  #: final response heads
    REQUEST_BODY = enum.auto()  #: complete request bodies up to `body_bytes`
    RESPONSE_BODY = enum.auto()
    REQUEST_DATA = enum.auto()  #: request content in pieces as it comes
    RESPONSE_DATA = enum.auto()


@dataclass(frozen=True, slots=True)
class Message:
    """The message that a callout is asked about. `response` is None while there is none."""

    flow: FlowInfo
    exchange: int  #: 1-based number of the exchange in its flow
    request: RequestHead
    response: ResponseHead | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Let the message go on; with a head, that one goes on in its place.

    Of a given head count: path and query of the target, status and reason, and the fields but
    for framing and hop-by-hop ones, which are the proxy's. `skip_body`: this callout does not
    want to see the body of this message.
    """

    head: RequestHead | ResponseHead | None = None
    skip_body: bool = False


@dataclass(frozen=True, slots=True)
class BlockMessage:
    """Refuse it with a page."""

    status: int = 403
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RespondWith:
    """Answer the client with this in the place of the server's response."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


HttpAnswer = Forward | BlockMessage | RespondWith


class HttpCallout(Protocol):
    """Asked about the messages of one flow. Only what `Interest` names is ever called.

    Inline: plain methods. Out of band: coroutine methods of the same names and arguments.
    Contents are without codings and come before the rules of policy for bodies, which judge
    and edit what the callouts made of them. Of parts (206) and of codings that cannot be
    taken off no content is shown: the exception policy `undecodable` decides.
    """

    def request(self, message: Message) -> HttpAnswer | Awaitable[HttpAnswer]:
        """A request head, after policy has permitted and edited it."""

    def response(self, message: Message) -> HttpAnswer | Awaitable[HttpAnswer]:
        """A final response head, after policy."""

    def body(self, message: Message, content: bytes) -> bytes | Awaitable[bytes]:
        """A complete body of at most `body_bytes`; returns what goes on instead.

        The message is held until its body is complete. A longer one is not shown: the
        exception policy `buffer_limit` decides (or `on_error`). Event streams are never held.
        """

    def data(self, message: Message, content: bytes, last: bool) -> bytes | Awaitable[bytes]:
        """The next piece of a decoded body; returns what goes on instead. Cut as the reads
        fell: keep what you need, and give it back at the latest when `last` is true."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """A connection callout's no."""

    reason: str = ""


class ConnectionCallout(Protocol):
    """Asked once per flow and destination, after policy permitted it and before the dial.

    `flow.redirect.destination` is what will be dialled: the original destination, or where a
    rule has sent the connection. A refusal counts against hard permits too (a veto).
    """

    def authorise(self, flow: FlowInfo) -> Refuse | Awaitable[Refuse | None] | None:
        """None: go on."""
