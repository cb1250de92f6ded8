"""Content codings (RFC 9110 8.4): their names, and the chains that take them off and put them on.

Everything streams and is bounded. Of a gzip in a gzip each level works in pieces, the innermost
first, so that a bomb is noticed before it is in memory: decoded bytes are counted at every level
and compared with the coded bytes that came in, cell by cell of CELL bytes, so that neither the
content nor the fault depends on how the stream was cut.

A body of no bytes is no fault, whatever its coding: servers send it. Written is always a
complete stream: an empty one where nothing was fed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from proxy.content.encode import ENCODERS
from proxy.content.inflate import Deflate, Gzip
from proxy.content.stages import Broken, Stage
from proxy.content.stages import Fault as Fault
from proxy.content.unbrotli import Brotli
from proxy.content.unzstd import Zstd

NESTED_MAX = 5
CELL = 16384  #: coded bytes by which the ratio is measured

_DECODERS: dict[str, Callable[[], Stage]] = {
    "gzip": Gzip,
    "deflate": Deflate,
    "br": Brotli,
    "zstd": Zstd,
}
SUPPORTED = frozenset(_DECODERS)
_ALIASES = {"x-gzip": "gzip"}  # RFC 9110 8.4.1.3


@dataclass(frozen=True, slots=True)
class CodingLimits:
    """Decoded bytes: any up to `ratio_from`, then `ratio` for each coded byte, never more than
    `total`. 0: no such limit."""

    ratio: int = 100
    ratio_from: int = 8 * 1024 * 1024
    total: int = 0

    def allowed(self, coded: int) -> int | None:
        """How many bytes `coded` bytes may decode to; None: any number."""
        by_ratio = max(self.ratio_from, self.ratio * coded) if self.ratio else None
        if self.total and by_ratio is not None:
            return min(self.total, by_ratio)
        return self.total or by_ratio


def codings_of(values: Sequence[bytes]) -> tuple[str, ...]:
    """Names in the Content-Encoding field lines `values`, lower-case, in the order applied.

    `identity` and empty list members are left out, aliases resolved. What is not a coding's
    name stays as it is, for `unsupported` to find.
    """
    names = (name.strip(b" \t").lower() for value in values for name in value.split(b","))
    texts = (name.decode("latin-1") for name in names if name not in (b"", b"identity"))
    return tuple(_ALIASES.get(text, text) for text in texts)


def unsupported(codings: Sequence[str]) -> str | None:
    """The first coding that cannot be decoded; of too many the first beyond NESTED_MAX."""
    for coding in codings[:NESTED_MAX]:
        if coding not in SUPPORTED:
            return coding
    return codings[NESTED_MAX] if len(codings) > NESTED_MAX else None


class Decoder:
    """Takes `codings` off, the last applied first.

    `fault` and `detail` say why it stopped; nothing raises. What the bytes before the fault
    decode to has been yielded by then (of br see `unbrotli`).
    """

    def __init__(self, codings: Sequence[str], limits: CodingLimits) -> None:
        self.fault: Fault | None = None
        self.detail = ""
        self._limits = limits
        self._names = tuple(reversed(codings))
        self._fed = 0
        self._allowed: int | None = None
        self._stages: list[Stage] = []
        self._sizes = [0] * max(1, len(codings))  # decoded bytes of each level
        wrong = unsupported(codings)
        if wrong is None:
            self._stages = [_DECODERS[name]() for name in self._names]
        elif len(codings) > NESTED_MAX:
            self._stop(Broken(Fault.UNKNOWN, f"more than {NESTED_MAX} codings"))
        else:
            self._stop(Broken(Fault.UNKNOWN, f"unknown coding {wrong[:80]!r}"))

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The content of the next coded bytes, in pieces of at most 64 KiB.

        To be used up before the next call: what is not asked for is not decoded.
        """
        at = 0
        while at < len(data) and self.fault is None:
            size = min(CELL - self._fed % CELL, len(data) - at)
            self._allowed = self._limits.allowed((self._fed // CELL + 1) * CELL)
            self._fed += size
            try:
                yield from self._decode(0, data[at : at + size])
            except Broken as broken:
                self._stop(broken)
            at += size

    def finish(self) -> Iterator[bytes]:
        """The coded stream has ended: a `fault` if it may not end here.

        Yields nothing, as no decoder holds content back.
        """
        fed = self._fed
        for name, stage, size in zip(self._names, self._stages, self._sizes, strict=False):
            if self.fault is None and fed and not stage.whole:
                self._stop(Broken(Fault.TRUNCATED, f"{name}: ended before its end"))
            fed = size
        return iter(())

    def _decode(self, level: int, data: bytes) -> Iterator[bytes]:
        pieces = self._stages[level].feed(data) if self._stages else iter((data,))
        for piece in pieces:
            content = self._within(level, piece)
            if level + 1 < len(self._stages):
                yield from self._decode(level + 1, content)
            elif content:
                yield content
            if len(content) < len(piece):
                raise Broken(Fault.BOMB, f"decodes to more than {self._allowed} bytes")

    def _within(self, level: int, piece: bytes) -> bytes:
        """As much of the piece as the limits allow."""
        if self._allowed is not None:
            piece = piece[: max(0, self._allowed - self._sizes[level])]
        self._sizes[level] += len(piece)
        return piece

    def _stop(self, broken: Broken) -> None:
        self.fault, self.detail = broken.fault, broken.detail
        self._stages = []


class Encoder:
    """Puts `codings` on, in their order. Raises ValueError for one that is not supported."""

    def __init__(self, codings: Sequence[str]) -> None:
        if wrong := unsupported(codings):
            raise ValueError(f"cannot encode {wrong!r}")
        self._stages = [ENCODERS[name]() for name in codings]
        self._pending = False

    def feed(self, data: bytes) -> bytes:
        """Coded bytes that are ready; some of what was fed may wait for more."""
        for stage in self._stages:
            data = stage.feed(data)
        self._pending = True
        return data

    def flush(self) -> bytes:
        """What lets the recipient decode everything that was fed so far."""
        if not self._pending:
            return b""
        self._pending = False
        coded = b""
        for stage in self._stages:
            coded = stage.feed(coded) + stage.flush()
        return coded

    def finish(self) -> bytes:
        """The end of the coded stream."""
        coded = b""
        for stage in self._stages:
            coded = stage.feed(coded) + stage.finish()
        return coded
