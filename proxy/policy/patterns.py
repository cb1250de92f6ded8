"""Regular expressions and their replacements in a policy: said to be wrong where they are."""

from __future__ import annotations

import re

import re2

from proxy.patterns import PatternError, literal, regex
from proxy.policy.regex import compile_regex
from proxy.policy.scalars import shortened
from proxy.policy.values import Unfit

MAX_PATTERN = 4096
_REFERENCE = re.compile(r"\\(.?)", re.DOTALL)
#: What backtracking engines have and RE2, whose time is linear, has not.
_FOREIGN = ("(?=", "(?!", "(?<=", "(?<!", "(?>")


def read_pattern(pattern: str) -> str:
    """An RE2 pattern. Raises Unfit with RE2's words and the place in the pattern."""
    if not pattern or len(pattern) > MAX_PATTERN:
        raise Unfit(f"a pattern of {len(pattern)} characters", f"1 to {MAX_PATTERN}")
    try:
        compile_regex(pattern)
    except ValueError as error:
        raise _unfit(pattern, str(error)) from None
    return pattern


def read_literal(text: str) -> str:
    """A text that can be searched for in a stream. Raises Unfit."""
    try:
        literal(text)
    except PatternError as error:
        raise Unfit(str(error), error.hint) from None
    return text


def read_stream_pattern(pattern: str) -> str:
    """An RE2 pattern that can be searched for in a stream. Raises Unfit."""
    read_pattern(pattern)
    try:
        regex(pattern)
    except PatternError as error:
        raise Unfit(str(error), error.hint) from None
    return pattern


def _unfit(pattern: str, words: str) -> Unfit:
    """RE2 names what it stumbled over; where it stands in the pattern once, that is the place."""
    reason, colon, piece = words.partition(": ")
    if not colon or pattern == piece or pattern.count(piece) != 1:
        place = f" in {shortened(pattern)!r}"
    else:
        place = f" at character {pattern.index(piece) + 1}: {shortened(piece)!r}"
    foreign = next((mark for mark in _FOREIGN if mark in pattern), None)
    advice = "RE2 syntax: github.com/google/re2/wiki/Syntax"
    if foreign is not None:
        place = f" at character {pattern.index(foreign) + 1}: {foreign!r}"
        advice = "RE2 has no look-around: use `not`, or the rule's `except`"
    elif re.search(r"\\[1-9]", pattern):
        advice = "RE2 has no back-references"
    return Unfit(f"bad regular expression: {reason}{place}", advice)


def check_rewrite(pattern: str, by: str) -> None:
    r"""A replacement with `\0` to `\9`. Raises Unfit for groups that the pattern has not."""
    groups = re2.compile(pattern).groups
    for reference in _REFERENCE.finditer(by):
        digit = reference[1]
        if digit == "\\":
            continue
        if digit not in "0123456789" or not digit:
            raise Unfit(rf"'\{digit}' in a replacement", r"write \0 to \9 for groups, \\ for \ ")
        if int(digit) > groups:
            raise Unfit(rf"\{digit} in a replacement", f"the pattern has {groups} groups")
