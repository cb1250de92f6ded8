"""A redirect provider that answers what a test has told it: destinations and principals.

provider = FakeProvider(server.endpoint)
provider.install_in(monkeypatch)
async with live(tmp_path, server.endpoint, POLICY) as service:
    provider.next(principal=curl)
    async with client(service) as (reader, writer): ...
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from proxy.model import Confidence, Endpoint, Principal, RedirectInfo
from proxy.redirect.provider import Health, Identified
from proxy.service import app

CURL = Principal(
    pid=4711,
    process_start=1_700_000_000.0,
    exe="/usr/bin/curl",
    uid=1000,
    user="alice",
    cgroup="/user.slice/user-1000.slice",
    confidence=Confidence.EXACT,
    comm="curl",
)
PYTHON = replace(CURL, pid=4712, exe="/usr/bin/python3.11", comm="python3")
NOBODY = Principal()


class FakeProvider:
    """Every connection goes to `destination`, unless `next` has said otherwise for it.

    `prepared` lists what upstream sockets were made for.
    """

    name = "fake"

    def __init__(self, destination: Endpoint) -> None:
        self._usual = RedirectInfo(self.name, destination, destination, principal=CURL)
        self._told: deque[RedirectInfo] = deque()
        self.prepared: list[RedirectInfo] = []

    def install_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of whatever provider the settings name."""
        monkeypatch.setattr(app, "make_provider", lambda name, options: self)

    def next(self, **changes: Any) -> None:
        """What is told of the next connection that is not told of yet."""
        self._told.append(replace(self._usual, **changes))

    def install(self) -> None:
        """Nothing is captured: clients connect to the listener."""

    def remove(self) -> None:
        """Nothing to do."""

    def health(self) -> Health:
        return Health(True, "it is a fake")

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        told = self._told.popleft() if self._told else self._usual
        return Identified(replace(told, client=client))

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        self.prepared.append(info)
