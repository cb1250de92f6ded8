"""Globs: `*` is any text, `?` is any one character, nothing else is special.

Matched against the whole value. Work is linear in the value for every pattern: the shapes that
policies are made of become string operations, the rest goes to RE2, never to a backtracking
engine.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.policy.regex import compile_regex, quote

Matcher = Callable[[str], bool]


def is_glob(pattern: str) -> bool:
    """Whether the pattern has a wildcard at all."""
    return "*" in pattern or "?" in pattern


def compile_glob(pattern: str) -> Matcher:
    """A predicate over octet strings (see `proxy.policy.extract`).

    Raises ValueError when the pattern is too large for the engine.
    """
    if "?" in pattern:
        return _by_regex(pattern)
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return pattern.__eq__
    head, middle, tail = pieces[0], [p for p in pieces[1:-1] if p], pieces[-1]
    if middle:
        return _pieces(head, middle, tail)
    if not head and not tail:
        return lambda value: True
    if not tail:
        return lambda value: value.startswith(head)
    if not head:
        return lambda value: value.endswith(tail)
    least = len(head) + len(tail)
    return lambda value: len(value) >= least and value.startswith(head) and value.endswith(tail)


def _pieces(head: str, middle: list[str], tail: str) -> Matcher:
    """Leftmost find of each piece in turn: with `*` alone the greedy choice is never wrong."""

    def matches(value: str) -> bool:
        if not value.startswith(head) or not value.endswith(tail):
            return False
        at, end = len(head), len(value) - len(tail)
        for piece in middle:
            found = value.find(piece, at, max(end, 0))
            if found < 0:
                return False
            at = found + len(piece)
        return at <= end

    return matches


def _by_regex(pattern: str) -> Matcher:
    parts = {"*": ".*", "?": "."}
    text = "".join(parts.get(char) or quote(char) for char in pattern)
    return compile_regex(f"^(?:{text})$", octets=True)
