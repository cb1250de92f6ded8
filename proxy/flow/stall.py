"""Notice a peer that takes nothing: bytes wait for it and their number does not shrink."""

from __future__ import annotations

from collections.abc import Callable

from proxy.model import Direction


class Stall:
    """Per direction: since when its sink has been full, and how much waited then."""

    __slots__ = ("_since", "_unsent")

    def __init__(self) -> None:
        self._since: list[float | None] = [None, None]
        self._unsent = [0, 0]

    def change(self, direction: Direction, writable: bool, now: float) -> None:
        self._since[direction] = None if writable else now
        self._unsent[direction] = 0

    def stuck(self, now: float, limit: float, unsent: Callable[[Direction], int]) -> bool:
        """True when some sink took no byte for `limit` seconds."""
        for direction in Direction:
            since = self._since[direction]
            if since is None:
                continue
            waiting = unsent(direction)
            if waiting != self._unsent[direction]:
                self._since[direction], self._unsent[direction] = now, waiting
            elif now - since > limit:
                return True
        return False
