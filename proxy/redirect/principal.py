"""From a redirect context to who made the connection, on Linux.

The kernel tells pid, start time, user, cgroup and the process's short name, as they were at
connect. The rest is read from /proc, through one descriptor of the process's directory, so that
a process that took over the number is never read by mistake (proc(5)). A program that the
process has replaced since (execve(2)) is noticed by its stack's address, which differs for each.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass

from proxy.errors import RedirectError
from proxy.model import Confidence, Principal
from proxy.redirect.cgroups import GroupPaths, container_of, parse_path
from proxy.redirect.context import FIXED, RedirectContext
from proxy.redirect.packages import package_of_cgroup

_KEPT = 4096  #: processes
_TICK = 10_000_000  # nanoseconds: USER_HZ is 100 on every architecture that Linux has BPF on
_COMM = 16
_IMAGE = struct.Struct("=QII")
_MOST = 65536  # of a file in /proc
_START, _STACK = 22, 28  # proc_pid_stat(5): starttime, startstack


@dataclass(frozen=True, slots=True)
class Image:
    """Which of a process's programs it was, behind the context (struct sg_connection)."""

    stack: int  #: where its stack begins; 0 unknown
    execs: int  #: how many programs the process had been

    @classmethod
    def parse(cls, answer: bytes) -> Image | None:
        """From an answer of the redirector; None when it has no more than the context."""
        if len(answer) < FIXED.size + _COMM + _IMAGE.size:
            return None
        stack, execs, _ = _IMAGE.unpack_from(answer, FIXED.size + _COMM)
        return cls(stack, execs)


@dataclass(frozen=True, slots=True)
class _Process:
    """What /proc shows of one process."""

    start: int  #: hundredths of a second since boot
    stack: int
    exe: str | None
    cgroup: str | None


class Principals:
    """Remembers processes by (pid, start time, program), for they make many connections."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int, Image], Principal] = OrderedDict()
        self._groups = GroupPaths()
        self._users: dict[int, str | None] = {}
        self._boot = _boot_time()

    def of(self, context: RedirectContext, image: Image | None = None) -> Principal:
        """Never raises; what cannot be learnt is None. Reads a few files in /proc."""
        if image is None:
            return self._look_up(context, None)
        key = (context.pid, context.process_start, image)
        known = self._known.get(key)
        if known is not None and known.uid == context.uid:
            self._known.move_to_end(key)
            return known
        found = self._look_up(context, image)
        if found.confidence is Confidence.EXACT:
            self._known[key] = found
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found

    def _look_up(self, context: RedirectContext, image: Image | None) -> Principal:
        process = _read(context.pid)
        same = process is not None and _is_same(process, context, image)
        cgroup = self._groups.path(context.group_id)
        if cgroup is None and process is not None and same:
            cgroup = process.cgroup
        return Principal(
            pid=context.pid,
            comm=context.application or None,
            process_start=self._boot + context.process_start / 1e9,
            exe=process.exe if process is not None and same else None,
            uid=context.uid,
            user=None if context.uid is None else self._user(context.uid),
            cgroup=cgroup,
            container=(container_of(cgroup) or "") if cgroup else None,
            package=package_of_cgroup(cgroup) if cgroup else None,
            confidence=Confidence.EXACT if same else Confidence.LIKELY,
        )

    def _user(self, uid: int) -> str | None:
        if uid not in self._users:
            self._users[uid] = _user_name(uid)
        return self._users[uid]


def _is_same(process: _Process, context: RedirectContext, image: Image | None) -> bool:
    """Is it the process that connected, and still the program that it was?"""
    if process.start != context.process_start // _TICK:
        return False
    # Without the right to look (ptrace(2), PTRACE_MODE_READ) /proc shows 0 or 1.
    return image is None or image.stack == 0 or process.stack in (0, 1, image.stack)


def _read(pid: int) -> _Process | None:
    """None when there is no such process (any more), or no /proc."""
    try:
        folder = os.open(f"/proc/{pid}", os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:  # ENOENT, ESRCH: it has ended
        return None
    try:
        start, stack = parse_stat(_file(folder, "stat"))
        exe = cgroup = None
        with contextlib.suppress(OSError):  # EACCES: not allowed; ENOENT: a kernel thread
            exe = os.readlink("exe", dir_fd=folder)
        with contextlib.suppress(OSError, RedirectError):
            cgroup = parse_path(_file(folder, "cgroup"))
        # Read again: the program may have been replaced between the two.
        if parse_stat(_file(folder, "stat")) != (start, stack):
            return None
    except (OSError, ValueError):  # ESRCH: it ended while we read
        return None
    finally:
        os.close(folder)
    return _Process(start, stack, exe, cgroup)


def parse_stat(text: str) -> tuple[int, int]:
    """(starttime, startstack) of /proc/PID/stat. Raises ValueError."""
    # The name in parentheses may hold anything, parentheses and spaces too.
    fields = text[text.rfind(")") + 2 :].split()
    if len(fields) <= _STACK - 3:
        raise ValueError("stat is too short")
    return int(fields[_START - 3]), int(fields[_STACK - 3])


def _file(folder: int, name: str) -> str:
    handle = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(handle, _MOST).decode("utf-8", "surrogateescape")
    finally:
        os.close(handle)


def _boot_time() -> float:
    """When the machine was started, in seconds since the epoch."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if clock is None else time.time() - time.clock_gettime(clock)


def _user_name(uid: int) -> str | None:
    if sys.platform == "win32":
        return None
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


__all__ = ["Image", "Principals", "parse_stat"]
