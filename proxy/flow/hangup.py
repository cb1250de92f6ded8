"""Notice a RST while reading is paused.

With reading paused the loop no longer asks the kernel about the socket. A second epoll,
itself watched by the loop, asks for EPOLLERR and EPOLLHUP only (always reported, epoll_ctl(2)).
Only Linux has it; elsewhere a RST is noticed at the next read or write.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable


class HangupWatch:
    """One per process. Callbacks get the socket's pending error (an errno, 0 if none)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._poll)

    @classmethod
    def create(cls, loop: asyncio.AbstractEventLoop) -> HangupWatch | None:
        """None where epoll does not exist."""
        return cls(loop) if hasattr(select, "epoll") else None

    def add(self, fd: int, callback: Callable[[int], None]) -> None:
        if fd < 0:
            return
        if fd not in self._callbacks:
            self._epoll.register(fd, 0)
        self._callbacks[fd] = callback

    def discard(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is None:
            return
        # ENOENT, EBADF: closing the descriptor has unregistered it.
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()

    def _poll(self) -> None:
        for fd, _events in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            self.discard(fd)  # level-triggered: once is enough
            if callback is not None:
                callback(_pending_error(fd))


def _pending_error(fd: int) -> int:
    """SO_ERROR of a descriptor, without taking it over."""
    sock = socket.socket(fileno=fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        sock.detach()
