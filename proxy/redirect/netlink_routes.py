"""This network namespace's routes, by rtnetlink(7), and word when they change.

A redirect runs before routing, so it has to be told which destinations there is a way to. All
tables are read as one: a rule of ip-rule(8) may send a connection to any of them.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from proxy.errors import RedirectError
from proxy.redirect.ebpf_scope import IPNetwork, Route

# linux/netlink.h, linux/rtnetlink.h
_NETLINK_ROUTE = 0
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, dst_len, src_len, tos, table, ..., type, flags
_ATTRIBUTE = struct.Struct("=HH")
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x1 | 0x300
_RTA_DST = 1
_CLONED = 0x200  # RTM_F_CLONED: of a cache, not of a table
_GROUPS = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_BUFFER = 1 << 17
_SECONDS = 5.0
_MOST = 200_000  #: routes of a family that are kept one by one

#: rtm_type -> what it means for a redirect; what is not here is no way at all.
_KINDS = {1: Route.AWAY, 2: Route.LOCAL, 4: Route.LOCAL}  # unicast, local, anycast
_FAMILIES = (socket.AF_INET, getattr(socket, "AF_INET6", 10))

Routes = dict[IPNetwork, Route]


def read_routes() -> Routes:
    """Network -> what lies behind it. Raises RedirectError."""
    routes: Routes = {}
    for family in _FAMILIES:
        found: Routes = {}
        for net, kind in _dump(family):
            found[net] = max(kind, found.get(net, Route.NONE))
        if len(found) > _MOST:  # a full table of the Internet's: there is a way to everything
            everything = ipaddress.ip_network("0.0.0.0/0" if family == _FAMILIES[0] else "::/0")
            found = {net: kind for net, kind in found.items() if kind is Route.LOCAL}
            found[everything] = Route.AWAY
        routes |= found
    return routes


def parse_route(payload: bytes) -> tuple[IPNetwork, Route] | None:
    """An rtmsg with its attributes; None for an entry of a cache. Raises struct.error. Pure."""
    family, length, _, _, _, _, _, kind, flags = _ROUTE.unpack_from(payload)
    if flags & _CLONED:
        return None
    size = 4 if family == _FAMILIES[0] else 16
    address = bytes(size)  # a default route has no RTA_DST
    for number, value in _attributes(payload[_ROUTE.size :]):
        if number == _RTA_DST and len(value) == size:
            address = value
    net = ipaddress.ip_network((address, length), strict=False)
    return net, _KINDS.get(kind, Route.NONE)


def _dump(family: int) -> Iterator[tuple[IPNetwork, Route]]:
    try:
        with _open() as sock:
            body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            head = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _REQUEST_DUMP, 1, 0)
            sock.settimeout(_SECONDS)
            sock.send(head + body)
            for kind, payload in _messages(sock):
                if kind == _RTM_NEWROUTE and (found := parse_route(payload)) is not None:
                    yield found
    except OSError as error:
        raise RedirectError(f"the routes cannot be read: {error}") from error


def _messages(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The parts of one dump, up to its end. Raises OSError."""
    while True:
        data = sock.recv(_BUFFER)
        while len(data) >= _HEADER.size:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            payload = data[_HEADER.size : length]
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                raise OSError(number, os.strerror(number))
            yield kind, payload
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, number = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield number, data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]


def _open(groups: int = 0) -> socket.socket:
    if not hasattr(socket, "AF_NETLINK"):
        raise RedirectError("routes are read by rtnetlink, which is Linux's")
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    sock.bind((0, groups))
    return sock


class RouteWatch:
    """Calls `changed` with all routes: now, and whenever they have changed. A thread of its own.

    `changed` must not raise; it is called in that thread. The namespace is the one in which
    the watch was made. INVARIANT: subscribed before the first look, so that nothing is missed.
    """

    def __init__(self, changed: Callable[[Routes], None]) -> None:
        self._changed = changed
        self._sock = _open(_GROUPS)
        self._stop, self._stopping = os.pipe()
        self.problem: str | None = None  #: why it does not know the routes any more
        try:
            changed(read_routes())
        except BaseException:
            self._close()
            raise
        self._thread = threading.Thread(target=self._watch, name="routes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended."""
        os.write(self._stopping, b"x")
        self._thread.join()
        self._close()

    def _watch(self) -> None:
        while self._wait():
            try:
                self._changed(read_routes())
                self.problem = None
            except RedirectError as error:
                self.problem = str(error)

    def _wait(self) -> bool:
        """Until something has changed; False: to be stopped."""
        readable, _, _ = select.select([self._sock.fileno(), self._stop], [], [])
        if self._stop in readable:
            return False
        while True:
            try:
                self._sock.recv(_BUFFER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # too many at once: everything is read anyway
                    raise

    def _close(self) -> None:
        self._sock.close()
        os.close(self._stop)
        os.close(self._stopping)
