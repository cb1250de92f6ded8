"""Codecs under which every byte survives: what is no text in an encoding is kept as it came.

A byte that cannot be decoded becomes one lone surrogate, U+DC00 plus its value, which no text
holds; in the UTF-8 that editors are shown it takes three bytes that are no UTF-8 either.
"""

from __future__ import annotations

import codecs
import re
from functools import cache
from typing import Protocol

from proxy.content import iso2022jp
from proxy.content.charsets import Charset

_ESCAPE = 0xDC00
_ESCAPES = re.compile("([\udc00-\udcff]+)")
_KEEP, _REREAD = "sluicegate.keep", "sluicegate.reread"
_SEVERAL_BYTES = frozenset(
    {"utf-8", "utf-16le", "utf-16be", "shift_jis", "euc-jp", "euc-kr", "big5", "gbk", "gb18030"}
)


class Decoder(Protocol):
    """As Python's incremental decoders: the state is (bytes held, a number)."""

    def decode(self, data: bytes, final: bool = False) -> str: ...

    def getstate(self) -> tuple[bytes, int]: ...

    def setstate(self, state: tuple[bytes, int]) -> None: ...


class _Incremental(Protocol):
    def encode(self, text: str, final: bool = False, /) -> bytes: ...


def decoder_of(charset: Charset) -> Decoder:
    """Decodes anything; never raises."""
    if charset.name == "iso-2022-jp":
        return iso2022jp.Decoder(_escaped)
    if charset.name not in _SEVERAL_BYTES:
        return _OneByte(charset.codec)
    return codecs.getincrementaldecoder(charset.codec)(_KEEP)


def viewer_of(charset: Charset) -> Decoder:
    """Decodes to what can be encoded in UTF-8: U+FFFD stands for what is no text."""
    if charset.name == "iso-2022-jp":
        return iso2022jp.Decoder(lambda wrong: "\ufffd")
    return codecs.getincrementaldecoder(charset.codec)("replace")


def to_utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def from_utf8(data: bytes) -> str:
    """The way back; what an editor has made of it that is no UTF-8 becomes U+FFFD."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", _REREAD)


class Encoder:
    """Encodes text with kept bytes in it; never raises.

    In ISO-2022-JP what a byte means depends on the escape sequences before it, and these are
    written anew: a kept byte could become markup. There it is written as U+FFFD would be, which
    is how it was shown before.

    `html`: a character that the encoding lacks becomes a character reference, else `?`.
    `state`: of the decoder, at the place where the text begins.
    """

    def __init__(self, charset: Charset, *, html: bool, state: int = 0) -> None:
        errors = "xmlcharrefreplace" if html else "replace"
        self._stateful = charset.name == "iso-2022-jp"
        self._encoder: _Incremental
        if self._stateful:
            self._encoder = iso2022jp.Encoder(_reference if html else _question)
            self._encoder.setstate(state)
        else:
            self._encoder = codecs.getincrementalencoder(charset.codec)(errors)

    def encode(self, text: str, *, final: bool = False) -> bytes:
        coded = []
        for i, run in enumerate(_ESCAPES.split(text)):
            if i % 2 and self._stateful:
                coded.append(self._encoder.encode("\ufffd" * len(run)))
            elif i % 2:  # what the pattern matched
                coded.append(bytes(ord(character) - _ESCAPE for character in run))
            else:
                coded.append(self._encoder.encode(run))
        if final:
            coded.append(self._encoder.encode("", True))
        return b"".join(coded)


class _OneByte:
    """A single-byte encoding by its table: no call for each byte that means nothing."""

    def __init__(self, codec: str) -> None:
        self._table = _table(codec)

    def decode(self, data: bytes, final: bool = False) -> str:
        return codecs.charmap_decode(data, "strict", self._table)[0]

    def getstate(self) -> tuple[bytes, int]:
        return b"", 0

    def setstate(self, state: tuple[bytes, int]) -> None:
        """There is none."""


@cache
def _table(codec: str) -> str:
    return "".join(bytes((byte,)).decode(codec, _KEEP) for byte in range(256))


def _escaped(wrong: bytes) -> str:
    return "".join(chr(_ESCAPE + byte) for byte in wrong)


def _reference(character: str) -> str:
    return f"&#{ord(character)};"


def _question(character: str) -> str:
    return "?"


def _keep(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _escaped(error.object[error.start : error.end]), error.end


def _reread(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    kept = error.object[error.start : error.start + 3]
    try:
        return kept.decode("utf-8", "surrogatepass"), error.start + len(kept)
    except UnicodeDecodeError:
        return "\ufffd", error.end


codecs.register_error(_KEEP, _keep)
codecs.register_error(_REREAD, _reread)
