"""A cgroup of its own for one command: a child of the caller's, gone when the command is.

The caller's limits go on to hold, because they are the parent's (cgroups(7): resources are
shared out from the top). The directory is locked (flock(2)) as long as its owner lives, so that
the next start can tell a left-over one of a killed owner from one that is in use.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy.errors import RedirectError
from proxy.redirect import cgroups

PREFIX = "sluicegate-exec-"
_ATTEMPTS = 5
_LOOK_SECONDS = 0.1  #: how often a wait looks whether it was interrupted
_SETTLE_SECONDS = 1.0  #: a process that was waited for may still leave its cgroup
_numbers = itertools.count(1)


def locate() -> tuple[Path, str]:
    """Where cgroup v2 is mounted, and our own cgroup's path below it. Raises RedirectError."""
    if not sys.platform.startswith("linux"):
        raise RedirectError("cgroups are Linux's")
    try:
        own = cgroups.path_of()
    except OSError as error:
        raise RedirectError(f"/proc/self/cgroup cannot be read: {error.strerror}") from error
    if ".." in own.split("/"):  # cgroup_namespaces(7)
        raise RedirectError(f"our cgroup {own} is outside of this cgroup namespace")
    where = cgroups.mount_point()
    inner = cgroups.directory(own).relative_to(where)
    return where, "" if inner == Path() else str(inner)


class ScopedCgroup:
    """Made on construction, removed by `remove`. Raises RedirectError where that is not allowed.

    `path` is relative to the mount, as RedirectOptions.cgroup wants it.
    """

    def __init__(self) -> None:
        self._mount, self._parent = locate()
        sweep(self._mount / self._parent)
        self.directory, self._lock = self._make()
        self.path = str(self.directory.relative_to(self._mount))

    def _make(self) -> tuple[Path, int]:
        parent = self._mount / self._parent
        for _ in range(_ATTEMPTS):
            directory = parent / f"{PREFIX}{os.getpid()}-{next(_numbers)}"
            try:
                directory.mkdir(0o755)
            except FileExistsError:
                continue  # another pid namespace's process with our number
            except OSError as error:
                raise RedirectError(
                    f"cannot make a cgroup in {parent}: {error.strerror}; it needs root"
                ) from error
            lock = _locked(directory)
            if lock is not None:
                return directory, lock
        raise RedirectError(f"cannot make a cgroup in {parent}: others remove it again")

    def add(self, pid: int) -> None:
        """Move a process in; its future children are born there. Raises RedirectError."""
        self._move(pid, self.directory)

    def pids(self) -> list[int]:
        """Processes inside, also in cgroups that they have made below."""
        found = []
        for procs in self.directory.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):  # ENODEV: that cgroup was removed meanwhile
                found += [int(line) for line in procs.read_text().split()]
        return [pid for pid in found if pid]  # 0: of another pid namespace

    def wait_empty(self, seconds: float, interrupted: Callable[[], bool] = bool) -> bool:
        """Until no process is left inside, `interrupted`, or `seconds` (inf: no limit) are over."""
        deadline = time.monotonic() + seconds
        with (self.directory / "cgroup.events").open("rb", buffering=0) as events:
            waiting = select.poll()
            waiting.register(events, select.POLLPRI)  # cgroups(7): a change wakes poll(2)
            while b"populated 1" in events.read():
                left = min(deadline - time.monotonic(), _LOOK_SECONDS)
                if left <= 0 or interrupted():
                    return False
                waiting.poll(max(1, int(left * 1000)))
                events.seek(0)
        return True

    def remove(self) -> int:
        """Move who is left to the parent, and remove everything; how many were moved."""
        moved = 0
        for _ in range(_ATTEMPTS):  # who forks meanwhile leaves a child behind
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(RedirectError):  # it has ended meanwhile
                    self._move(pid, self.directory.parent)
                    moved += 1
        self.wait_empty(_SETTLE_SECONDS)
        _remove_tree(self.directory)
        os.close(self._lock)
        return moved

    @staticmethod
    def _move(pid: int, directory: Path) -> None:
        try:
            (directory / "cgroup.procs").write_text(f"{pid}\n")
        except OSError as error:
            raise RedirectError(
                f"cannot put process {pid} into {directory}: {error.strerror}"
            ) from error


def sweep(parent: Path) -> None:
    """Remove empty cgroups of owners that were killed."""
    for directory in parent.glob(f"{PREFIX}*"):
        lock = _locked(directory)
        if lock is not None:
            _remove_tree(directory)
            os.close(lock)


def _locked(directory: Path) -> int | None:
    """The directory's lock, as a descriptor; None when it is held, or not there any more."""
    import fcntl  # not on Windows

    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None  # removed by another, or not ours to read
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), directory.stat()):
            return lock
    except OSError:
        pass  # EWOULDBLOCK: its owner lives; ENOENT: it was removed
    os.close(lock)
    return None


def _remove_tree(directory: Path) -> None:
    """Cgroups are removed from the bottom; one with processes stays."""
    for path in _bottom_up(directory):
        with contextlib.suppress(OSError):  # EBUSY: a process is in it; ENOENT: gone already
            path.rmdir()


def _bottom_up(directory: Path) -> Iterator[Path]:
    for where, _, _ in os.walk(directory, topdown=False):
        yield Path(where)
