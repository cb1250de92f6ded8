"""Globs: `*` is any text, `?` is any one character, nothing else is special.

Matched against the whole value. Work is linear in the value for every pattern: the shapes that
policies are made of become string operations, the rest goes to RE2, never to a backtracking
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from proxy.policy.regex import compile_regex, quote

Matcher = Callable[[str], bool]


def is_glob(pattern: str) -> bool:
    """Whether the pattern has a wildcard at all."""
    return "*" in pattern or "?" in pattern


def compile_globs(patterns: Iterable[str]) -> Matcher:
    """A predicate over octet strings (see `proxy.policy.extract`): any of the patterns matches.

    Raises ValueError when a pattern is too large for the engine.
    """
    literals, heads, tails, others = set(), [], [], []
    for pattern in patterns:
        inner = pattern.strip("*")
        if not is_glob(pattern):
            literals.add(pattern)
        elif is_glob(inner) or not inner or pattern[0] == pattern[-1] == "*":
            others.append(_one(pattern))
        elif pattern[0] == "*":
            tails.append(inner)
        else:
            heads.append(inner)
    return _any(frozenset(literals), tuple(heads), tuple(tails), tuple(others))


def _any(
    literals: frozenset[str],
    heads: tuple[str, ...],
    tails: tuple[str, ...],
    others: tuple[Matcher, ...],
) -> Matcher:
    """Literals by one look-up, `x*` and `*x` by one call each, however many there are."""
    if not heads and not tails and len(others) <= 1:
        if not others:
            return literals.__contains__
        if not literals:
            return others[0]

    def matches(value: str) -> bool:
        if value in literals or value.startswith(heads) or value.endswith(tails):
            return True
        for other in others:  # noqa: SIM110 (any() costs a generator, and this line is hot)
            if other(value):
                return True
        return False

    return matches


def _one(pattern: str) -> Matcher:
    if "?" in pattern:
        return _by_regex(pattern)
    head, *between, tail = pattern.split("*")
    middle = [piece for piece in between if piece]
    if not head and not tail and len(middle) < 2:
        piece = middle[0] if middle else ""
        return lambda value: piece in value
    return _pieces(head, middle, tail)


def _pieces(head: str, middle: list[str], tail: str) -> Matcher:
    """Leftmost find of each piece in turn: with `*` alone the greedy choice is never wrong."""

    def matches(value: str) -> bool:
        if not value.startswith(head) or not value.endswith(tail):
            return False
        at, end = len(head), len(value) - len(tail)
        for piece in middle:
            found = value.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        return at <= end

    return matches


def _by_regex(pattern: str) -> Matcher:
    parts = {"*": ".*", "?": "."}
    text = "".join(parts.get(char) or quote(char) for char in pattern)
    return compile_regex(f"^(?:{text})$", octets=True)
