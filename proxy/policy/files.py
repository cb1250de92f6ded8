"""The files of one policy directory: which are policies, read with bounds, and their digest.

Policies are the `*.yaml` and `*.yml` files directly in the directory, in the order of their
names, without hidden ones and `*_test.yaml`. Nothing outside the directory is read.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from proxy.errors import PolicyError, Problem
from proxy.policy import document, listfiles
from proxy.policy.build import PolicyText

_SUFFIXES = (".yaml", ".yml")
_TESTS = ("_test.yaml", "_test.yml")
#: More files than this in one directory are not policies that somebody wrote.
MAX_FILES = 1000
_MAX_DEPTH = 16  #: folders in folders; more is a circle of links


class DirectoryFiles:
    """Reads files of one policy directory and remembers what was read, for the digest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[str, bytes] = {}

    def policies(self) -> list[PolicyText]:
        """The policy files by name. Raises PolicyError: no directory, no policies, unreadable."""
        problems: list[Problem] = []
        texts = []
        for name in self._names():
            shown = str(self._directory / name)
            try:
                texts.append(PolicyText(shown, self.read(name, document.MAX_BYTES)))
            except OSError as error:
                problems.append(Problem(shown, 0, 0, f"cannot be read: {_why(error)}"))
        if problems:
            raise PolicyError(problems)
        return texts

    def read(self, path: str, limit: int = listfiles.MAX_BYTES) -> bytes:
        """A file below the directory, up to one byte over the limit. Raises OSError."""
        text = _read_regular(self._real(path), limit)
        self._read[path] = hashlib.sha256(text).digest()
        return text

    def list_folder(self, path: str, most: int) -> list[tuple[str, int]]:
        """The files below a folder, hidden ones left out: (path from there, size), sorted.

        At most `most` and one: then there are too many. Links are followed as far as they stay
        in the policy directory. Raises OSError.
        """
        found: list[tuple[str, int]] = []
        self._walk(self._real(path), "", found, most, _MAX_DEPTH)
        return sorted(found)

    def _walk(
        self, folder: str, prefix: str, found: list[tuple[str, int]], most: int, depth: int
    ) -> None:
        for name in sorted(os.listdir(folder)):
            if name.startswith(".") or len(found) > most:
                continue
            real = self._real(os.path.join(folder, name), f"{prefix}{name} ")
            about = os.stat(real)
            if stat.S_ISREG(about.st_mode):
                found.append((prefix + name, about.st_size))
            elif not stat.S_ISDIR(about.st_mode):
                raise OSError(errno.EINVAL, f"{prefix}{name} is not a regular file")
            elif depth == 0:
                raise OSError(errno.ELOOP, f"{prefix}{name} is more than {_MAX_DEPTH} folders deep")
            else:
                self._walk(real, f"{prefix}{name}/", found, most, depth - 1)

    def _real(self, path: str, who: str = "it ") -> str:
        """Where a path below the directory leads, links followed. Raises OSError if outside."""
        real, root = os.path.realpath(self._directory / path), os.path.realpath(self._directory)
        if os.path.commonpath((real, root)) != root:
            raise OSError(errno.EACCES, f"{who}is outside the policy directory")
        return real

    def digest(self) -> bytes:
        """Of the names and contents of everything that was read."""
        whole = hashlib.sha256()
        for path in sorted(self._read):
            whole.update(path.encode("utf-8", "surrogateescape") + b"\0" + self._read[path])
        return whole.digest()

    def _names(self) -> list[str]:
        shown = str(self._directory)
        try:
            names = sorted(name for name in os.listdir(self._directory) if _is_policy(name))
        except OSError as error:
            raise PolicyError([Problem(shown, 0, 0, _why(error), "the policy directory")]) from None
        if not names:
            message = "there is no policy in this directory"
            advice = "policies are *.yaml files; for `permit all` write one without rules"
            raise PolicyError([Problem(shown, 0, 0, message, advice)])
        if len(names) > MAX_FILES:
            message = f"{len(names)} policy files, at most {MAX_FILES}"
            raise PolicyError([Problem(shown, 0, 0, message)])
        return names


def _read_regular(path: str, limit: int) -> bytes:
    """Contents of a regular file; a pipe or device would hold the reload for ever."""
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(limit + 1)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_policy(name: str) -> bool:
    lower = name.lower()
    return lower.endswith(_SUFFIXES) and not lower.endswith(_TESTS) and not name.startswith(".")


def _why(error: OSError) -> str:
    return error.strerror or str(error)
