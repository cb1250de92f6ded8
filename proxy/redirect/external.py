"""A redirect that `sluicegate redirect up` made, seen from the proxy: used, never changed."""

from __future__ import annotations

import socket
from typing import Protocol

from proxy.errors import RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.options import RedirectOptions
from proxy.redirect.provider import Health, Identified, Lasting, Provider
from proxy.redirect.standing import Notes, State, may_look


class LastingProvider(Provider, Lasting, Protocol):
    """Both."""


class ExternalProvider:
    """`inner` in all that concerns connections; what captures them is not ours to change."""

    def __init__(self, inner: LastingProvider, options: RedirectOptions) -> None:
        self._inner = inner
        self._port = options.listen.port

    @property
    def name(self) -> str:
        return self._inner.name

    def install(self) -> None:
        """Only look at it from now on: it may come later than the proxy. Raises RedirectError."""
        self._check_mark()
        self._inner.adopt()

    def remove(self) -> None:
        """It stays; while the proxy is away captured connections are refused."""

    def health(self) -> Health:
        if may_look():
            found = self._inner.health()
            return Health(found.ok, f"{found.detail} (apart from the proxy)")
        try:
            noted = Notes().get(self._port)
        except RedirectError as error:
            return Health(False, str(error))
        if noted is None or noted.state is State.STARTING:
            return Health(False, "no redirect is installed: sluicegate redirect up")
        return Health(True, "installed by `sluicegate redirect up` (only root could look at it)")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        return await self._inner.identify(sock, client, within)

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        self._inner.prepare_upstream(sock, info)

    def _check_mark(self) -> None:
        """Our own connections must be exempt, or they would come back to us."""
        nowhere = Endpoint("127.0.0.1", self._port)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                self._inner.prepare_upstream(probe, RedirectInfo("", nowhere, nowhere))
            except PermissionError as error:
                raise RedirectError(
                    "this proxy may not mark its connections, so the redirect would capture them: "
                    "grant CAP_NET_ADMIN, or name its user in redirect.exempt_uid here and for "
                    "`sluicegate redirect up`"
                ) from error


def external(inner: Provider, options: RedirectOptions) -> Provider:
    """Raises RedirectError when `inner` captures nothing that another process could install."""
    return ExternalProvider(lasting(inner), options)


def lasting(provider: Provider) -> LastingProvider:
    """The same provider. Raises RedirectError when its redirect cannot stand by itself."""
    if isinstance(provider, Lasting):
        return provider
    raise RedirectError(
        f"provider {provider.name} installs nothing that could stand apart from the proxy: "
        "only nft, tproxy and ebpf do"
    )
