"""The inside of a tag, read as a stream: where it ends, and its attributes if somebody asks.

html.spec.whatwg.org 13.2.5.8 and 13.2.5.32 to 13.2.5.40. The transitions stand in one table;
what is kept of attributes is bounded.
"""

from __future__ import annotations

import enum
import html
import re
from collections.abc import Iterator

NAME_MAX = 16  #: bytes of a tag's name that are told
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_NAME = 32
MAX_ATTRIBUTE_VALUE = 8192  #: of a stranger's document

SPACE = rb"\t\n\f\r "  #: white space, inside a regular expression's class
#: An attribute's value in any of its forms, as long as there is nothing odd about it.
SIMPLE_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[^\"'=<>`" + SPACE + rb"]++)"
_SPACES = b"\t\n\f\r "
_SLASH, _GREATER = b"/>"


class _In(enum.IntEnum):  # of int for its fast hash
    """Where in a tag."""

    NAME = enum.auto()
    BEFORE = enum.auto()  # an attribute, or the tag's end
    ATTRIBUTE = enum.auto()
    AFTER = enum.auto()  # an attribute's name
    BEFORE_VALUE = enum.auto()
    DOUBLE_QUOTED = enum.auto()
    SINGLE_QUOTED = enum.auto()
    UNQUOTED = enum.auto()


TAG_NAME = re.compile(rb"[^" + SPACE + rb"/>]*")

# What is skipped, what the byte behind it leads to, and what any other byte leads to. `>` ends
# the tag wherever the skipped part leaves it over.
_TABLE: dict[_In, tuple[re.Pattern[bytes], dict[int, _In], _In]] = {
    _In.NAME: (TAG_NAME, dict.fromkeys(_SPACES + b"/", _In.BEFORE), _In.NAME),
    _In.BEFORE: (re.compile(rb"[" + SPACE + rb"/]*"), {}, _In.ATTRIBUTE),
    _In.ATTRIBUTE: (
        re.compile(rb"[^" + SPACE + rb"/>=]*"),
        dict.fromkeys(_SPACES, _In.AFTER) | {_SLASH: _In.BEFORE, ord("="): _In.BEFORE_VALUE},
        _In.ATTRIBUTE,
    ),
    _In.AFTER: (
        re.compile(rb"[" + SPACE + rb"]*"),
        {_SLASH: _In.BEFORE, ord("="): _In.BEFORE_VALUE},
        _In.ATTRIBUTE,
    ),
    _In.BEFORE_VALUE: (
        re.compile(rb"[" + SPACE + rb"]*"),
        {ord('"'): _In.DOUBLE_QUOTED, ord("'"): _In.SINGLE_QUOTED},
        _In.UNQUOTED,
    ),
    _In.DOUBLE_QUOTED: (re.compile(rb'[^"]*'), {ord('"'): _In.BEFORE}, _In.DOUBLE_QUOTED),
    _In.SINGLE_QUOTED: (re.compile(rb"[^']*"), {ord("'"): _In.BEFORE}, _In.SINGLE_QUOTED),
    _In.UNQUOTED: (
        re.compile(rb"[^" + SPACE + rb">]*"),
        dict.fromkeys(_SPACES, _In.BEFORE),
        _In.UNQUOTED,
    ),
}
_VALUES = frozenset({_In.DOUBLE_QUOTED, _In.SINGLE_QUOTED, _In.UNQUOTED})
_PLAIN_TAG = re.compile(rb"[^\"'>]*>")


class Attributes:
    """What a tag said: lower-case names, values with character references replaced.

    Of a name that comes twice the first counts (13.2.5.33). `cut`: something was longer, or
    more, than is kept, so that what is here is not all.
    """

    def __init__(self, value_max: int = MAX_ATTRIBUTE_VALUE) -> None:
        self.cut = False
        self._value_max = value_max
        self._raw: dict[bytes, bytes] = {}
        self._name = b""

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def get(self, name: str) -> str | None:
        """Its value, with bytes beyond ASCII as of ISO 8859-1; None: absent."""
        raw = self._raw.get(name.encode("latin-1"))
        return None if raw is None else html.unescape(raw.decode("latin-1"))

    def begin(self) -> None:
        """A name begins."""
        self._name = b""

    def name(self, piece: bytes) -> None:
        self._name = self._bounded(self._name, piece.lower(), MAX_ATTRIBUTE_NAME)

    def named(self) -> None:
        """The name is complete."""
        if self._name in self._raw:
            self._name = b""
        elif len(self._raw) < MAX_ATTRIBUTES:
            self._raw[self._name] = b""
        else:
            self.cut, self._name = True, b""

    def value(self, piece: bytes) -> None:
        if self._name:
            raw = self._raw[self._name]
            self._raw[self._name] = self._bounded(raw, piece, self._value_max)

    def _bounded(self, kept: bytes, piece: bytes, most: int) -> bytes:
        room = most - len(kept)
        self.cut = self.cut or len(piece) > room
        return kept + piece[:room] if room else kept


class TagReader:
    """Reads one tag after the other, each from behind its (perhaps cut) name.

    `closed`: the `>` has been read. `slash`: nothing but a solidus between attributes stood
    before it (self-closing, where that means something). `attributes`: if they were asked for.
    """

    def __init__(self, value_max: int = MAX_ATTRIBUTE_VALUE) -> None:
        self._value_max = value_max
        self.closed = True
        self.slash = False
        self.attributes: Attributes | None = None
        self._in = _In.NAME
        self._exact = False

    def begin(self, *, attributes: bool, exact: bool) -> None:
        """A tag begins. `exact`: `slash` is needed."""
        self.closed, self.slash, self._in = False, False, _In.NAME
        self.attributes = Attributes(self._value_max) if attributes else None
        self._exact = exact or attributes

    def read(self, buffer: bytes, at: int) -> int:
        """Read on from `at`; the index up to which it is read. Nothing has to be kept."""
        if self._in is _In.NAME and not self._exact and (plain := _PLAIN_TAG.match(buffer, at)):
            self.closed = True
            return plain.end()
        while at < len(buffer) and not self.closed:
            found = _TABLE[self._in][0].match(buffer, at)
            if found and found.end() > at:
                at = found.end()
                self._skipped(found[0])
            else:
                self._turn(buffer[at])
                at += 1
        return at

    def _skipped(self, piece: bytes) -> None:
        self.slash = self._in is _In.BEFORE and piece[-1] == _SLASH
        if self.attributes is None:
            return
        if self._in is _In.ATTRIBUTE:
            self.attributes.name(piece)
        elif self._in in _VALUES:
            self.attributes.value(piece)

    def _turn(self, byte: int) -> None:
        before = self._in
        if byte == _GREATER:
            self.closed = True
        else:
            _, turns, otherwise = _TABLE[before]
            self._in = turns.get(byte, otherwise)
            self.slash = self._in is _In.BEFORE and byte == _SLASH
        if self.attributes is not None:
            self._note(self.attributes, before, bytes((byte,)))

    def _note(self, attributes: Attributes, before: _In, byte: bytes) -> None:
        if before is _In.ATTRIBUTE:
            attributes.named()
        if self.closed:
            return
        if self._in is _In.ATTRIBUTE:
            attributes.begin()
            attributes.name(byte)
        elif self._in is _In.UNQUOTED:
            attributes.value(byte)
