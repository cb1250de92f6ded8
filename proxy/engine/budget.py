"""The process-wide bound on bytes that stages of all flows hold together."""

from __future__ import annotations


class Budget:
    """Counts held bytes. One object per process, shared by the engines of one thread.

    INVARIANT: what an engine takes it gives back, at the latest in `Engine.close`; then
    `used` is 0 when no flow is open.
    """

    __slots__ = ("maximum", "used")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.used = 0

    def take(self, n: int) -> bool:
        """Reserve n bytes. False, and nothing is reserved, when they do not fit."""
        if self.used + n > self.maximum:
            return False
        self.used += n
        return True

    def give(self, n: int) -> None:
        """Give back n bytes that were taken. ValueError when they never were."""
        if n > self.used:
            raise ValueError(f"{n} bytes given back, {self.used} are taken")
        self.used -= n
