"""Ways to cut a conversation: whole, byte by byte, and at random from a seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from proxy.policytest.bench import Cut

#: Pieces that one byte at a time may come to; larger turns are cut into so many.
_MOST_PIECES = 20_000
#: A conversation of more bytes is long.
_LONG = 4 * 1024 * 1024


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    width = 1 + len(data) // _MOST_PIECES
    return [data[at : at + width] for at in range(0, len(data), width)]


def at_random(key: str) -> Cut:
    """Few or many pieces; the same key gives the same cuts."""
    rng = random.Random(key)

    def cut(data: bytes) -> list[bytes]:
        if len(data) < 2:
            return [data]
        most = min(len(data) - 1, rng.choice((1, 3, 12, 60)))
        places = sorted(rng.sample(range(1, len(data)), rng.randint(1, most)))
        return [data[a:b] for a, b in itertools.pairwise([0, *places, len(data)])]

    return cut


def all_cuts(name: str, size: int, cuts: int, seed: int) -> Iterator[tuple[str, Cut]]:
    """Every cut of a test but the whole, with the words for a report; of a long one only two."""
    yield "byte by byte", byte_by_byte
    for number in range(1, (cuts if size <= _LONG else min(cuts, 1)) + 1):
        yield f"in cut {number} of --seed {seed}", at_random(f"{seed}/{name}/{number}")
