"""A redirect that `sluicegate redirect up` made, seen from the proxy: used, never changed."""

from __future__ import annotations

import socket
from typing import Protocol

from proxy.errors import RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.provider import Health, Identified, Lasting, Provider


class LastingProvider(Provider, Lasting, Protocol):
    """Both."""


class ExternalProvider:
    """`inner` in all that concerns connections; what captures them is not ours to change."""

    def __init__(self, inner: LastingProvider) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def install(self) -> None:
        """Only look at it from now on: it may come later than the proxy."""
        self._inner.adopt()

    def remove(self) -> None:
        """It stays; while the proxy is away captured connections are refused."""

    def health(self) -> Health:
        found = self._inner.health()
        return Health(found.ok, f"{found.detail} (made by `sluicegate redirect up`)")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        return await self._inner.identify(sock, client, within)

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        self._inner.prepare_upstream(sock, info)


def external(inner: Provider) -> Provider:
    """Raises RedirectError when `inner` captures nothing that another process could install."""
    if not isinstance(inner, Lasting):
        raise RedirectError(
            f"provider {inner.name} installs nothing that `sluicegate redirect up` could: "
            'set redirect.managed = "self"'
        )
    return ExternalProvider(inner)
