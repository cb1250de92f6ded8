"""How doctor asks a machine: small questions, each bounded, none of which changes anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SECONDS = 10.0


def ask(*command: str) -> tuple[bool, str]:
    """Run a tool: whether it ended well, and what it printed (or its complaint)."""
    places = os.environ.get("PATH", os.defpath)
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{places}{os.pathsep}/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        return False, f"{command[0]} is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"{command[0]} did not answer: {error}"
    told = done.stdout if done.returncode == 0 else done.stderr or done.stdout
    return done.returncode == 0, told.decode(errors="replace").strip()


def read(path: str) -> str | None:
    """A small file's text; None when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: str) -> int | None:
    text = read(path)
    return int(text) if text is not None and text.isdigit() else None
