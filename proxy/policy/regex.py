"""Regular expressions by RE2: linear time, bounded memory, searched unanchored.

Patterns and subjects are octets: a pattern is written in UTF-8 and matches those octets, a
subject is an octet string (see `proxy.policy.extract`). `.` is one octet, newlines included.
Case folding, where the field folds, is ASCII's. github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

from collections.abc import Callable

import re2

#: Budget of one pattern's program and automata. RE2 refuses a program that needs more than its
#: share and falls back from DFA to NFA (slower, still linear) when the cache is full.
MAX_BYTES = 4 * 1024 * 1024


def quote(text: str) -> str:
    """The pattern that matches exactly this text."""
    quoted: str = re2.escape(text)
    return quoted


def compile_regex(
    pattern: str, *, fold: bool = False, octets: bool = False
) -> Callable[[str], bool]:
    """A predicate over octet strings: whether the pattern occurs.

    `octets`: the pattern is an octet string itself, not text to be taken as UTF-8.
    Raises ValueError with RE2's own words.
    """
    options = re2.Options()
    options.max_mem = MAX_BYTES
    options.log_errors = False
    options.dot_nl = True
    options.case_sensitive = not fold
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        source = pattern.encode("latin-1" if octets else "utf-8")
        search = re2.compile(source, options).search
    except re2.error as error:
        raise ValueError(_words(error)) from error

    def occurs(value: str) -> bool:
        return search(value.encode("latin-1")) is not None

    return occurs


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else "not a pattern"
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
