"""Sizes and durations as people write them: `8MiB`, `64k`, `10s`, `500ms`, plain numbers."""

from __future__ import annotations

import math
import re

_SIZES = {"": 1, "b": 1, "k": 1024, "kib": 1024, "kb": 1000, "m": 1024**2, "mib": 1024**2}
_SIZES |= {"mb": 1000**2, "g": 1024**3, "gib": 1024**3, "gb": 1000**3}
_TIMES = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*")
_MOST = 2.0**53  #: beyond it a float no longer tells neighbours apart


def to_bytes(value: object) -> int:
    """Bytes, or a plain count. Raises ValueError that says what was expected."""
    amount = _scaled(value, _SIZES)
    if amount is None or amount != int(amount):
        raise ValueError("expected a number, or a size such as 64KiB or 8MiB")
    return int(amount)


def to_seconds(value: object) -> float:
    """Seconds. Raises ValueError that says what was expected."""
    amount = _scaled(value, _TIMES)
    if amount is None:
        raise ValueError("expected seconds, or a duration such as 10s, 500ms or 5min")
    return amount


def _scaled(value: object, units: dict[str, float] | dict[str, int]) -> float | None:
    """The number that is meant, from 0 to 2**53; None where there is none."""
    if isinstance(value, str):
        found = _AMOUNT.fullmatch(value)
        if found is None or found[2].lower() not in units:
            return None
        value = float(found[1]) * units[found[2].lower()]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        return None
    return float(value) if math.isfinite(value) else None
