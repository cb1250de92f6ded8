"""Traces of a flow, and the ways to cut them.

A trace is what happens to a flow, in order: data and FIN of either side, signals, and time
that passes. Cutting it anew means: the same bytes in other reads.

    trace = [Data(OUTBOUND, b"GET / HTTP/1.1\\r\\n..."), Data(INBOUND, b"HTTP/1.1 200 ..."),
             Elapse(10.0), Disconnect(OUTBOUND)]
    conversation(("C", b"EHLO a\\r\\n"), ("S", b"250 ok\\r\\n"))   # the same in short
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxy.engine import effects as fx
from proxy.model import Direction

_BOTH = (Direction.OUTBOUND, Direction.INBOUND)
_FEW = 12  # cuts of a trace that is cut in few places
_WIDE = 64  # bytes of the widest regular pieces
_RUNS = re.compile(rb"(.)\1{39,}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Elapse:
    """Virtual time passes; timers that fall due fire in order."""

    seconds: float


Item = fx.Indication | Elapse
Trace = Sequence[Item]
Pieces = Sequence[Sequence[Item]]  #: per item of a trace, what it was cut into


def conversation(*parts: tuple[str, bytes]) -> list[Item]:
    """A trace from ('C', bytes) and ('S', bytes); ends with both FINs, the client's first."""
    trace: list[Item] = [fx.Data(_BOTH[who == "S"], data) for who, data in parts]
    return [*trace, *(fx.Disconnect(direction) for direction in _BOTH)]


def data_size(trace: Trace) -> int:
    """Bytes of all data items together: cuts are positions in 0..data_size."""
    return sum(len(item.data) for item in trace if isinstance(item, fx.Data))


def recut(trace: Trace, cuts: Sequence[int]) -> Pieces:
    """Cut the data items of a trace at these positions of their concatenation."""
    at, places = 0, sorted(set(cuts))
    pieces: list[list[Item]] = []
    for item in trace:
        if not isinstance(item, fx.Data):
            pieces.append([item])
            continue
        end = at + len(item.data)
        edges = [at, *(cut for cut in places if at < cut < end), end]
        parts = [item.data[a - at : b - at] for a, b in itertools.pairwise(edges)]
        pieces.append([fx.Data(item.direction, part) for part in parts])
        at = end
    return pieces


def byte_by_byte(trace: Trace) -> list[int]:
    """The cuts that feed one byte at a time."""
    return list(range(1, data_size(trace)))


def every_cut(trace: Trace) -> Iterator[list[int]]:
    """All ways to cut a short trace: 2^(n-1) of them for n bytes."""
    places = byte_by_byte(trace)
    for picks in itertools.product((False, True), repeat=len(places)):
        yield [place for place, pick in zip(places, picks, strict=True) if pick]


def every_split(trace: Trace) -> Iterator[list[int]]:
    """All ways to cut a trace in two."""
    for place in byte_by_byte(trace):
        yield [place]


def random_cuts(trace: Trace, rng: random.Random) -> list[int]:
    """One way to cut a trace at random: in few places, or into pieces of one width."""
    size = data_size(trace)
    if size < 2:
        return []
    if rng.random() < 0.5:
        return sorted(rng.randrange(1, size) for _ in range(rng.randint(1, _FEW)))
    width = rng.randint(1, min(_WIDE, size))
    return list(range(width, size, width))


def _literal(data: bytes) -> str:
    """Python text for bytes; long runs of one byte in short."""
    parts, at = [], 0
    for run in _RUNS.finditer(data):
        if run.start() > at:
            parts.append(repr(data[at : run.start()]))
        parts.append(f"{run[1]!r} * {len(run[0])}")
        at = run.end()
    if at < len(data) or not parts:
        parts.append(repr(data[at:]))
    return " + ".join(parts)


def show(trace: Trace, cuts: Sequence[int] = ()) -> str:
    """A trace as Python text that makes it again, to paste into a test."""
    lines = ["trace = ["]
    for item in trace:
        match item:
            case fx.Data(direction, data):
                lines.append(f"    Data(Direction.{direction.name}, {_literal(data)}),")
            case fx.Disconnect(direction) | fx.Abort(direction):
                lines.append(f"    {type(item).__name__}(Direction.{direction.name}),")
            case _:
                lines.append(f"    {item!r},")
    chosen = list(cuts)
    steps = {b - a for a, b in itertools.pairwise(chosen)}
    if len(chosen) > _FEW and len(steps) == 1:
        return "\n".join(
            [*lines, "]", f"cuts = list(range({chosen[0]}, {chosen[-1] + 1}, {steps.pop()}))"]
        )
    return "\n".join([*lines, "]", f"cuts = {chosen!r}"])
