"""Bytes from one socket to another inside the kernel: splice(2) through a borrowed pipe.

Making a pipe costs more than moving a small body, and four descriptors for every flow would be
too many: a small pool lends them to flows that move much (pipe(7), F_SETPIPE_SZ). Linux only.

Pipes of 1 MiB take a third less CPU still, but what they let go in one burst was seen to
overrun the receiver on a starved machine (drops, retransmissions, 1 GB in 10 to 170 s).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import NamedTuple

PIPE_BYTES = 256 * 1024
_SETPIPE_SZ = 1031  # linux/fcntl.h; the fcntl module has it from Python 3.10 on Linux
_SMALLEST = 128 * 1024  # with smaller pipes ordinary reads cost no more
_ROUNDS = 8  # pipefuls in one callback: other flows want their turn
_AGAIN = (errno.EAGAIN, errno.EINTR)


class Pipe(NamedTuple):
    reads: int
    writes: int
    size: int


class PipePool:
    """Lends at most `most` pipes; only empty ones are to come back."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self.made = 0  #: lent or free
        self._free: list[Pipe] = []

    @classmethod
    def create(cls) -> PipePool | None:
        """None where there is no splice."""
        return cls() if hasattr(os, "splice") else None

    def borrow(self) -> Pipe | None:
        """A pipe, or None: all are lent, or this user may have no large ones."""
        if self._free:
            return self._free.pop()
        if self.made >= self._most:
            return None
        try:
            reads, writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # EMFILE, ENFILE: bytes go the ordinary way
        size = _enlarge(writes)
        if size < _SMALLEST:
            os.close(reads)
            os.close(writes)
            self._most = self.made  # nor will the next one be larger
            return None
        self.made += 1
        return Pipe(reads, writes, size)

    def give_back(self, pipe: Pipe) -> None:
        self._free.append(pipe)

    def close(self) -> None:
        """Close what has come back."""
        for pipe in self._free:
            os.close(pipe.reads)
            os.close(pipe.writes)
        self.made -= len(self._free)
        self._free.clear()


def _enlarge(pipe: int) -> int:
    """The pipe's size, made as large as this user may have it."""
    import fcntl  # where there is splice there is fcntl

    try:
        return fcntl.fcntl(pipe, _SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return 0  # EPERM: beyond the user's soft limit (pipe-user-pages-soft)


class Splicing:
    """Moves up to `left` bytes (None: all) from one descriptor to another until it is stopped.

    Works on duplicates, for the loop guards the descriptors of its transports. `moved(n)` is
    told what has been taken from the source; `over(error, at_sink)` that nothing more can be:
    0 at the end of the stream or of `left`, else the errno of the source or the sink.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipe: Pipe,
        source: int,
        sink: int,
        left: int | None,
        moved: Callable[[int], None],
        over: Callable[[int, bool], None],
    ) -> None:
        self.waiting = 0  #: bytes in the pipe
        self.blocked = False  #: the sink takes nothing at present
        self._loop = loop
        self._pipe = pipe
        self._source = os.dup(source)
        self._sink = os.dup(sink)
        self._left = left
        self._moved = moved
        self._over = over
        self._loop.add_reader(self._source, self._run)

    def stop(self) -> bytes:
        """Take what is in the pipe, which is empty then and free for others."""
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        os.close(self._source)
        os.close(self._sink)
        pieces = []
        while self.waiting:
            pieces.append(os.read(self._pipe.reads, self.waiting))
            self.waiting -= len(pieces[-1])
        return b"".join(pieces)

    def _run(self) -> None:
        for _ in range(_ROUNDS):
            taken = self._fill()
            if taken is None:
                return
            if not self._empty():
                self._block()
                return
            if self._left == 0:
                self._over(0, False)
                return

    def _fill(self) -> int | None:
        """Source to pipe; None: not now, or never again."""
        wanted = self._pipe.size if self._left is None else min(self._left, self._pipe.size)
        try:
            n = os.splice(self._source, self._pipe.writes, wanted, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno not in _AGAIN:
                self._over(error.errno or errno.EIO, False)
            return None
        if not n:
            self._over(0, False)
            return None
        self.waiting += n
        if self._left is not None:
            self._left -= n
        self._moved(n)
        return n

    def _empty(self) -> bool:
        """Pipe to sink; False: some of it has to wait. A dead sink ends it."""
        while self.waiting:
            try:
                n = os.splice(
                    self._pipe.reads, self._sink, self.waiting, flags=os.SPLICE_F_NONBLOCK
                )
            except OSError as error:
                if error.errno in _AGAIN:
                    return False
                self._over(error.errno or errno.EPIPE, True)
                return False
            self.waiting -= n
        return True

    def _block(self) -> None:
        """Wait for the sink, and read nothing meanwhile."""
        if self.waiting and not self.blocked:
            self.blocked = True
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._unblock)

    def _unblock(self) -> None:
        if not self._empty():
            return
        self.blocked = False
        self._loop.remove_writer(self._sink)
        if self._left == 0:
            self._over(0, False)
        else:
            self._loop.add_reader(self._source, self._run)
