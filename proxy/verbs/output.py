"""What every verb shares: exit codes, and how things are said to people and to programs."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

OK, FINDINGS, USAGE, CANNOT_START = range(4)

RED, GREEN, YELLOW, CYAN, GREY = "31", "32", "33", "36", "90"


def paint(colour: str, text: str) -> str:
    """Colour on a terminal only, and never with NO_COLOR (no-color.org)."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def count(number: int, one: str, many: str = "") -> str:
    """`1 rule`, `2 rules`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def shown(value: Any) -> str:
    """A JSON value on one line, for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def complain(text: str) -> None:
    """To standard error, where a pipe does not read it."""
    print(text, file=sys.stderr)
