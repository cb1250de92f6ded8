"""What is wrong with a pattern, and what its author can do."""

from __future__ import annotations


class PatternError(ValueError):
    """Why a regular expression cannot be used on a stream. `hint` says what could be done."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
