"""The policy directory: read it, build a generation off the loop, swap one reference, watch it.

With `files` the only part of `proxy.policy` that does I/O. Whatever is wrong, the generation in
force stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from proxy.errors import PolicyError, Problem
from proxy.policy.ast import OnReload
from proxy.policy.build import CheckReport, PolicyText, compile_all, load_all, report
from proxy.policy.files import DirectoryFiles
from proxy.policy.generation import Generation

#: How often the watch looks whether the directory is still the same one.
_LOOK_SECONDS = 1.0
_DEBOUNCE_SECONDS = 0.5


def default_policies_dir() -> Path:
    """The policies that ship: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "shipped_policies"
    return shipped if shipped.is_dir() else package.parent / "policies"


# --- building ------------------------------------------------------------------------------


def check_directory(directory: Path) -> CheckReport:
    """Read, check and compile everything; never raises for what is wrong with policies."""
    files = DirectoryFiles(directory)
    try:
        texts = files.policies()
    except PolicyError as error:
        return CheckReport(tuple(error.problems))
    with _without_collector():
        return report(load_all(texts, files.read, files.list_folder))


def read_directory(directory: Path) -> list[PolicyText]:
    """The policy files of a directory. Raises PolicyError."""
    return DirectoryFiles(directory).policies()


@dataclass(frozen=True, slots=True)
class _Built:
    digest: bytes
    generation: Generation | None  #: None: what is on disk is in force already


def _build(directory: Path, number: int, in_force: bytes) -> _Built:
    """The generation of what is on disk now. Raises PolicyError with every problem."""
    files = DirectoryFiles(directory)
    with _without_collector():
        loaded = load_all(files.policies(), files.read, files.list_folder)
        digest = files.digest()
        if digest == in_force:
            return _Built(digest, None)
        return _Built(digest, compile_all(loaded, number))


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Build without Python's cycle collector.

    A build allocates hundreds of thousands of objects that stay, so the collector would go over
    all of them again and again: twice the time, in steps that hold the loop.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# --- the store -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """How a load or reload ended. `generation` and `rules` are those in force afterwards."""

    ok: bool
    generation: int
    reason: str  #: start, files, SIGHUP, admin
    problems: tuple[Problem, ...]
    seconds: float
    wall: float  #: seconds since the epoch
    changed: bool  #: a new generation is in force
    rules: int
    on_reload: OnReload


class PolicyStore:
    """Keeps the generation in force. Used from the thread of one event loop.

    `on_result` hears of every load that was asked for, and of what the watch found.
    """

    def __init__(self, directory: Path, on_result: Callable[[ReloadResult], None]) -> None:
        self._directory = directory
        self._on_result = on_result
        self._current: Generation | None = None
        self._digest = b""
        self._well = True  #: the last load succeeded
        self._running: asyncio.Task[ReloadResult] | None = None
        self._next: asyncio.Task[ReloadResult] | None = None

    @property
    def current(self) -> Generation:
        """The generation in force, after load_initial()."""
        if self._current is None:
            raise RuntimeError("PolicyStore.current was asked for before load_initial()")
        return self._current

    def load_initial(self) -> ReloadResult:
        """The first generation. Raises PolicyError: without policies nothing is served."""
        begun = time.monotonic()
        self._take(_build(self._directory, 1, b""))
        return self._tell("start", (), begun, changed=True)

    async def reload(self, reason: str) -> ReloadResult:
        """Put in force what is on disk; on any mistake what was in force stays.

        Loads run one at a time. Calls during a load share the next one, which sees whatever
        they were made for. Who is cancelled while waiting does not end the load.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._load_after(self._running, reason))
        return await asyncio.shield(self._next)

    async def watch(self) -> None:
        """Reload when files change, until cancelled.

        The directory is watched, not the files: editors rename, Kubernetes swaps a symbolic
        link. Whether it is still the same directory is looked at every second.
        """
        while True:
            watched = await asyncio.to_thread(_open_directory, self._directory)
            if watched is None:
                if self._well:  # it went before anybody was watching: that is told, once
                    await self.reload("files")
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            try:
                await self._watch_one(watched)
            except OSError:
                # It went while the watch was set up (ENOENT), or the system has no watch left
                # (ENOSPC, EMFILE): then looking now and again is all that can be done.
                await asyncio.sleep(_LOOK_SECONDS * 10)
            finally:
                watched.close()
            await self.reload("files")

    async def _watch_one(self, watched: _Watched) -> None:
        """Until the directory is gone or another one has its name."""
        changes = watchfiles.awatch(
            self._directory,
            debounce=int(_DEBOUNCE_SECONDS * 1000),
            rust_timeout=int(_LOOK_SECONDS * 1000),
            yield_on_timeout=True,
        )
        begun = False
        async with contextlib.aclosing(changes):
            async for changed in changes:
                if not await asyncio.to_thread(watched.is_still, self._directory):
                    return
                if changed or not begun:  # before the first answer nothing was watched
                    await self.reload("files")
                begun = True

    async def _load_after(
        self, before: asyncio.Task[ReloadResult] | None, reason: str
    ) -> ReloadResult:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        return await self._load(reason)

    async def _load(self, reason: str) -> ReloadResult:
        begun = time.monotonic()
        number = self.current.number + 1
        try:
            built = await asyncio.to_thread(_build, self._directory, number, self._digest)
        except PolicyError as error:
            self._well = False
            return self._tell(reason, tuple(error.problems), begun, changed=False)
        except Exception as error:  # noqa: BLE001 (a fault of ours must not end the watch unheard)
            self._well = False
            problem = Problem(str(self._directory), 0, 0, f"internal error: {error!r}")
            return self._tell(reason, (problem,), begun, changed=False)
        changed = self._take(built)
        quiet = reason == "files" and not changed and self._well
        self._well = True
        return self._tell(reason, (), begun, changed=changed, quiet=quiet)

    def _take(self, built: _Built) -> bool:
        """Swap the one reference. False when there was nothing new."""
        self._digest = built.digest
        if built.generation is None:
            return False
        self._current = built.generation
        return True

    def _tell(
        self,
        reason: str,
        problems: tuple[Problem, ...],
        begun: float,
        *,
        changed: bool,
        quiet: bool = False,
    ) -> ReloadResult:
        result = ReloadResult(
            ok=not problems,
            generation=self.current.number,
            reason=reason,
            problems=problems,
            seconds=time.monotonic() - begun,
            wall=time.time(),
            changed=changed,
            rules=self.current.rules,
            on_reload=self.current.on_reload,
        )
        if not quiet:
            self._on_result(result)
        return result


@dataclass(frozen=True, slots=True)
class _Watched:
    """Which directory is watched. Held open, so that its number is not given to a new one."""

    device: int
    inode: int
    descriptor: int | None

    def is_still(self, directory: Path) -> bool:
        """Whether the name leads to it, symbolic links followed."""
        try:
            found = os.stat(directory)
        except OSError:  # ENOENT, ENOTDIR, EACCES: whatever it is, it is not what was watched
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def _open_directory(directory: Path) -> _Watched | None:
    """The directory of that name now, or None where there is none that could be watched."""
    try:
        if not hasattr(os, "O_DIRECTORY"):  # Windows opens no directories, and reuses no numbers
            found = os.stat(directory)
            return _Watched(found.st_dev, found.st_ino, None)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # ENOENT, ENOTDIR, EACCES
        return None
    found = os.fstat(descriptor)
    return _Watched(found.st_dev, found.st_ino, descriptor)
