"""Our own listening sockets and accept loop.

Accepting by hand keeps the socket ours until the flow hands it to the loop: redirect
providers ask the kernel about it. At the descriptor limit accepting pauses and tries again,
instead of spinning on EMFILE.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from proxy.errors import StartError
from proxy.flow.readiness import tells_readiness
from proxy.model import Endpoint
from proxy.redirect.provider import Listening

_BACKLOG = 4096
# On Windows SO_REUSEADDR lets any program take over a port that is in use (Winsock: "Using
# SO_REUSEADDR and SO_EXCLUSIVEADDRUSE"); elsewhere it only skips the wait for old connections.
_OWN_PORT: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
_PER_WAKE = 64  #: connections taken per readiness, so that a flood cannot starve the loop
_PAUSE_SECONDS = 0.25
_PORTS_TRIED = 5  #: for a free one that is free at both loopback addresses
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def open_listener(
    endpoint: Endpoint, prepare: Callable[[socket.socket], None] = lambda sock: None
) -> socket.socket:
    """A listening non-blocking socket; `[::]` takes IPv4 too. Raises StartError.

    `prepare` sets the redirect provider's own options, before bind.
    """
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _OWN_PORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(endpoint.host != "::"))
        sock.setblocking(False)
        prepare(sock)
        sock.bind((endpoint.host, endpoint.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(
            f"cannot listen on {endpoint}: {error.strerror}; {_advice(error)}"
        ) from error
    return sock


def _advice(error: OSError) -> str:
    if error.errno == errno.EPERM:  # IP_TRANSPARENT, ip(7); a low port would be EACCES
        return "this redirect's listener needs CAP_NET_ADMIN: run as root or grant the capability"
    return "choose another address with --listen, or end what holds it"


def open_listeners(
    endpoint: Endpoint, wanted: Listening, *, ipv6: bool = True
) -> list[socket.socket]:
    """The sockets to accept on, as the redirect provider wants them; `ipv6`: is it redirected?

    Raises StartError; nothing stays open then.
    """
    if not (wanted.both_loopbacks and ipv6 and endpoint.host == "127.0.0.1"):
        return [open_listener(endpoint, wanted.prepare)]
    attempts = 1 if endpoint.port else _PORTS_TRIED
    while True:
        attempts -= 1
        first = open_listener(endpoint, wanted.prepare)
        try:
            return [first, open_listener(Endpoint("::1", first.getsockname()[1]), wanted.prepare)]
        except StartError:
            first.close()
            if not attempts:
                raise


def can_listen(host: str) -> bool:
    """Has this machine that address?"""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            sock.bind((host, 0))
    except OSError:  # EADDRNOTAVAIL; EAFNOSUPPORT where the kernel has no such family
        return False
    return True


class Listener:
    """Accepts on every socket until closed; `accepted` must not block."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: list[socket.socket],
        accepted: Callable[[socket.socket, Endpoint], None],
        count_error: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._accepted = accepted
        self._count_error = count_error
        self._retries: set[asyncio.TimerHandle] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._readiness = tells_readiness(loop)

    def start(self) -> None:
        for sock in self._sockets:
            if self._readiness:
                self._loop.add_reader(sock.fileno(), self._accept, sock)
            else:
                self._tasks.append(self._loop.create_task(self._accept_completed(sock)))

    def close(self) -> None:
        """Stop listening: from now on connects are refused by the kernel."""
        for handle in self._retries:
            handle.cancel()
        for task in self._tasks:
            task.cancel()
        for sock in self._sockets:
            if self._readiness:
                self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets = []

    async def _accept_completed(self, listening: socket.socket) -> None:
        """The loop without readiness: one accept after another, until cancelled."""
        while True:
            try:
                sock, address = await self._loop.sock_accept(listening)
            except OSError as error:
                if listening.fileno() < 0:
                    return  # closed under us
                self._count_error()
                # Otherwise of that one connection; the loop still gets its turn.
                await asyncio.sleep(_PAUSE_SECONDS if error.errno in _EXHAUSTED else 0)
                continue
            sock.setblocking(False)
            self._accepted(sock, Endpoint.of(address))

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_PER_WAKE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._count_error()
                if error.errno in _EXHAUSTED:
                    self._pause(listening)
                    return
                continue  # ECONNABORTED and network errors of that one connection, accept(2)
            sock.setblocking(False)
            self._accepted(sock, Endpoint.of(address))

    def _pause(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening.fileno())
        handle = self._loop.call_later(_PAUSE_SECONDS, self._go_on, listening)
        self._retries.add(handle)

    def _go_on(self, listening: socket.socket) -> None:
        self._retries = {handle for handle in self._retries if not handle.cancelled()}
        if listening.fileno() >= 0:
            self._loop.add_reader(listening.fileno(), self._accept, listening)
