"""The nearest valid name for one that is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_FEW = 12


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that was most likely meant, or None. Case does not matter."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def hint(word: object, names: Iterable[str]) -> str:
    """`did you mean 'x'?`, or what there is to choose from where that is short."""
    known = [str(name) for name in names]
    found = nearest(word, known) if isinstance(word, str) else None
    if found is not None:
        return f"did you mean {found!r}?"
    if not known:
        return "there is none"
    return f"expected {one_of(known)}" if len(known) <= _FEW else ""


def one_of(names: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
