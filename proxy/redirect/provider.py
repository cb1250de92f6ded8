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
from typing import Protocol

from proxy.errors import RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.options import RedirectOptions


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the redirect is in force, and a sentence for `status`."""

    ok: bool
    detail: str


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


def _explicit(options: RedirectOptions) -> Provider:
    from proxy.redirect.explicit import ExplicitProvider

    return ExplicitProvider()


def _nft(options: RedirectOptions) -> Provider:
    from proxy.redirect.nft import NftProvider

    return NftProvider(options)


def _static(options: RedirectOptions) -> Provider:
    from proxy.redirect.static import StaticProvider

    return StaticProvider(options)


# The registry. `wfp`, `wfp-hns`, `tproxy`, `ebpf` and `proxy-protocol` join here: a module, a
# function that imports it when it is asked for (modules import everywhere, but need not be
# loaded where they cannot work), and a case in the conformance suite.
_PROVIDERS: dict[str, Callable[[RedirectOptions], Provider]] = {
    "explicit": _explicit,
    "nft": _nft,
    "static": _static,
}

PROVIDER_NAMES = tuple(_PROVIDERS)


def make_provider(name: str, options: RedirectOptions) -> Provider:
    """The provider of that name, not installed yet. Raises RedirectError."""
    make = _PROVIDERS.get(name)
    if make is None:
        raise RedirectError(
            f"there is no redirect provider {name!r}; choose one of {', '.join(PROVIDER_NAMES)}"
        )
    return make(options)
