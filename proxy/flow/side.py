"""One end of a flow: the client's socket or the upstream's, as an asyncio Protocol.

It moves bytes and reports; it decides nothing. Reading may be held for several reasons at
once (back-pressure, the engine, no upstream yet) and goes on when the last is released.
While it is held neither asyncio nor uvloop notices a RST: the hang-up watch does.

INVARIANT: a transport is always closed explicitly, by reset() or close(): uvloop corrupts
its heap when half-closed transports are merely dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from proxy.flow.hangup import HangupWatch
from proxy.model import Direction

WRITE_HIGH = 256 * 1024  #: bytes waiting in a transport before the other side is held
_RESCUE_READ = 128 * 1024
_LINGER_RST = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: close() sends RST


class Hold(enum.IntFlag):
    """Why reading is held."""

    ENGINE = 1
    BACKPRESSURE = 2
    NO_UPSTREAM = 4
    OFFLOAD = 8  #: the kernel moves the bytes, and tells of a RST


class SideOwner(Protocol):
    """What a side reports to. `direction` is the one that the side reads."""

    def on_data(self, direction: Direction, data: bytes) -> None: ...
    def on_eof(self, direction: Direction) -> None: ...
    def on_abort(self, direction: Direction, detail: str) -> None: ...
    def on_writable(self, direction: Direction, writable: bool) -> None: ...
    def on_gone(self) -> None: ...


class Side(asyncio.Protocol):
    """`reads` is the direction whose source this socket is; it is the sink of the other."""

    __slots__ = ("_holds", "_owner", "_sock", "_transport", "_watch", "eof", "finished", "reads")

    def __init__(
        self, reads: Direction, owner: SideOwner, sock: socket.socket, watch: HangupWatch | None
    ) -> None:
        self.reads = reads
        self.eof = False  #: FIN was read
        self.finished = False  #: FIN was sent
        self._owner: SideOwner | None = owner
        self._sock = sock
        self._watch = watch
        self._holds = Hold(0)
        self._transport: asyncio.Transport | None = None

    def watch_hangup(self, gone: Callable[[int], None]) -> None:
        """Before it is attached: be told of a RST, with its errno, where the system can."""
        if self._watch is not None:
            self._watch.add(self._sock.fileno(), gone)

    async def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the connected socket to the loop; bytes may arrive before this returns."""
        self._unwatch()
        await loop.connect_accepted_socket(lambda: self, self._sock)

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)

    def data_received(self, data: bytes) -> None:
        if self._owner is not None:
            self._owner.on_data(self.reads, data)

    def eof_received(self) -> bool:
        self.eof = True
        if self._owner is not None:
            self._owner.on_eof(self.reads)
        return True  # half-close: the transport stays open for writing

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        self._transport = None
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if exc is not None:
            self._rescue(owner)
            owner.on_abort(self.reads, str(exc))
        owner.on_gone()

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.on_writable(self.reads.opposite, False)

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.on_writable(self.reads.opposite, True)

    # --- what the flow calls

    @property
    def alive(self) -> bool:
        return self._transport is not None

    @property
    def unsent(self) -> int:
        """Bytes written but not yet taken by the kernel."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    @property
    def free(self) -> bool:
        """Bytes are read as they come."""
        return self._transport is not None and not self._holds and not self.eof

    @property
    def fileno(self) -> int:
        return self._sock.fileno()

    def write(self, data: bytes) -> None:
        if data and self._transport is not None and not self.finished:
            self._transport.write(data)

    def finish(self) -> None:
        """FIN after everything that was written."""
        if self._transport is None or self.finished:
            return
        self.finished = True
        self._transport.write_eof()

    def hold(self, why: Hold) -> None:
        before, self._holds = self._holds, self._holds | why
        if not before and self._transport is not None and not self.eof:
            self._transport.pause_reading()
            if self._watch is not None and why is not Hold.OFFLOAD:
                self._watch.add(self._sock.fileno(), self.hang_up)

    def release(self, why: Hold) -> None:
        before, self._holds = self._holds, self._holds & ~why
        if before and not self._holds and self._transport is not None and not self.eof:
            self._unwatch()
            self._transport.resume_reading()

    def close(self) -> None:
        """Close after what is written; nothing is reported any more."""
        self._owner = None
        self._unwatch()
        if self._transport is not None:
            self._transport.close()
        else:
            self._sock.close()

    def reset(self) -> None:
        """RST: what is unsent is lost; nothing is reported any more."""
        self._owner = None
        self._unwatch()
        reset_on_close(self._sock)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._sock.close()

    def vanish(self) -> None:
        """Go without a packet where the kernel allows it, else by RST."""
        forget_on_close(self._sock)
        self.reset()

    def hang_up(self, error: int) -> None:
        """The socket has failed with this errno (0: it has not)."""
        owner = self._owner
        if owner is not None and error:
            self._rescue(owner)
            owner.on_abort(self.reads, os.strerror(error))

    def _rescue(self, owner: SideOwner) -> None:
        """Hand over what arrived before the RST: a server's early answer must not be lost.

        The kernel keeps its receive queue readable after a RST; the loop does not look.
        """
        try:
            while data := self._sock.recv(_RESCUE_READ):
                owner.on_data(self.reads, data)
        except OSError:
            pass  # EAGAIN, ECONNRESET, EBADF: there is nothing more

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.discard(self._sock.fileno())


def reset_on_close(sock: socket.socket) -> None:
    """Make the coming close() send RST. A socket that is gone already is left alone."""
    # EBADF, ENOTCONN, EINVAL: the connection has ended by itself.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)


def forget_on_close(sock: socket.socket) -> None:
    """Make the coming close() send nothing: TCP_REPAIR (Linux, CAP_NET_ADMIN), tcp(7)."""
    tcp_repair = 19
    # EPERM, ENOPROTOOPT: no privilege or not Linux; RST is the documented fall-back.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, tcp_repair, 1)
