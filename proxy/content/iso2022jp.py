"""ISO-2022-JP as the web has it: encoding.spec.whatwg.org 12.2.

Python's incremental decoder of it raises on hostile bytes, whatever its error handler says, and
knows other character sets than browsers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_ASCII, _ROMAN, _KATAKANA, _JIS0208 = range(4)
_STATES = {b"(B": _ASCII, b"(J": _ROMAN, b"(I": _KATAKANA, b"$@": _JIS0208, b"$B": _JIS0208}
_SHIFTS = (b"\x1b(B", b"\x1b(J", b"\x1b(I", b"\x1b$B")
#: One or more escape sequences at the end.
SHIFTS_AT_END = re.compile(rb"(?:\x1b(?:\([BJI]|\$[@B]))+\Z")

_TOKEN = re.compile(rb"\x1b(?P<shift>\([BJI]|\$[@B])|\x1b(?P<part>[($]?)\Z|\x1b|[^\x1b]+")
# In each state: bytes that are text, as pieces; then any other byte.
_TEXT = (
    re.compile(rb"(?s)([\x00-\x7f]+)|."),
    re.compile(rb"(?s)([\x00-\x7f]+)|."),
    re.compile(rb"(?s)([\x21-\x5f]+)|."),
    re.compile(rb"(?s)((?:[\x21-\x7e]{2})+)|."),
)
_HIGH = bytes(byte | 0x80 for byte in range(256))
_YEN = str.maketrans("\\~", "¥‾")
_BACK = str.maketrans("¥‾", "\\~")
_KANA = 0xFF61 - 0x21
_RUN = re.compile("([\0-\x7f]+)|([¥‾]+)|([\uff61-\uff9f]+)|([^\0-\x7f¥‾\uff61-\uff9f]+)", re.S)


class Decoder:
    """Incremental, as Python's: its state is (bytes held, a number). Never raises.

    `unknown` says what bytes become that are no text.
    """

    def __init__(self, unknown: Callable[[bytes], str]) -> None:
        self._unknown = unknown
        self._held = b""
        self._state = _ASCII

    def getstate(self) -> tuple[bytes, int]:
        return self._held, self._state

    def setstate(self, state: tuple[bytes, int]) -> None:
        self._held, self._state = state

    def decode(self, data: bytes, final: bool = False) -> str:
        data, self._held = self._held + data, b""
        text: list[str] = []
        for token in _TOKEN.finditer(data):
            if token["shift"]:
                self._state = _STATES[token["shift"]]
            elif token["part"] is not None and not final:
                self._held = token[0]
            elif token[0].startswith(b"\x1b"):
                text.append(self._unknown(token[0]))
            else:
                text += self._run(token[0], ended=final or token.end() < len(data))
        return "".join(text)

    def _run(self, run: bytes, *, ended: bool) -> Iterator[str]:
        """Bytes without escape sequences. `ended`: the last one is not half of a character."""
        for piece in _TEXT[self._state].finditer(run):
            if piece[1]:
                yield self._text(piece[1])
            elif self._state == _JIS0208 and piece.end() == len(run) and not ended:
                self._held = piece[0]
            else:
                yield self._unknown(piece[0])

    def _text(self, data: bytes) -> str:
        if self._state == _JIS0208:
            try:
                return data.translate(_HIGH).decode("euc_jp")
            except UnicodeDecodeError:
                pairs = (data[at : at + 2] for at in range(0, len(data), 2))
                return "".join(self._pair(pair) for pair in pairs)
        if self._state == _KATAKANA:
            return "".join(chr(_KANA + byte) for byte in data)
        text = data.decode("ascii")
        return text.translate(_YEN) if self._state == _ROMAN else text

    def _pair(self, pair: bytes) -> str:
        try:
            return pair.translate(_HIGH).decode("euc_jp")
        except UnicodeDecodeError:
            return self._unknown(pair)


class Encoder:
    """Incremental; ends in ASCII. `unknown` says what stands for a character that is missing."""

    def __init__(self, unknown: Callable[[str], str]) -> None:
        self._unknown = unknown
        self._state = _ASCII

    def setstate(self, state: int) -> None:
        """Begin where a decoder stands, by the number in its state."""
        self._state = state

    def encode(self, text: str, final: bool = False) -> bytes:
        out: list[bytes] = []
        for run in _RUN.finditer(text):
            ascii_, roman, katakana, others = run.groups()
            if ascii_:
                out.append(self._in(_ASCII, ascii_.encode("ascii")))
            elif roman:
                out.append(self._in(_ROMAN, roman.translate(_BACK).encode("ascii")))
            elif katakana:
                out.append(self._in(_KATAKANA, bytes(ord(kana) - _KANA for kana in katakana)))
            else:
                out += map(self._other, others)
        return b"".join(out) + (self._in(_ASCII, b"") if final else b"")

    def _other(self, character: str) -> bytes:
        code = character.encode("euc_jp", "ignore")
        if len(code) == 2:
            return self._in(_JIS0208, bytes(byte & 0x7F for byte in code))
        return self._in(_ASCII, self._unknown(character).encode("ascii"))

    def _in(self, state: int, data: bytes) -> bytes:
        if state == self._state:
            return data
        self._state = state
        return _SHIFTS[state] + data
