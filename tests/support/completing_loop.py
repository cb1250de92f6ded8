"""An event loop without readiness, as Windows' Proactor is to those who use it.

add_reader and add_writer raise as ProactorEventLoop's do; sock_accept and sock_connect work
(asyncio's selector loop does them with methods of its own). `calls` tells their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest


class CompletingLoop(asyncio.SelectorEventLoop):
    """One per test."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def add_reader(self, *arguments: Any) -> None:
        raise NotImplementedError

    def add_writer(self, *arguments: Any) -> None:
        raise NotImplementedError

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        self.calls.append("sock_accept")
        return await super().sock_accept(sock)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        # IocpProactor.connect binds the socket to a local address before ConnectEx.
        self.calls += ["bind", "sock_connect"]
        await super().sock_connect(sock, address)


@contextlib.contextmanager
def completing() -> Iterator[type[CompletingLoop]]:
    """While this lasts, a CompletingLoop is taken for a Proactor, and there is no epoll."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "ProactorEventLoop", CompletingLoop, raising=False)
        patch.delattr("select.epoll")
        yield CompletingLoop
