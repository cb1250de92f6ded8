"""One fixed upstream for every connection: development, and reverse use."""

from __future__ import annotations

import socket

from proxy.errors import RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.options import RedirectOptions
from proxy.redirect.provider import Health, Identified


class StaticProvider:
    """Nothing is captured: clients connect to the listener and are sent to `upstream`."""

    name = "static"

    def __init__(self, options: RedirectOptions) -> None:
        if options.upstream is None:
            raise RedirectError("provider static needs to know where to: --upstream ADDRESS:PORT")
        self._upstream = options.upstream

    def install(self) -> None:
        """Nothing to do: clients come by themselves."""

    def remove(self) -> None:
        """Nothing to do."""

    def health(self) -> Health:
        return Health(True, f"every connection goes to {self._upstream}")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        return Identified(RedirectInfo(self.name, self._upstream, client))

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        """No mark: nothing captures our own connections."""
