"""A cgroup of its own for one command: a child of the caller's, gone when the command is.

The caller's limits go on to hold, because they are the parent's (cgroups(7): resources are
shared out from the top). The directory is locked (flock(2)) as long as its owner lives, so that
the next start can tell a left-over one of a killed owner from one that is in use.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy.errors import RedirectError

PREFIX = "sluicegate-exec-"
_MOUNTINFO = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")
_ATTEMPTS = 5
_LOOK_SECONDS = 0.1  #: how often a wait looks whether it was interrupted
_ESCAPED = re.compile(r"\\([0-7]{3})")  # proc(5), mountinfo: blanks are written in octal
_numbers = itertools.count(1)


def mounts_of_v2(mountinfo: str) -> list[tuple[str, Path]]:
    """(the path inside the hierarchy that is mounted, where) of every cgroup v2 mount. Pure.

    proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT WHERE OPTIONS … - TYPE SOURCE OPTIONS.
    """
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if after.startswith("cgroup2 ") and len(fields) >= 5:
            found.append((_unescape(fields[3]), Path(_unescape(fields[4]))))
    return found


def own_path(cgroups: str) -> str | None:
    """The path of the v2 entry ("0::/…") of /proc/PID/cgroup, cgroups(7). Pure."""
    for line in cgroups.splitlines():
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
    return None


def below(path: str, root: str) -> str | None:
    """`path` as seen from a mount of `root`; None when it is not below it. Pure."""
    if ".." in path.split("/"):
        return None  # outside of our cgroup namespace, cgroup_namespaces(7)
    if root == "/":
        return path.strip("/")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :].strip("/")
    return None


def locate() -> tuple[Path, str]:
    """Where cgroup v2 is mounted, and our own cgroup's path below it. Raises RedirectError."""
    if not sys.platform.startswith("linux"):
        raise RedirectError("cgroups are Linux's")
    try:
        mounts, own = mounts_of_v2(_MOUNTINFO.read_text()), own_path(_OWN.read_text())
    except OSError as error:
        raise RedirectError(f"/proc cannot be read: {error.strerror}") from error
    if not mounts or own is None:
        raise RedirectError(
            "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified, "
            "or boot with systemd.unified_cgroup_hierarchy=1"
        )
    for root, where in mounts:
        inner = below(own, root)
        if inner is not None and (where / inner / "cgroup.procs").is_file():
            return where, inner
    raise RedirectError(f"our cgroup {own} is not to be seen in {mounts[0][1]}: another namespace")


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


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
