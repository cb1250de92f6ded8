"""One command as our child: held back until it may start, then signals to it, and its end.

It has our standard streams and our process group, so our terminal too, as under env(1). It is
forked before anything else happens (there are no threads yet) and waits at a pipe: so it is in
its cgroup before its first instruction, and ends by itself when we are killed before that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from proxy.errors import StartError

CANNOT_INVOKE, NOT_FOUND = 126, 127  #: as of env(1); POSIX XCU 2.8.2
_KERNEL = 0x80  # SI_KERNEL, sigaction(2): from a terminal, and to all of its foreground group
#: What others send us and mean the command. Not SIGTSTP and SIGCONT: a terminal stops and a
#: shell continues the whole group.
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGWINCH")
#: Python ignores these; a command expects them as the system has them (as subprocess does).
_RESTORED = ("SIGPIPE", "SIGXFSZ")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a command runs as, when not as ourselves."""

    name: str
    uid: int
    gid: int
    home: str

    @classmethod
    def named(cls, name: str) -> User:
        """From the user database. Raises StartError."""
        import pwd  # not on Windows

        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise StartError(f"there is no user {name!r} on this machine") from None
        if os.geteuid() not in (0, entry.pw_uid):
            raise StartError(f"only root can run a command as {name}: use sudo, or leave it out")
        return cls(name, entry.pw_uid, entry.pw_gid, entry.pw_dir)

    def become(self) -> None:
        """All of this process, for good. Raises OSError."""
        if os.geteuid() == 0:
            os.initgroups(self.name, self.gid)
            os.setgid(self.gid)
            os.setuid(self.uid)

    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


@dataclass(frozen=True, slots=True)
class _Shell:
    """How the caller had our signals: the command gets them like that."""

    mask: set[signal.Signals | int] = field(default_factory=set)
    on_child: object = signal.SIG_DFL

    def restore(self) -> None:
        for name in _RESTORED:
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        if self.on_child == signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


class Command:
    """Held back → `start` → `wait`; or `abandon`. From the main thread, while there is no other."""

    def __init__(self, words: Sequence[str], user: User | None = None) -> None:
        if sys.platform == "win32":
            raise StartError("a command can be run with its connections redirected on Linux only")
        self._ours = {getattr(signal, name) for name in _FORWARDED}
        on_child = signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # ignored, it could not be waited for
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*self._ours, signal.SIGCHLD})
        gate, self._gate = os.pipe()
        self._report, report = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(words, user, gate, report, _Shell(self._mask, on_child))
        os.close(gate)
        os.close(report)

    def start(self, environment: Mapping[str, str]) -> str:
        """Let it go, with these variables set. Why it cannot be executed; empty when it is."""
        with os.fdopen(self._gate, "w") as gate:
            json.dump(dict(environment), gate)
        with os.fdopen(self._report) as report:  # closed by a successful execve(2)
            return report.read()

    def abandon(self) -> None:
        """It never started, and never will; our own signals are ours again."""
        os.close(self._gate)
        os.close(self._report)
        os.waitpid(self.pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def wait(self) -> int:
        """Until it has ended; meanwhile it gets our signals. 128 + the signal that killed it."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            told = signal.sigwaitinfo({*self._ours, signal.SIGCHLD})
            if told.si_signo != signal.SIGCHLD and not self._has_it_already(told):
                os.kill(self.pid, told.si_signo)

    def interrupted(self) -> bool:
        """Does somebody want us to end, after the command has?"""
        return bool(signal.sigpending() & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

    def _has_it_already(self, told: signal.struct_siginfo) -> bool:
        """What a terminal sends goes to every process of its foreground group."""
        return told.si_code == _KERNEL and os.getpgid(self.pid) == os.getpgrp()


def _become(
    words: Sequence[str], user: User | None, gate: int, report: int, shell: _Shell
) -> NoReturn:
    """The child: wait at the gate, and become the command. Nothing may return from here."""
    try:
        with os.fdopen(gate) as waiting:
            told = waiting.read()
        if not told:
            os._exit(0)  # abandoned, or our parent was killed
        environment = {**os.environ, **json.loads(told)}
        if user is not None:
            user.become()
            environment.update(user.environment())
        shell.restore()
        os.execvpe(words[0], list(words), environment)
    except FileNotFoundError:
        _fail(report, NOT_FOUND, f"{words[0]}: there is no such command")
    except (OSError, ValueError) as error:
        _fail(report, CANNOT_INVOKE, f"{words[0]}: {getattr(error, 'strerror', None) or error}")
    finally:
        os._exit(CANNOT_INVOKE)


def _fail(report: int, code: int, text: str) -> NoReturn:
    os.write(report, text.encode(errors="replace")[:4096])
    os._exit(code)
