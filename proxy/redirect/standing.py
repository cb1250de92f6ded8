"""Redirects that stand apart from a proxy: what `sluicegate redirect up` has noted about them.

One JSON file for each, named after the network namespace and the listener's port, below /run:
gone after a reboot, as the redirects are. It is written before the redirect is made and deleted
after it is taken down, so that whatever happens between can be put right.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from proxy.errors import RedirectError

STATE = (
    Path(os.environ.get("PROGRAMDATA", "C:/ProgramData"), "sluicegate", "redirects")
    if sys.platform == "win32"
    else Path("/run/sluicegate/redirects")
)
_ADMIN = 12  # CAP_NET_ADMIN, linux/capability.h


class State(enum.StrEnum):
    """How far a redirect has come."""

    STARTING = "starting"  #: it may be there in part
    TRIAL = "trial"  #: it goes by itself unless it is confirmed
    UP = "up"


@dataclass(frozen=True, slots=True)
class Record:
    """What is noted. `settings` are those it was made of, as JSON."""

    space: int  #: network namespace (its inode number)
    port: int  #: the listener's
    provider: str
    settings: dict[str, Any]
    made_at: float  #: seconds since the epoch
    made_by: str
    state: State = State.STARTING
    snapshot: str = ""  #: as it was made
    watcher: int = 0  #: process that ends a trial
    watcher_start: float = 0.0
    until: float = 0.0  #: end of the trial, seconds since the epoch

    def watching(self) -> psutil.Process | None:
        """The watcher, if it lives and its number is not another's by now."""
        try:
            process = psutil.Process(self.watcher) if self.watcher else None
            if process is None or process.status() == psutil.STATUS_ZOMBIE:
                return None
            return process if process.create_time() == self.watcher_start else None
        except psutil.Error:  # it has ended
            return None


class Notes:
    """The records of a directory that concern this network namespace."""

    def __init__(self, folder: Path = STATE) -> None:
        self._folder = folder

    def all(self) -> list[Record]:
        """Raises RedirectError when one of them cannot be read."""
        return [self._read(path) for path in sorted(self._folder.glob(f"{this_space()}-*.json"))]

    def get(self, port: int) -> Record | None:
        path = self._path(port)
        return self._read(path) if path.exists() else None

    def write(self, record: Record) -> None:
        """For all to read: the proxy may be an ordinary user. Raises RedirectError."""
        path = self._path(record.port)
        new = path.with_suffix(f".{os.getpid()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(dataclasses.asdict(record), indent=1), encoding="utf-8")
            new.chmod(0o644)
            new.replace(path)
        except OSError as error:
            raise RedirectError(
                f"{path} cannot be written: {error.strerror}; redirects are made by root"
            ) from error

    def delete(self, port: int) -> None:
        try:
            self._path(port).unlink(missing_ok=True)
        except OSError as error:
            raise RedirectError(f"{self._path(port)} stays: {error.strerror}") from error

    def _path(self, port: int) -> Path:
        return self._folder / f"{this_space()}-{port}.json"

    @staticmethod
    def _read(path: Path) -> Record:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return Record(**{**values, "state": State(values["state"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RedirectError(f"{path} cannot be read: {error}") from None


def this_space() -> int:
    """The network namespace of this thread; Windows is one. Raises RedirectError elsewhere."""
    if sys.platform == "win32":
        return 0
    try:
        return os.stat("/proc/thread-self/ns/net").st_ino
    except OSError:
        raise RedirectError("a redirect that stands apart from its proxy needs Linux") from None


def may_look() -> bool:
    """May this process ask the kernel for redirects, and mark its connections?"""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return True  # not Linux: asking will tell
    found = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(found.split()[1], 16) >> _ADMIN & 1)
