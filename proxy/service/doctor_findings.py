"""What a check of doctor says: one line, and what to do about it.

`fail` is kept for what keeps Sluicegate from doing its work here; what only keeps one of the
ways in from working is a warning, because another may do.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from proxy.service.doctor_facts import Facts


class Level(enum.StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `advice` is a sentence of what to do; empty where there is nothing to do."""

    check: str
    level: Level
    text: str
    advice: str = ""


Check = Callable[[Facts], Iterator[Finding]]


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.WARN, text, advice)


def fail(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.FAIL, text, advice)
