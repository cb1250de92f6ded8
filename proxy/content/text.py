"""Text in whatever character encoding, for filters whose patterns are UTF-8.

Where every pattern is ASCII and the encoding keeps ASCII as it is, bytes are worked on as they
are. Else the text is read as UTF-8 on its way through. What is not text is bytes.
"""

from __future__ import annotations

from typing import Protocol

from proxy.content.charsets import Charset, CharsetSniffer
from proxy.content.transcode import Recoder, Utf8View

_TEXTS = frozenset(
    {
        "application/ecmascript",
        "application/javascript",
        "application/json",
        "application/x-javascript",
        "application/x-www-form-urlencoded",
        "application/xml",
    }
)
_HTML = frozenset({"text/html", "application/xhtml+xml"})
#: Always UTF-8, whatever is said (RFC 8259 8.1; html.spec.whatwg.org 9.2.5).
_UTF8 = frozenset({"application/json", "text/event-stream"})


class Editor(Protocol):
    """As in callouts.http.body."""

    @property
    def inserted(self) -> bool: ...

    @property
    def outcome(self) -> str: ...

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


def is_text(media_type: str) -> bool:
    """Whether content of this type (lower-case, without parameters) is characters."""
    if media_type.startswith("text/") or media_type in _TEXTS:
        return True
    return media_type.endswith(("+json", "+xml"))


def text_editor(
    editor: Editor, media_type: str, content_type: bytes | None, *, ascii_only: bool
) -> Editor:
    """The editor, fit for content of this type. `ascii_only`: its patterns and what it inserts
    are ASCII."""
    if not is_text(media_type) or media_type in _UTF8:
        return editor
    sniffer = _sniffer(media_type, content_type, ascii_only)
    return _TextEditor(editor, sniffer, ascii_only, html=media_type in _HTML)


def text_view(media_type: str, content_type: bytes | None, *, ascii_only: bool) -> TextView | None:
    """A reader for searching content as text, where bytes alone would not do; or None."""
    if not is_text(media_type) or media_type in _UTF8:
        return None
    return TextView(_sniffer(media_type, content_type, ascii_only), ascii_only)


def _sniffer(media_type: str, content_type: bytes | None, ascii_only: bool) -> CharsetSniffer:
    """With ASCII patterns only UTF-16 matters, which a `meta` cannot declare: no waiting."""
    return CharsetSniffer(content_type, html=media_type in _HTML and not ascii_only)


def _as_it_is(charset: Charset, ascii_only: bool) -> bool:
    """Whether the bytes can be searched for UTF-8 patterns."""
    return charset.name == "utf-8" or (ascii_only and charset.ascii_exact)


class _TextEditor:
    """Decides with the first bytes how the text is to be worked on."""

    def __init__(
        self, editor: Editor, sniffer: CharsetSniffer, ascii_only: bool, *, html: bool
    ) -> None:
        self._html = html
        self._editor = editor
        self._sniffer = sniffer
        self._ascii_only = ascii_only
        self._start = b""
        self._through: Editor | None = None

    @property
    def inserted(self) -> bool:
        return self._editor.inserted

    @property
    def outcome(self) -> str:
        return self._editor.outcome

    def feed(self, data: bytes) -> bytes:
        if self._through is not None:
            return self._through.feed(data)
        self._start += data
        charset = self._sniffer.feed(data)
        return self._begin(charset).feed(self._taken()) if charset is not None else b""

    def finish(self) -> bytes:
        if self._through is not None:
            return self._through.finish()
        through = self._begin(self._sniffer.finish())
        start = self._taken()
        return (through.feed(start) if start else b"") + through.finish()

    def _begin(self, charset: Charset) -> Editor:
        plain = _as_it_is(charset, self._ascii_only)
        self._through = self._editor if plain else Recoder(self._editor, charset, html=self._html)
        return self._through

    def _taken(self) -> bytes:
        start, self._start = self._start, b""
        return start


class TextView:
    """The same text as UTF-8, for searching only; empty where the bytes themselves will do."""

    def __init__(self, sniffer: CharsetSniffer, ascii_only: bool) -> None:
        self._sniffer = sniffer
        self._ascii_only = ascii_only
        self._start = b""
        self._view: Utf8View | None = None
        self._decided = False

    def feed(self, data: bytes) -> bytes:
        if not self._decided:
            self._start += data
            charset = self._sniffer.feed(data)
            if charset is None:
                return b""
            data, self._start = self._start, b""
            self._begin(charset)
        return self._view.feed(data) if self._view is not None else b""

    def finish(self) -> bytes:
        if self._decided:
            return self._view.finish() if self._view is not None else b""
        self._begin(self._sniffer.finish())
        view = self._view
        return view.feed(self._start) + view.finish() if view is not None else b""

    def _begin(self, charset: Charset) -> None:
        self._decided = True
        if not _as_it_is(charset, self._ascii_only):
            self._view = Utf8View(charset)
