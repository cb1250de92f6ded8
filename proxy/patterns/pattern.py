"""A pattern with a finite maximum match, and sets of them compiled to be searched at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PatternError(ValueError):
    """Why a regular expression cannot be used on a stream. `hint` says what could be done."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class StreamPattern:
    """`source` as the policy has it; `regex` RE2 text over octets (UTF-8), the same meaning."""

    source: str
    regex: str
    literal: bool
    max_bytes: int


def literal(text: str, *, ignore_case: bool = False) -> StreamPattern:
    """A text to be found as it is. Raises PatternError for an empty one."""
    raise NotImplementedError


def regex(text: str) -> StreamPattern:
    """A regular expression whose matches are not empty and have a finite maximum length."""
    raise NotImplementedError


class PatternSet:
    """Several patterns, numbered in their order, searched together."""

    def __init__(self, patterns: Sequence[StreamPattern]) -> None:
        self.patterns = tuple(patterns)
