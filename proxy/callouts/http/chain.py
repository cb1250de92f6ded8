"""The filters of one message's content: decode, inspect, ask the rules, edit, encode.

Content goes through as it comes, in bounded memory. `Inspection` changes nothing: the original
bytes pass, held back only as far as they may be the beginning of something that a rule looks
for. `Editing` takes the content codings off, edits, and puts the same codings on again.

A chain stops for two reasons: `fault` (the content cannot be decoded) and `ruling` (a rule of
the body layer blocks). What is fed to it in that moment does not go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from proxy.callouts.http.body import Editor
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.search import Search
from proxy.content.codings import CodingLimits, Decoder, Encoder
from proxy.policy.facts import BodyFacts
from proxy.policy.ruling import Ruling

#: Asks the rules of the body layer; answers the ruling if it blocks.
Judge = Callable[[BodyFacts], Ruling | None]


class Chain(Protocol):
    """Content as framed in, content as framed out."""

    fault: Finding | None

    @property
    def ruling(self) -> Ruling | None: ...

    def feed(self, data: bytes) -> bytes:
        """What may go on. When it stops in here: what may still go before the end."""

    def finish(self) -> bytes:
        """The content has ended: what is still to be sent."""

    def open_up(self) -> bytes | None:
        """After a fault: let everything pass uninspected; what was held. None: not possible."""


class Inspector:
    """Searches content as it goes by, and has the rules asked at every find.

    `sizes`: a rule compares the size, so every piece may matter. `ruling` is set by the first
    answer that blocks; what had gone on before stays gone.
    """

    def __init__(self, search: Search, judge: Judge, *, sizes: bool) -> None:
        self.ruling: Ruling | None = None
        self._search = search
        self._judge = judge
        self._sizes = sizes

    def feed(self, raw: bytes, pieces: Iterable[bytes]) -> bytes:
        """Bytes as they came, with what they decode to; what may go on of them."""
        out = self._answered(self._search.feed(raw, pieces))
        if self._sizes and self.ruling is None:
            self._ask()
        return out

    def finish(self) -> bytes:
        """The content has ended: the rest of it, if no rule blocks it as a whole."""
        rest = self._answered(self._search.finish())
        if self.ruling is None:
            search = self._search
            self.ruling = self._judge(
                BodyFacts(search.found, search.size, search.sha256, complete=True)
            )
        return rest if self.ruling is None else b""

    def surrender(self) -> bytes:
        """Let what is held back go, unsearched."""
        return self._search.surrender()

    def _answered(self, out: bytes) -> bytes:
        while self._search.fresh and self.ruling is None:
            self._ask()
            if self.ruling is None:
                out += self._search.release()
        return out

    def _ask(self) -> None:
        self.ruling = self._judge(BodyFacts(self._search.found, self._search.size))


class _Coded:
    """The decoding part: pieces of content, and the fault when there is one."""

    def __init__(
        self, codings: tuple[str, ...], limits: CodingLimits, inspector: Inspector | None
    ) -> None:
        self.fault: Finding | None = None
        self._decoder = Decoder(codings, limits) if codings else None
        self._inspector = inspector

    @property
    def ruling(self) -> Ruling | None:
        return self._inspector.ruling if self._inspector is not None else None

    def _decoded(self, data: bytes) -> Iterable[bytes]:
        return self._decoder.feed(data) if self._decoder is not None else (data,)

    def _rest(self) -> Iterable[bytes]:
        return self._decoder.finish() if self._decoder is not None else ()

    def _sound(self) -> bool:
        """Whether everything could be decoded; takes note of the decoder's fault."""
        decoder = self._decoder
        if decoder is not None and decoder.fault is not None and self.fault is None:
            self.fault = Finding(decoder.fault.value, decoder.detail)
        return self.fault is None


class Inspection(_Coded):
    """Content that is looked at and stays as it is, its codings included."""

    _inspector: Inspector

    def __init__(
        self, codings: tuple[str, ...], limits: CodingLimits, inspector: Inspector
    ) -> None:
        super().__init__(codings, limits, inspector)
        self._open = False
        self._kept = b""  # what could have gone on if there had been no fault

    def feed(self, data: bytes) -> bytes:
        if self._open:
            return data
        return self._unless_faulty(self._inspector.feed(data, self._decoded(data)))

    def finish(self) -> bytes:
        if self._open:
            return b""
        released = self._unless_faulty(self._inspector.feed(b"", self._rest()))
        if self.fault is not None or self.ruling is not None:
            return b""
        return released + self._inspector.finish()

    def open_up(self) -> bytes | None:
        self._open, self.fault = True, None
        return self._kept + self._inspector.surrender()

    def _unless_faulty(self, released: bytes) -> bytes:
        if self._sound():
            return released
        self._kept = released
        return b""


class Editing(_Coded):
    """Content that is changed on its way."""

    def __init__(
        self,
        codings: tuple[str, ...],
        limits: CodingLimits,
        inspector: Inspector | None,
        editors: tuple[Editor, ...],
    ) -> None:
        super().__init__(codings, limits, inspector)
        self._encoder = Encoder(codings) if codings else None
        self._editors = editors

    def feed(self, data: bytes) -> bytes:
        out = self._edited(self._decoded(data))
        if not self._sound():
            return b""
        return out + self._encoder.flush() if self._encoder is not None else out

    def finish(self) -> bytes:
        out = self._edited(self._rest())
        if not self._sound() or self.ruling is not None:
            return b""
        rest = self._inspector.finish() if self._inspector is not None else b""
        if self.ruling is not None:
            return b""
        for editor in self._editors:
            rest = (editor.feed(rest) if rest else b"") + editor.finish()
        return out + self._encoded(rest) + (self._encoder.finish() if self._encoder else b"")

    def open_up(self) -> bytes | None:
        return None  # what was sent already is of another stream

    def _edited(self, pieces: Iterable[bytes]) -> bytes:
        """Inspect, edit and encode, piece by piece, until something stops it."""
        out = []
        for piece in pieces:
            content = piece
            if self._inspector is not None:
                content = self._inspector.feed(piece, (piece,))
            for editor in self._editors:
                if content:
                    content = editor.feed(content)
            if content:
                out.append(self._encoded(content))
            if self.ruling is not None:
                break
        return b"".join(out)

    def _encoded(self, content: bytes) -> bytes:
        return self._encoder.feed(content) if self._encoder is not None else content
