"""A descriptor that takes whole lines: what it has not taken yet is never lost or torn."""

from __future__ import annotations

import os
import select
import stat

_PIPE_BYTES = 4096  #: POSIX PIPE_BUF here: what a pipe that polls writable takes without blocking


class Output:
    """A descriptor and the lines under way; knows where the line being written began."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._regular = _is_regular(fd)
        self._lines: list[bytes] = []
        self._data = memoryview(b"")

    @property
    def pending(self) -> int:
        """Bytes not yet written."""
        return len(self._data)

    def load(self, lines: list[bytes]) -> None:
        self._lines = lines
        self._data = memoryview(b"".join(lines))

    def advance(self, timeout: float) -> None:
        """Write what the target takes now; wait for it up to `timeout`. Raises OSError."""
        if not self._writable(timeout):
            return
        size = len(self._data) if self._regular else _PIPE_BYTES
        try:
            written = os.write(self._fd, self._data[:size])
        except BlockingIOError:
            return  # a FIFO with less room than poll() promised
        self._data = self._data[written:]

    def abandon(self) -> int:
        """Give up what is pending: how many records that loses."""
        lost = len(self._unwritten())
        self.load([])
        return lost

    def replace(self, fd: int) -> None:
        """Go on with another descriptor, from the start of the line that is not finished."""
        unwritten = self._unwritten()
        begun = sum(map(len, unwritten)) - len(self._data)
        if begun and self._regular:
            _take_back(self._fd, unwritten[0][:begun])
        self.close()
        self._fd, self._regular = fd, _is_regular(fd)
        self.load(unwritten)

    def close(self) -> None:
        os.close(self._fd)

    def _unwritten(self) -> list[bytes]:
        """The lines of which at least one byte is pending."""
        pending, count = len(self._data), 0
        while pending > 0:
            count += 1
            pending -= len(self._lines[-count])
        return self._lines[len(self._lines) - count :]

    def _writable(self, timeout: float) -> bool:
        if self._regular or not hasattr(select, "poll"):
            return True
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        return bool(poller.poll(timeout * 1000))


def _is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _take_back(fd: int, begun: bytes) -> None:
    """Cut a line that was only begun off a file that we leave, if it is still the file's end."""
    size = os.fstat(fd).st_size
    if hasattr(os, "pread") and os.pread(fd, len(begun), size - len(begun)) == begun:
        os.ftruncate(fd, size - len(begun))


def end_line(fd: int) -> None:
    """If a killed process left a partial line at the end of the file, end it."""
    size = os.fstat(fd).st_size
    if _is_regular(fd) and size and hasattr(os, "pread") and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")
