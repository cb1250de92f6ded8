"""What the author of a callout imports: three kinds of callouts and how they are registered.

- A *stream callout* sees raw bytes of both directions as one stage of the waterfall
  (`StreamCallout`, the twin of a callout at FWPM_LAYER_STREAM). One object per flow.
- An *HTTP callout* sees messages: heads, and bodies whole or in pieces. One object per flow.
- A *connection callout* is asked before a flow's destination is dialled. One object for all.

Each is registered in the settings (`[[callouts]]`) with its mode: `inline` (plain functions, in
the flow's own call) or `out_of_band` (coroutine functions, asked with a time-out while the flow
waits). `proxy.testing` proves that a callout keeps the contract.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from proxy.contract import FlowHandle, StreamCallout
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import FlowInfo

__all__ = [
    "BlockMessage",
    "ConnectionCallout",
    "Field",
    "FlowHandle",
    "FlowInfo",
    "Forward",
    "HttpAnswer",
    "HttpCallout",
    "Interest",
    "Message",
    "Refuse",
    "RequestHead",
    "RespondWith",
    "ResponseHead",
    "StreamCallout",
]


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

    Framing and hop-by-hop fields of a given head are ignored: they are the proxy's.
    """

    head: RequestHead | ResponseHead | None = None


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
    """

    def request(self, message: Message) -> HttpAnswer | Awaitable[HttpAnswer]:
        """A request head, after policy has permitted and edited it."""

    def response(self, message: Message) -> HttpAnswer | Awaitable[HttpAnswer]:
        """A final response head, after policy."""

    def body(self, message: Message, content: bytes) -> bytes | Awaitable[bytes]:
        """A complete decoded body of at most `body_bytes`; returns what goes on instead."""

    def data(self, message: Message, content: bytes, last: bool) -> bytes | Awaitable[bytes]:
        """The next piece of a decoded body; returns what goes on instead. Cut as the reads
        fell: keep what you need, and give it back at the latest when `last` is true."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """A connection callout's no."""

    reason: str = ""


class ConnectionCallout(Protocol):
    """Asked once per flow and destination, after policy permitted it and before the dial."""

    def authorise(self, flow: FlowInfo) -> Refuse | None | Awaitable[Refuse | None]:
        """None: go on."""
