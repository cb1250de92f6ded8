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
        real, root = os.path.realpath(self._directory / path), os.path.realpath(self._directory)
        if os.path.commonpath((real, root)) != root:
            raise OSError(errno.EACCES, "it is outside the policy directory")
        text = _read_regular(real, limit)
        self._read[path] = hashlib.sha256(text).digest()
        return text

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
