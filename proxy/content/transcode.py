"""Text in any character encoding, shown to those who read UTF-8, and written back.

`Recoder` wraps an editor of UTF-8. INVARIANT: up to the first edit the original bytes go out,
whatever they are. Behind it characters are encoded again, which changes bytes only where the
encoding has several for one character, and never the character:

- Shift_JIS: of characters that stand twice in it (NEC's and IBM's extensions) the first counts;
- Big5: twelve frames and numerals that stand twice; gb18030: four private characters; EUC-JP: one
  tilde;
- ISO-2022-JP: escape sequences that change nothing go, and the text ends in ASCII.

Bytes that are not text in the encoding (a lone surrogate, half a character at the end, a pair
that nothing is assigned to) are written as they were behind an edit, too, but for ISO-2022-JP:
see `survive`.
"""

from __future__ import annotations

import bisect
import re
from collections import deque
from typing import NamedTuple, Protocol

from proxy.content.charsets import Charset
from proxy.content.iso2022jp import SHIFTS_AT_END
from proxy.content.survive import Encoder, decoder_of, from_utf8, to_utf8, viewer_of

# Bytes that are decoded at once. A place in the text is found by decoding one slice again.
_SLICE = 512
# ISO-2022-JP: two escape sequences in a row are an error (encoding.spec.whatwg.org 12.2.1), so
# none is given out before the character behind it, but for very long runs of them.
_SHIFTS_MAX = 1024
# Of an editor that gives out nothing for so many bytes it is taken that it drops them.
_HELD_MAX = 1024 * 1024
# The beginning of a UTF-8 sequence.
_PARTIAL = re.compile(rb"(?:[\xc0-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf7][\x80-\xbf]{0,2})\Z")


class Editor(Protocol):
    """Changes a UTF-8 text in flight."""

    @property
    def inserted(self) -> bool: ...

    @property
    def outcome(self) -> str: ...

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Pair(NamedTuple):
    """Some of the text, as UTF-8 and as it came; `state` is the decoder's before it."""

    text: bytes
    raw: bytes
    state: int


class Recoder:
    """An editor of UTF-8, for a text in `charset`; itself an editor of that text.

    Holds what the editor holds, and an incomplete character.
    """

    def __init__(self, editor: Editor, charset: Charset, *, html: bool) -> None:
        self._editor = editor
        self._reader = _Reader(charset)
        self._charset = charset
        self._html = html
        self._encoder: Encoder | None = None  # since the first edit
        self._carry = b""  # of the editor's output: less than a character

    @property
    def inserted(self) -> bool:
        return self._editor.inserted

    @property
    def outcome(self) -> str:
        return self._editor.outcome

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the text, as they are to be sent."""
        return self._write(self._editor.feed(self._reader.read(data)), final=False)

    def finish(self) -> bytes:
        """The text has ended: what is still to be sent."""
        text = self._editor.feed(self._reader.read(b"", final=True))
        return self._write(text + self._editor.finish(), final=True)

    def _write(self, text: bytes, *, final: bool) -> bytes:
        text, self._carry = self._carry + text, b""
        passed = b""
        if self._encoder is None:
            passed, text, changed = self._reader.pass_on(text)
            if not changed and not (final and text):
                self._carry = text
                return passed
            state = self._reader.forget()
            self._encoder = Encoder(self._charset, html=self._html, state=state)
        partial = _PARTIAL.search(text, max(0, len(text) - 3)) if not final else None
        if partial:
            text, self._carry = text[: partial.start()], partial[0]
        return passed + self._encoder.encode(from_utf8(text), final=final)


class _Reader:
    """Decodes, and knows which bytes the text came from until it is told to forget."""

    def __init__(self, charset: Charset) -> None:
        self._charset = charset
        self._shifts = charset.name == "iso-2022-jp"
        self._decoder = decoder_of(charset)
        self._pairs: deque[_Pair] | None = deque()
        self._held = 0  # bytes in them
        self._lead = _Pair(b"", b"", 0)  # escape sequences before the next character

    def read(self, data: bytes, *, final: bool = False) -> bytes:
        """`data` as UTF-8."""
        if self._pairs is None:
            return to_utf8(self._decoder.decode(data, final))
        pieces = [self._slice(data[at : at + _SLICE]) for at in range(0, len(data), _SLICE)]
        if final:
            pieces.append(self._part(b"", final=True))
            self._remember(self._lead)
        return b"".join(pieces)

    def _slice(self, data: bytes) -> bytes:
        # Of escape sequences at the end the state before them is needed, later.
        at_end = SHIFTS_AT_END.search(data) if self._shifts else None
        if at_end is None:
            return self._part(data)
        return self._part(data[: at_end.start()]) + self._part(at_end[0])

    def _part(self, data: bytes, *, final: bool = False) -> bytes:
        held, state = self._decoder.getstate()
        text = to_utf8(self._decoder.decode(data, final))
        raw = held + data
        raw = raw[: len(raw) - len(self._decoder.getstate()[0])]
        if self._lead.raw:
            raw, state = self._lead.raw + raw, self._lead.state
        pair = _Pair(text, raw, state)
        if text or len(raw) > _SHIFTS_MAX:
            self._remember(pair)
        else:
            self._lead = pair
        return text

    def _remember(self, pair: _Pair) -> None:
        assert self._pairs is not None  # only then anything is decoded in parts
        self._pairs.append(pair)
        self._held += len(pair.raw)
        self._lead = _Pair(b"", b"", 0)

    def pass_on(self, text: bytes) -> tuple[bytes, bytes, bool]:
        """The bytes that the beginning of `text` came from; the rest; whether that was changed.

        A rest that was not changed is the beginning of a character.
        """
        assert self._pairs is not None
        passed, at = [], 0
        while self._pairs and text.startswith(self._pairs[0].text, at):
            pair = self._pairs.popleft()
            passed.append(pair.raw)
            at += len(pair.text)
        changed = at < len(text)
        if changed and self._pairs:
            same = _common(self._pairs[0].text, text, at)
            changed = at + same < len(text)
            raw, size = self._split(same)
            passed.append(raw)
            at += size
        out = b"".join(passed)
        self._held -= len(out)
        return out, text[at:], changed or self._held > _HELD_MAX

    def _split(self, size: int) -> tuple[bytes, int]:
        """Takes whole characters off the first pair, up to `size` bytes of its text."""
        assert self._pairs is not None
        pair = self._pairs[0]
        decoder = decoder_of(self._charset)
        decoder.setstate((b"", pair.state))
        cut, taken, state, seen = 0, 0, pair.state, 0
        for at in range(len(pair.raw)):
            seen += len(to_utf8(decoder.decode(pair.raw[at : at + 1])))
            held, now = decoder.getstate()
            if seen > size:
                break
            if seen > taken and not held:
                cut, taken, state = at + 1, seen, now
        self._pairs[0] = _Pair(pair.text[taken:], pair.raw[cut:], state)
        return pair.raw[:cut], taken

    def forget(self) -> int:
        """From here on text is only decoded. Answers the decoder's state at the place up to
        which it was passed on."""
        assert self._pairs is not None
        first = self._pairs[0] if self._pairs else self._lead
        self._pairs = None
        return first.state if first.raw else self._decoder.getstate()[1]


def _common(a: bytes, text: bytes, at: int) -> int:
    """How many bytes `a` and `text` from `at` on have in common."""
    b = text[at : at + len(a)]
    return bisect.bisect_left(range(len(b)), True, key=lambda i: a[: i + 1] != b[: i + 1])


class Utf8View:
    """A text in `charset` as UTF-8, for those who only look; U+FFFD for what is no text."""

    def __init__(self, charset: Charset) -> None:
        self._decoder = viewer_of(charset)

    def feed(self, data: bytes) -> bytes:
        return self._decoder.decode(data).encode()

    def finish(self) -> bytes:
        """What is left of an incomplete character."""
        return self._decoder.decode(b"", True).encode()
