"""Replace patterns in content that streams by.

The result is RE2's global substitution over the whole: leftmost match first, of several there
the pattern that stands first, replaced content never searched again. What is here is settled
up to the leftmost place from which a match may still come about or grow (a live prefix, see
`proxy.patterns.tree`); only that much is held back, at most one byte less than the longest
match. Nothing is done per byte in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from proxy.patterns import Found, PatternError, PatternSet, StreamPattern

_Insert = Callable[[bytes, Found], bytes]
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)


class ReplacePlan:
    """What to replace by what, compiled: immutable, one per rule, shared by all its flows.

    `by` of a literal is inserted as it is, of a regex it is an RE2 rewrite (re2.h): \\0 is the
    match, \\1 to \\9 are its groups, \\\\ is a backslash. Raises PatternError for a rewrite that
    is none, or names a group that there is not.
    """

    def __init__(self, items: Sequence[tuple[StreamPattern, str]]) -> None:
        self.patterns = PatternSet([pattern for pattern, _ in items])
        self.inserts = tuple(_insert(pattern, by) for pattern, by in items)


class StreamReplacer:
    """An editor of one stream (callouts.http.body.Editor)."""

    def __init__(self, plan: ReplacePlan) -> None:
        self.count = 0  #: replacements made
        self._patterns = plan.patterns
        self._inserts = plan.inserts
        self._held = b""
        self._before = 0  # leading octets of `_held` that are gone, kept for a \b to look at

    @property
    def inserted(self) -> bool:
        return self.count > 0

    @property
    def outcome(self) -> str:
        """What became of it, for records."""
        return "replaced" if self.count else "no_match"

    @property
    def held(self) -> int:
        """Bytes taken and neither passed on nor replaced yet."""
        return len(self._held) - self._before

    def feed(self, data: bytes) -> bytes:
        """Content in; content that is settled out. Nothing changed: the very same object."""
        if not data:
            return b""
        buffer = self._held + data if self._held else bytes(data)
        at = self._before
        pieces, at, live = self._substitute(buffer, at, self._patterns.live(buffer, at))
        if not pieces and at == 0 and live == len(buffer):
            out = buffer
        else:
            pieces.append(buffer[at:live])
            out = b"".join(pieces)
        self._keep(buffer, live)
        return out

    def finish(self) -> bytes:
        """The content has ended: what was held, its matches replaced."""
        buffer, self._held = self._held, b""
        at, self._before = self._before, 0
        pieces, at, end = self._substitute(buffer, at, len(buffer))
        return b"".join([*pieces, buffer[at:end]])

    def _substitute(self, buffer: bytes, at: int, live: int) -> tuple[list[bytes], int, int]:
        """Replace the matches that begin before `live`.

        Answers the pieces, where the rest of the buffer begins, and what of it is live: the
        last match may have taken the live prefix with it.
        """
        pieces: list[bytes] = []
        while at < live:
            for found in self._patterns.matches(buffer, at, live):
                pieces.append(buffer[at : found.start])
                pieces.append(self._inserts[found.number](buffer, found))
                self.count += 1
                at = found.end
            if at <= live:
                break
            live = self._patterns.live(buffer, at)
        return pieces, at, live

    def _keep(self, buffer: bytes, at: int) -> None:
        self._before = 1 if at and self._patterns.boundary else 0
        self._held = buffer[at - self._before :]


def _insert(pattern: StreamPattern, by: str) -> _Insert:
    """What computes the replacement of a match."""
    if pattern.literal:
        text = by.encode()
        return lambda buffer, found: text
    parts = rewrite(pattern, by)
    if all(isinstance(part, bytes) for part in parts):
        fixed = b"".join(part for part in parts if isinstance(part, bytes))
        return lambda buffer, found: fixed
    return lambda buffer, found: _expand(parts, buffer, found)


def _expand(parts: Sequence[bytes | int], buffer: bytes, found: Found) -> bytes:
    pieces = []
    for part in parts:
        if isinstance(part, bytes):
            pieces.append(part)
        else:
            start, end = found.spans[part]
            pieces.append(buffer[start:end] if start >= 0 else b"")
    return b"".join(pieces)


def rewrite(pattern: StreamPattern, by: str) -> tuple[bytes | int, ...]:
    """An RE2 rewrite as texts and numbers of groups. Raises PatternError."""
    parts: list[bytes | int] = []
    text, at = by.encode(), 0
    for escape in _ESCAPE.finditer(text):
        parts.append(text[at : escape.start()])
        at = escape.end()
        if escape[1].isdigit():
            parts.append(int(escape[1]))
            _check_group(pattern, int(escape[1]))
        elif escape[1] == b"\\":
            parts.append(b"\\")
        else:
            hint = r"write \\ for a backslash"
            raise PatternError("a backslash is followed by neither a digit nor another", hint)
    parts.append(text[at:])
    return tuple(part for part in parts if part != b"")


def _check_group(pattern: StreamPattern, number: int) -> None:
    if number > pattern.groups:
        groups = f"there are {pattern.groups}" if pattern.groups else "there is none"
        raise PatternError(f"\\{number} names a group, and {groups}", r"\0 is the whole match")
