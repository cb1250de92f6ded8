"""Dial an upstream: resolve (explicit clients give names), prepare our own socket, connect.

The socket is made here and handed to the redirect provider before bind and connect, because
marks and WFP redirect records must be on it by then. Foreign errors become DialError here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

from proxy.contract import DialFailure
from proxy.flow.readiness import tells_readiness
from proxy.model import Endpoint, normalise_ip

_FAILURES = {
    errno.ECONNREFUSED: DialFailure.REFUSED,
    errno.ETIMEDOUT: DialFailure.TIMEOUT,
    errno.ECONNRESET: DialFailure.RESET,
    errno.EMFILE: DialFailure.OVERLOAD,
    errno.ENFILE: DialFailure.OVERLOAD,
    errno.ENOBUFS: DialFailure.OVERLOAD,
    errno.EADDRNOTAVAIL: DialFailure.OVERLOAD,  # no local port is left
}


# What Windows says where IOCP completes a connect (System Error Codes). WSAEACCES is a host
# firewall that forbids this connection, or the application's that our records name.
_WINDOWS_FAILURES = {
    64: DialFailure.RESET,  # ERROR_NETNAME_DELETED
    121: DialFailure.TIMEOUT,  # ERROR_SEM_TIMEOUT
    1225: DialFailure.REFUSED,  # ERROR_CONNECTION_REFUSED
    10013: DialFailure.DENIED,  # WSAEACCES
}


class DialError(Exception):
    """No upstream; `failure` is what callouts are told."""

    def __init__(self, failure: DialFailure, detail: str) -> None:
        self.failure = failure
        self.detail = detail
        super().__init__(detail)


def to_dial_error(error: OSError, endpoint: Endpoint) -> DialError:
    """The seam between errno and DialFailure."""
    known = _FAILURES.get(error.errno or 0)
    windows = _WINDOWS_FAILURES.get(getattr(error, "winerror", None) or 0)
    failure = known or windows or DialFailure.UNREACHABLE
    return DialError(failure, f"{endpoint}: {error.strerror or error}")


async def resolve(
    loop: asyncio.AbstractEventLoop, endpoint: Endpoint, within: float
) -> list[Endpoint]:
    """Addresses of an endpoint in the system's order of preference; itself if it is one."""
    if endpoint.ip is not None:
        return [endpoint]
    try:
        async with asyncio.timeout(within):
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise DialError(DialFailure.TIMEOUT, f"{endpoint}: the name did not resolve") from None
    except (OSError, UnicodeError) as error:
        raise DialError(DialFailure.UNREACHABLE, f"{endpoint}: {error}") from error
    return list(dict.fromkeys(Endpoint(normalise_ip(str(i[4][0])), endpoint.port) for i in found))


async def dial(
    loop: asyncio.AbstractEventLoop,
    endpoint: Endpoint,
    prepare: Callable[[socket.socket], None],
    bound: Callable[[socket.socket], None],
    within: float,
) -> socket.socket:
    """A connected non-blocking socket to a resolved endpoint. Raises DialError.

    `prepare` runs before connect, `bound` as soon as the socket has its local address.
    """
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0))
    except OSError as error:
        raise to_dial_error(error, endpoint) from error
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        prepare(sock)
        async with asyncio.timeout(within):
            await _connect(loop, sock, (endpoint.host, endpoint.port), bound)
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError):
            detail = f"{endpoint}: no answer within {within:g} s"
            raise DialError(DialFailure.TIMEOUT, detail) from None
        if isinstance(error, OSError):
            raise to_dial_error(error, endpoint) from error
        raise
    return sock


async def _connect(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    address: tuple[str, int],
    bound: Callable[[socket.socket], None],
) -> None:
    """Non-blocking connect; cheaper than loop.sock_connect, which only Proactor needs."""
    if not tells_readiness(loop):
        await loop.sock_connect(sock, address)
        bound(sock)
        return
    with contextlib.suppress(BlockingIOError):  # EINPROGRESS: the normal case
        sock.connect(address)
    bound(sock)
    connected = loop.create_future()
    loop.add_writer(sock.fileno(), _wake, connected)
    try:
        await connected
    finally:
        loop.remove_writer(sock.fileno())
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, errno.errorcode.get(error, str(error)))


def keep_alive(sock: socket.socket) -> None:
    """TCP keepalive (60 s, then every 15 s, 4 times) and no Nagle: opaque flows may be idle."""
    options = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    # EINVAL, ENOTCONN: the peer has reset the connection already; reading will tell.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
