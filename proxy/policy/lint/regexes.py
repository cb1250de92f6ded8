"""Regular expressions that cost more than they need to.

RE2 is linear in what it reads, whatever the pattern, and a pattern for content has a finite
maximum by construction (`proxy.patterns`). What is left to say is how large they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import re2

from proxy.patterns import StreamPattern, regex
from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.lint.book import Book, Entry, tests_in
from proxy.policy.lint.finding import Finding, Level

_PROGRAM = 10_000  #: instructions of a compiled pattern
_HELD = 1024  #: bytes that a stream holds back for one pattern
#: A .* that only says that something may stand before; flags and ^ change nothing of it.
_IDLE = re.compile(r"(?:\(\?[is]+\))?\^?\.\*(?=[^?*+{])")


def regexes(book: Book) -> Iterator[Finding]:
    for entry in book.entries:
        for test in _tests(entry):
            for compare in test.compares:
                if compare.op is Op.REGEX:
                    yield from _idle(entry, str(compare.value), test.mark)
                    yield from _large(entry, str(compare.value), test.mark)
        for text in _replaced(entry):
            yield from _large(entry, text, entry.rule.mark)
        for pattern, mark in _patterns(entry):
            if pattern.max_bytes > _HELD:
                yield _held(entry, pattern, mark)


def _replaced(entry: Entry) -> Iterator[str]:
    """Patterns of edits; here a .* is part of what is replaced."""
    for action in entry.rule.then:
        if isinstance(action, ast.RewriteUrl) and action.regex is not None:
            yield action.regex
        elif isinstance(action, ast.Headers):
            yield from (change.regex for change in action.replace)


def _patterns(entry: Entry) -> Iterator[tuple[StreamPattern, ast.Mark]]:
    for test in _tests(entry):
        if test.field == "body":
            yield from ((pattern, test.mark) for pattern in _searched(test.compares))
    for action in entry.rule.then:
        if isinstance(action, ast.Replace):
            yield from ((item.pattern, entry.rule.mark) for item in action.items)


def _searched(compares: Iterable[ast.Compare]) -> Iterator[StreamPattern]:
    """Texts are as long as they are written; only a pattern may be longer than it looks."""
    return (regex(str(compare.value)) for compare in compares if compare.op is Op.REGEX)


def _tests(entry: Entry) -> Iterator[ast.Test]:
    for condition in (entry.rule.when, entry.rule.unless):
        yield from tests_in(condition)


def _idle(entry: Entry, text: str, mark: ast.Mark) -> Iterator[Finding]:
    found = _IDLE.match(text)
    if found is not None and "|" not in text:
        yield Finding(
            "lint.regex_idle",
            Level.WARNING,
            mark,
            f"the .* at the beginning of {_short(text)} finds nothing more",
            "patterns are searched anywhere: leave it out",
            entry.id,
        )


def _large(entry: Entry, text: str, mark: ast.Mark) -> Iterator[Finding]:
    size = re2.compile(text).programsize
    if size > _PROGRAM:
        yield Finding(
            "lint.regex_large",
            Level.WARNING,
            mark,
            f"{_short(text)} compiles to {size} instructions",
            "it is still linear, but slow to begin with: lower its repetitions, or use a list",
            entry.id,
        )


def _held(entry: Entry, pattern: StreamPattern, mark: ast.Mark) -> Finding:
    return Finding(
        "lint.held_back",
        Level.WARNING,
        mark,
        f"a match of {_short(pattern.source)} may have {pattern.max_bytes} bytes: up to that many"
        " are held back wherever it may have begun",
        f"lower its upper bounds; {_HELD} bytes pass unnoticed",
        entry.id,
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
