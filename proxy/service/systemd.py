"""The shipped systemd unit with this installation's paths in it.

Only text and paths; `proxy.service.installation` carries it out. systemd.service(5),
systemd.syntax(7).
"""

from __future__ import annotations

import re
from pathlib import Path

from proxy.errors import StartError

MARK = "# Written by `sluicegate service install`; drop-ins go into sluicegate.service.d/\n"
_COMMAND = re.compile(r"(?m)^ExecStart=.*$")
_USER = re.compile(r"(?m)^(User|Group)=.*$")
_HOW_TO = re.compile(r"\A(?:#[^\n]*\n)+\n")  # the shipped unit's words on how to install it
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+=,-]+")


def shipped_unit() -> Path:
    """The unit that ships: in the installed package, or in a checkout. Raises StartError."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "shipped_units", package.parent / "deploy" / "systemd"):
        if (folder / "sluicegate.service").is_file():
            return folder / "sluicegate.service"
    raise StartError(
        "this installation has no systemd unit; install Sluicegate's wheel, or use a source tree"
    )


def filled_in(text: str, command: list[str], user: str) -> str:
    """The unit with the command and the user of this machine. Raises StartError."""
    if not _PLAIN.fullmatch(user):
        raise StartError(f"{user!r} is not the name of a user")
    line = "ExecStart=" + " ".join(map(quoted, command))
    made, commands = _COMMAND.subn(lambda match: line, _HOW_TO.sub("", text))
    made, users = _USER.subn(lambda match: f"{match[1]}={user}", made)
    if (commands, users) != (1, 2):
        raise StartError("the shipped systemd unit is not as expected: reinstall Sluicegate")
    return MARK + made


def quoted(word: str) -> str:
    """One word of a command line; systemd.syntax(7) QUOTING, systemd.unit(5) SPECIFIERS."""
    if "\n" in word or "\0" in word:
        raise StartError(f"{word!r} cannot stand in a systemd unit")
    # A percent sign begins a specifier, a dollar sign a variable of the environment.
    escaped = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'
