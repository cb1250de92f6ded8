"""A redirect on trial: it goes by itself unless somebody confirms it in time.

A process of its own holds it with `on_crash: open`, so the kernel drops it when that process
ends, however it ends: no power cut of a session, no logind, no kill can leave it behind. When it
is confirmed, that process puts the lasting redirect in its place; for the moment between the
two, new connections go by.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil

from proxy.errors import RedirectError
from proxy.redirect.external import LastingProvider
from proxy.redirect.standing import Notes, Record, State

_CONFIRM, _END = "SIGUSR1", "SIGTERM"
_SECONDS = 15.0  #: for a watcher to do as it is told
_MAX_ANSWER = 4096


@dataclass(frozen=True, slots=True)
class Trial:
    """`passing` vanishes with its process, `staying` does not."""

    notes: Notes
    record: Record
    passing: LastingProvider
    staying: LastingProvider
    seconds: float


def begin(trial: Trial) -> None:
    """Returns when the redirect is in force. Raises RedirectError, nothing left then."""
    if not hasattr(os, "fork"):
        raise RedirectError("a redirect on trial needs a system with fork")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_the_watcher(trial, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read(_MAX_ANSWER).decode(errors="replace")
    if said != "ok":
        os.waitpid(pid, 0)
        raise RedirectError(said or "the process that watches over the trial has ended")


def confirm(notes: Notes, record: Record) -> Record:
    """The lasting redirect's record. Raises RedirectError."""
    _tell(record, _CONFIRM)
    now = notes.get(record.port)
    if now is None or now.state is not State.UP:
        raise RedirectError("the trial was over before it could be confirmed: there is no redirect")
    return now


def end(record: Record) -> None:
    """Take a trial down; harmless when its watcher has ended. Raises RedirectError."""
    _tell(record, _END)


def _tell(record: Record, name: str) -> None:
    """A signal to the watcher, and wait for its end."""
    try:
        handle = os.pidfd_open(record.watcher) if record.watching() is not None else None
    except ProcessLookupError:
        return
    if handle is None:
        return
    with os.fdopen(handle, "rb") as process:  # pidfd_open(2): readable when it has ended
        try:
            signal.pidfd_send_signal(process.fileno(), getattr(signal, name))
        except ProcessLookupError:
            return
        except PermissionError:
            raise RedirectError("the trial is another user's: run as root") from None
        if not select.select([process], [], [], _SECONDS)[0]:
            raise RedirectError(f"the watcher of the trial (process {record.watcher}) hangs")


def _be_the_watcher(trial: Trial, writing: int) -> None:
    """The child's whole life. Never returns."""
    code = 1
    try:
        os.setsid()  # the end of the terminal is none of ours
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        _watch(trial, lambda said: _answer(writing, said))
        code = 0
    finally:
        os._exit(code)


def _answer(writing: int, said: str) -> None:
    os.write(writing, said.encode()[:_MAX_ANSWER])
    os.close(writing)


def _watch(trial: Trial, answer: Callable[[str], None]) -> None:
    signals = {getattr(signal, _CONFIRM), getattr(signal, _END)}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    notes, port = trial.notes, trial.record.port
    record = replace(
        trial.record,
        watcher=os.getpid(),
        watcher_start=psutil.Process().create_time(),
        until=time.time() + trial.seconds,
    )
    try:
        notes.write(record)
        trial.passing.install()
        record = replace(record, state=State.TRIAL, snapshot=_snapshot(trial.passing))
        notes.write(record)
    except RedirectError as error:
        trial.passing.remove()
        notes.delete(port)
        answer(str(error))
        return
    answer("ok")
    told = signal.sigtimedwait(signals, trial.seconds)
    trial.passing.remove()
    if told is not None and told.si_signo == getattr(signal, _CONFIRM):
        make(notes, record, trial.staying)
    else:
        notes.delete(port)


def _snapshot(passing: LastingProvider) -> str:
    """Empty where only its own process knows it: programs that are pinned nowhere."""
    try:
        return passing.snapshot()
    except RedirectError:
        return ""


def make(notes: Notes, record: Record, provider: LastingProvider) -> Record:
    """Put a lasting redirect in place and note it. Raises RedirectError.

    What could not be made leaves nothing, and one that was there before in force as it was.
    """
    before = notes.get(record.port)
    record = replace(record, state=State.STARTING, watcher=0, watcher_start=0.0, until=0.0)
    notes.write(record)
    try:
        provider.install()
        record = replace(record, state=State.UP, snapshot=provider.snapshot())
    except RedirectError:
        if before is not None and before.state is State.UP:
            notes.write(before)
        else:
            provider.adopt()
            provider.remove()
            notes.delete(record.port)
        raise
    notes.write(record)
    return record
