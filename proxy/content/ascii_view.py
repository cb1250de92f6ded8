"""A document's bytes as an ASCII reader sees them, and the way back to the bytes.

A tag scanner needs ASCII. In most encodings of the web (encoding.spec.whatwg.org) a byte below
0x80 that could be `<`, `>`, a quote or a space is that character and no part of another, so
the bytes can be read as they are. UTF-16 and ISO-2022-JP are read through a view: characters
outside of ASCII become bytes above it, escape sequences nothing. The bytes themselves are
never decoded and encoded again, so that what is not touched stays as it is, errors included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

_BEYOND = b"\x80"
_ESC = b"\x1b"
_TO_ASCII = b"\x1b(B"
#: ISO-2022-JP, 12.2.1: what an escape sequence leads to; whether bytes are ASCII there.
_SHIFTS = {_TO_ASCII: True, b"\x1b(J": True, b"\x1b(I": False, b"\x1b$@": False, b"\x1b$B": False}
# 0 stays, everything else has its highest bit set.
_HIGH = bytes([0, *([0x80] * 255)])


class Piece(NamedTuple):
    """Some bytes and what they are read as: one byte each, one for two (UTF-16), or nothing."""

    raw: bytes
    text: bytes
    shift: bytes = b""  #: the escape sequence that is in force for these bytes, if it matters


class AsciiView(Protocol):
    """Bytes come in any cuts; every byte comes out again, in a piece or at `flush`."""

    def pieces(self, data: bytes) -> Iterator[Piece]: ...

    def flush(self) -> bytes:
        """What is held of an incomplete character."""

    def write(self, html: bytes, shift: bytes) -> bytes:
        """ASCII as the document's bytes, at a place where `shift` is in force."""

    @property
    def shift(self) -> bytes:
        """What is in force at the end of what has been read."""


class Plain:
    """ASCII is in its place."""

    shift = b""

    def pieces(self, data: bytes) -> Iterator[Piece]:
        yield Piece(data, data)

    def flush(self) -> bytes:
        return b""

    def write(self, html: bytes, shift: bytes) -> bytes:
        return html


class Utf16:
    """`name` is utf-16le or utf-16be."""

    shift = b""

    def __init__(self, name: str) -> None:
        self._name = name
        self._low = 0 if name == "utf-16le" else 1
        self._rest = b""

    def pieces(self, data: bytes) -> Iterator[Piece]:
        data = self._rest + data
        end = len(data) & ~1
        self._rest = data[end:]
        if not end:
            return
        low, high = data[self._low : end : 2], data[1 - self._low : end : 2]
        if any(high):  # a bitwise or, of all code units at once
            both = int.from_bytes(low, "big") | int.from_bytes(high.translate(_HIGH), "big")
            low = both.to_bytes(len(low), "big")
        yield Piece(data[:end], low)

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    def write(self, html: bytes, shift: bytes) -> bytes:
        return html.decode("ascii").encode(self._name)


class Iso2022Jp:
    """Also for documents that do not say what they are: browsers, too, take its escape
    sequences for a declaration. `off`: from here on there are none, ASCII is in its place."""

    def __init__(self) -> None:
        self.off = False
        self.shift = b""
        self._rest = b""

    def pieces(self, data: bytes) -> Iterator[Piece]:
        data, self._rest = self._rest + data, b""
        at = 0
        while at < len(data):
            escape = -1 if self.off else data.find(_ESC, at)
            end = len(data) if escape < 0 else escape
            if end == at:
                piece = self._escape(data[at : at + 3])
                if piece is None:
                    self._rest = data[at:]
                    return
                end = at + len(piece.raw)
            else:
                raw = data[at:end]
                ascii_there = _SHIFTS[self.shift or _TO_ASCII]
                piece = Piece(raw, raw if ascii_there else _BEYOND * len(raw), self.shift)
            yield piece
            at = end

    def _escape(self, seen: bytes) -> Piece | None:
        """What begins with ESC; None: it is not complete."""
        if seen in _SHIFTS:
            self.shift = b"" if seen == _TO_ASCII else seen
            return Piece(seen, b"", self.shift)
        if any(shift.startswith(seen) for shift in _SHIFTS):
            return None
        return Piece(_ESC, _BEYOND, self.shift)

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    def write(self, html: bytes, shift: bytes) -> bytes:
        return _TO_ASCII + html + shift if shift else html


class _Mark(NamedTuple):
    """Where a piece begins in the text and in the window."""

    text: int
    raw: int
    width: int
    shift: bytes


class Window:
    """The pieces whose bytes have not been released, and which character is where in them.

    Characters are counted from the beginning of the document.
    """

    def __init__(self) -> None:
        self._raw = b""
        self._marks: list[_Mark] = []
        self._read = 0

    def add(self, piece: Piece) -> None:
        if piece.text:
            width = len(piece.raw) // len(piece.text)
            self._marks.append(_Mark(self._read, len(self._raw), width, piece.shift))
        self._raw += piece.raw
        self._read += len(piece.text)

    def before(self, character: int, behind: bool) -> tuple[bytes, bytes]:
        """Release what stands before that character, or before the end of it; and the shift
        that is in force there."""
        mark = self._mark(character)
        place = mark.raw + (character - mark.text + behind) * mark.width
        return self._take(place), mark.shift

    def release(self, characters: int | None = None) -> bytes:
        """Release what stands before that character; by default, everything."""
        if characters is None or characters >= self._read:
            self._marks.clear()
            return self._take(len(self._raw))
        mark = self._mark(characters)
        place = mark.raw + (characters - mark.text) * mark.width
        first = self._marks.index(mark)
        self._marks = [m._replace(raw=m.raw - place) for m in self._marks[first:]]
        return self._take(place)

    def _mark(self, character: int) -> _Mark:
        return next(mark for mark in reversed(self._marks) if mark.text <= character)

    def _take(self, place: int) -> bytes:
        taken, self._raw = self._raw[:place], self._raw[place:]
        return taken
