"""What lint says: a finding with its place. Findings never make policies unusable."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from proxy.policy.ast import Mark


class Level(enum.StrEnum):
    WARNING = "warning"  #: it cannot be what was meant, or nothing comes of it
    INFO = "info"  #: it works, and costs something that one should know of


@dataclass(frozen=True, slots=True)
class Finding:
    """`id` is stable: `lint.unreachable` …; `rule` where it is about one rule."""

    id: str
    level: Level
    mark: Mark
    message: str
    advice: str = ""
    rule: str | None = None

    def __str__(self) -> str:
        place = f"{self.mark.file}:{self.mark.line}:{self.mark.column}"
        advice = f" ({self.advice})" if self.advice else ""
        return f"{place}: {self.level.value} {self.id}: {self.message}{advice}"
