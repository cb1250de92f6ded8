"""Where event records go: JSON lines to a file, a FIFO or standard output.

`put` never blocks and never raises: a full queue drops the record and counts it. One thread
serialises and writes whole lines. When the target takes nothing (ENOSPC, EIO, EPIPE, a reader
that stands still) the thread keeps the line it is at and tries again until it goes, so that
recovery needs no restart and leaves no partial line.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import orjson

from proxy.account.metrics import Counters
from proxy.account.output import Output, end_line
from proxy.errors import StartError

QUEUE_RECORDS = 10_000
_BATCH = 256  #: records serialised at a time: about 0.3 ms with the interpreter held
_GATHER_SECONDS = 0.02  #: wait for company, so that a busy service wakes the thread 50 times/s
_RETRY_SECONDS = 0.25
_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class EventSink(Protocol):
    """Takes flat records of JSON values and datetimes."""

    @property
    def dropped(self) -> int:
        """Records lost so far."""

    @property
    def problem(self) -> str:
        """Why nothing can be written at the moment; empty when all is well."""

    def put(self, event: Mapping[str, Any]) -> None:
        """Take a record. Never blocks, never raises; the record must not change afterwards."""

    def reopen(self) -> None:
        """Open the target anew (log rotation). Returns at once."""

    def close(self, timeout: float = 5.0) -> None:
        """Write what is queued, for at most `timeout` seconds; the rest counts as dropped."""


def open_sink(target: str | None, counters: Counters) -> EventSink | None:
    """`-` is standard output, anything else a path; None or empty: no events.

    What the sink drops shows in `counters`.

    Raises StartError when the file cannot be opened.
    """
    if not target:
        return None
    sink = StdoutSink() if target == "-" else FileSink(target)
    counters.events_dropped = lambda: sink.dropped
    return sink


class MemorySink:
    """Keeps records as a reader of the file would see them (for tests)."""

    problem = ""
    dropped = 0

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, event: Mapping[str, Any]) -> None:
        self.events.append(orjson.loads(orjson.dumps(event, option=_JSON)))

    def reopen(self) -> None:
        """Nothing to open."""

    def close(self, timeout: float = 5.0) -> None:
        """Nothing to flush."""


class _ThreadedSink(ABC):
    """The queue and its thread; a subclass says what to open."""

    def __init__(self, capacity: int) -> None:
        self._queue: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()  # None: wake up
        self._capacity = capacity
        self._overflowed = 0  # changed by put()'s thread only
        self._lost = 0  # changed by the writer only
        self._write_problem = ""
        self._open_problem = ""  # stays until the next reopen: writing to the old target goes on
        self._reopen = False
        self._deadline: float | None = None  # set: closing
        self._kick = threading.Event()  # ends a wait of the writer early
        self._output = Output(self._open())
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    @abstractmethod
    def _open(self) -> int:
        """A file descriptor to write to. Raises OSError."""

    @property
    def dropped(self) -> int:
        return self._overflowed + self._lost

    @property
    def problem(self) -> str:
        return self._write_problem or self._open_problem

    def put(self, event: Mapping[str, Any]) -> None:
        if self._deadline is not None or self._queue.qsize() >= self._capacity:
            self._overflowed += 1
        else:
            self._queue.put(event)

    def reopen(self) -> None:
        self._reopen = True
        self._wake()

    def close(self, timeout: float = 5.0) -> None:
        """Blocks for up to `timeout`: not for the event loop's thread while flows live."""
        if self._deadline is None:
            self._deadline = time.monotonic() + timeout
            self._wake()
        self._thread.join(timeout + 2 * _RETRY_SECONDS)

    def _wake(self) -> None:
        self._kick.set()
        self._queue.put(None)

    # --- the writer's thread

    def _run(self) -> None:
        while True:
            self._kick.clear()
            batch = self._gather()
            if self._reopen:
                self._reopen_output()
            if batch:
                self._deliver(batch)
            elif self._deadline is not None and self._queue.empty():
                break
        self._output.close()

    def _gather(self) -> list[Mapping[str, Any]]:
        """Wait for a record and take what is there, at most a batch."""
        closing = self._deadline is not None
        items = [] if closing else [self._queue.get()]
        if self._queue.qsize() < _BATCH and not closing:
            self._kick.wait(_GATHER_SECONDS)
        try:
            while len(items) < _BATCH:
                items.append(self._queue.get_nowait())
        except Empty:
            pass  # that is all there is
        return [item for item in items if item is not None]

    def _deliver(self, batch: list[Mapping[str, Any]]) -> None:
        """Write a batch whole, however long it takes; only closing gives up."""
        self._output.load(self._serialise(batch))
        while self._output.pending:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._lost += self._output.abandon()
                return
            if self._reopen:
                self._reopen_output()
            try:
                self._output.advance(_RETRY_SECONDS)
                self._write_problem = ""
            except OSError as error:
                self._write_problem = f"events cannot be written: {error.strerror}"
                self._kick.wait(_RETRY_SECONDS)
                self._kick.clear()

    def _serialise(self, batch: list[Mapping[str, Any]]) -> list[bytes]:
        lines = []
        for event in batch:
            try:
                lines.append(orjson.dumps(event, option=_JSON))
            except orjson.JSONEncodeError:  # a lone surrogate: cannot be said in UTF-8
                self._lost += 1
        return lines

    def _reopen_output(self) -> None:
        """On failure the old target stays in use, so that nothing is lost."""
        self._reopen = False
        try:
            self._output.replace(self._open())
            self._open_problem = ""
        except OSError as error:
            self._open_problem = f"events cannot be reopened: {error.strerror}"


class FileSink(_ThreadedSink):
    """Appends to a file (mode 0640) or writes to a FIFO. Raises StartError at construction."""

    def __init__(self, path: str, capacity: int = QUEUE_RECORDS) -> None:
        self._path = path
        try:
            super().__init__(capacity)
        except OSError as error:
            raise StartError(
                f"cannot write events to {path}: {error.strerror}; "
                f"choose another file, or - for standard output"
            ) from error

    def _open(self) -> int:
        # O_RDWR: the last byte is looked at, and a FIFO opens without a reader (fifo(7)).
        # O_NONBLOCK matters to FIFOs only.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(self._path, flags, 0o640)
        try:
            end_line(fd)
        except OSError:
            os.close(fd)
            raise
        return fd


class StdoutSink(_ThreadedSink):
    """Standard output, through a descriptor of our own."""

    def __init__(self, capacity: int = QUEUE_RECORDS) -> None:
        super().__init__(capacity)

    def _open(self) -> int:
        return os.dup(1)
