"""Redirect providers: where did this flow want to go, and who sent it.

A provider captures connections (`install`, `remove`), says for an accepted socket where its
client meant to go (`identify`), and marks our own upstream sockets so that they are not
captured again (`prepare_upstream`). Every provider passes tests/unit/redirect/
test_conformance.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from proxy.model import Endpoint, RedirectInfo


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the redirect is in force, and a sentence for `status`."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Listening:
    """What a provider wants of the sockets at which its clients arrive."""

    both_loopbacks: bool = False  #: what went to IPv6 arrives at ::1, beside 127.0.0.1
    prepare: Callable[[socket.socket], None] = lambda sock: None  #: before bind; raises OSError


@dataclass(frozen=True, slots=True)
class Identified:
    """`leftover`: bytes of the client that were read but belong to the flow."""

    info: RedirectInfo
    leftover: bytes = b""


class Provider(Protocol):
    """What the service and the flow need of a redirector."""

    @property
    def name(self) -> str:
        """The provider's word in settings, policies and events."""

    def install(self) -> None:
        """Begin to capture; again is harmless. Blocks for milliseconds. Raises RedirectError."""

    def remove(self) -> None:
        """Leave nothing behind; harmless when not installed. Raises RedirectError."""

    def health(self) -> Health:
        """Is the redirect in force? May start a process: not for the loop's hot path."""

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        """Where an accepted, non-blocking socket was going; at most `within` seconds.

        Raises NotRedirected, BadPreamble (with bytes to answer), and OSError when the
        client is gone.
        """

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        """Set marks or records on our new socket, before bind and connect. Raises OSError."""


@runtime_checkable
class Lasting(Protocol):
    """A provider whose redirect outlives the process that installed it.

    So one process can install it, and another look at it and take it down.
    """

    def adopt(self) -> None:
        """What another process installed with equal options is ours from now on.

        `health` looks at it then and `remove` takes it down, be all of it there or not.
        """

    def snapshot(self) -> str:
        """All that is installed, as text that changes when somebody changes it.

        Raises RedirectError when it is not there or must not be looked at.
        """
