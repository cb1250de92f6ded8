"""Traces that no decent peer would make: mutations of decent ones, random bytes, odd signals."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from proxy.contract import (
    DialFailure,
    Drain,
    Overload,
    TimerFired,
    UpstreamConnected,
    UpstreamFailed,
)
from proxy.engine import effects as fx
from proxy.model import Direction
from proxy.testing.trace import Elapse, Item, Trace

OUT, IN = Direction.OUTBOUND, Direction.INBOUND
_TOKENS = (b"\r\n", b"\n", b"\0", b"\xff\xfe", b":", b" ", b"{", b"<", b"\r\n\r\n", b"0", b"\x80")
_LONG = 6000  # bytes of a run without any structure


def hostile_traces(traces: Sequence[Trace], rng: random.Random, count: int) -> Iterator[list[Item]]:
    """`count` traces that a flow could meet, most of them made of `traces`."""
    for _ in range(count):
        base = rng.choice(traces) if traces and rng.random() < 0.8 else _noise(rng)
        items = [_mutated(item, rng) for item in base]
        yield list(_possible(_with_signals(items, rng)))


def _noise(rng: random.Random) -> Trace:
    items: list[Item] = []
    for _ in range(rng.randint(1, 5)):
        items.append(fx.Data(rng.choice((OUT, IN)), _random_bytes(rng)))
    return [*items, fx.Disconnect(OUT), fx.Disconnect(IN)]


def _random_bytes(rng: random.Random) -> bytes:
    match rng.randrange(4):
        case 0:
            return rng.randbytes(rng.randint(1, 40))
        case 1:
            return b"".join(rng.choices(_TOKENS, k=rng.randint(1, 30)))
        case 2:
            return rng.choice(_TOKENS) * rng.randint(1, 200)
        case _:
            return bytes([rng.randrange(256)]) * rng.randint(_LONG // 2, _LONG)


def _mutated(item: Item, rng: random.Random) -> Item:
    if not isinstance(item, fx.Data) or rng.random() < 0.3:
        return item
    data = bytearray(item.data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        n = rng.randint(1, 8)
        match rng.randrange(5):
            case 0:
                del data[at : at + n]
            case 1:
                data[at:at] = _random_bytes(rng)[:64]
            case 2:
                data[at : at + n] = rng.randbytes(n)
            case 3:
                data[at:at] = data[max(0, at - 4 * n) : at]
            case _:
                del data[at + 4 * n :]
    return fx.Data(item.direction, bytes(data) or b"\0")


def _with_signals(items: list[Item], rng: random.Random) -> list[Item]:
    signals: tuple[Item, ...] = (
        Drain(),
        Overload(),
        UpstreamConnected(),
        TimerFired("nobody's"),
        Elapse(rng.choice((0.1, 11.0, 400.0))),
        fx.Abort(rng.choice((OUT, IN))),
        fx.Disconnect(rng.choice((OUT, IN))),
        UpstreamFailed(rng.choice(list(DialFailure))),
    )
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        items.insert(rng.randrange(len(items) + 1), rng.choice(signals))
    return items


def _possible(items: list[Item]) -> Iterator[Item]:
    """Without what a socket cannot do: nothing follows the end of a direction."""
    ended = [False, False]
    for item in items:
        match item:
            case fx.Data(direction, data):
                if data and not ended[direction]:
                    yield item
                continue
            case fx.Disconnect(direction) | fx.Abort(direction):
                if ended[direction]:
                    continue
                ended[direction] = True
            case UpstreamFailed():
                if ended[IN]:
                    continue
                ended[IN] = True
        yield item
