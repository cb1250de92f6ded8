"""RE2 as the patterns use it: octets in and out, memory bounded, never a line on stderr.

https://github.com/google/re2/blob/main/re2/re2.h: a program that does not fit in `max_mem` is
refused, an automaton that does not fit while it runs is built anew or left for slower ways;
the answers are the same.
"""

from __future__ import annotations

from typing import Any

import re2

from proxy.patterns.errors import PatternError

SMALL_MEMORY = 8 << 20
LARGE_MEMORY = 64 << 20
SMALL_STATES = 4096


def options(states: int) -> Any:
    """Options for a pattern whose automaton has about so many states."""
    chosen = re2.Options()
    chosen.encoding = re2.Options.Encoding.LATIN1
    chosen.dot_nl = True
    chosen.never_nl = False
    chosen.log_errors = False
    chosen.max_mem = SMALL_MEMORY if states <= SMALL_STATES else LARGE_MEMORY
    return chosen


def compiled(regex: str, states: int) -> Any:
    """A compiled pattern of the `re2` module. Raises PatternError if RE2 refuses it."""
    try:
        return re2.compile(regex.encode("ascii"), options(states))
    except re2.error as error:
        raise PatternError(f"RE2 refuses it: {error}", "make it smaller") from None
