"""Puts one piece of HTML into a document that streams by; every other byte stays as it is.

It goes where the document itself says head or body, once, and nowhere if there is no such
place: a fragment that a script fetched is text/html too, and must not be touched. What comes
out does not depend on how the document was cut.
"""

from __future__ import annotations

import re

from proxy.content.ascii_view import AsciiView, Iso2022Jp, Plain, Utf16, Window
from proxy.content.csp import Wish
from proxy.content.html_tag import Attributes
from proxy.content.insertion import At, Outcome, PlaceFinder
from proxy.content.prescan import encoding_name

_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xfe\xff": "utf-16be", b"\xff\xfe": "utf-16le"}
_CHARSET = re.compile(r"(?i)charset\s*=\s*[\"']?([^\"'\s;]+)")
_NOTHING = Wish((), "")


class BannerEditor:
    """Feed it the document: `feed(data)` and `finish()` return what is to be sent instead.

    `html` must be ASCII. `charset` is the encoding (the WHATWG's name, lower-case) that the
    message's head declares, if any; a byte order mark goes before it, a `<meta>` behind.
    `wish`: what `html` needs of the page's policies; if one in a `<meta>` forbids it, `plain`
    (ASCII, needs nothing) goes in its place, or nothing. Raises ValueError for an `at` that is
    not one of At. Holds back at most 20 characters.
    """

    def __init__(
        self,
        html: bytes,
        at: str = At.BODY_START,
        *,
        charset: str | None = None,
        wish: Wish = _NOTHING,
        plain: bytes | None = None,
    ) -> None:
        self._html = html
        self._charset = charset
        self._wish = wish
        self._plain = plain
        self._finder = PlaceFinder(At(at), self._meta)
        self._outcome = Outcome.PENDING
        self._start = b""  # of the document, while it may become a byte order mark
        self._view: AsciiView | None = None
        self._window = Window()

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    @property
    def inserted(self) -> bool:
        return self._outcome is Outcome.INSERTED

    @property
    def wish(self) -> Wish:
        """What it still needs of the page's policies."""
        return self._wish

    def feed(self, data: bytes | bytearray) -> bytes:
        """The next bytes of the document, as they are to be sent."""
        if self._outcome is not Outcome.PENDING:
            return bytes(data)
        if self._view is not None:
            return self._look(self._view, bytes(data))
        start = self._start + data
        if start not in _MARKS and any(mark.startswith(start) for mark in _MARKS):
            self._start = start
            return b""
        return self._begin(start)

    def finish(self) -> bytes:
        """The document has ended: what is still to be sent."""
        out = self._begin(self._start) if self._view is None else b""
        if self._outcome is not Outcome.PENDING or self._view is None:
            return out
        out += self._window.release()
        if self._finder.end():
            self._outcome = Outcome.INSERTED
            out += self._view.write(self._html, self._view.shift)
        else:
            self._outcome = self._finder.outcome
        return out + self._view.flush()

    def _begin(self, start: bytes) -> bytes:
        self._start = b""
        mark = next((mark for mark in _MARKS if start.startswith(mark)), b"")
        self._view = _view(_MARKS.get(mark) or self._charset)
        if self._view is None:
            self._outcome = Outcome.CHARSET
            return start
        return mark + self._look(self._view, start[len(mark) :])

    def _look(self, view: AsciiView, data: bytes) -> bytes:
        pieces = view.pieces(data)
        for piece in pieces:
            self._window.add(piece)
            place = self._finder.look(piece.text)
            if place is not None:
                self._outcome = Outcome.INSERTED
                before, shift = self._window.before(*place)
                banner = view.write(self._html, shift)
            elif self._finder.outcome is not Outcome.PENDING:
                self._outcome = self._finder.outcome
                before, banner = b"", b""
            else:
                continue
            rest = [piece.raw for piece in pieces]
            return b"".join([before, banner, self._window.release(), *rest, view.flush()])
        return self._window.release(self._finder.settled)

    # --- what the document says about itself

    def _meta(self, attributes: Attributes) -> Outcome | None:
        """A <meta> of the head: it may declare the encoding, or a policy."""
        kind = (attributes.get("http-equiv") or "").strip().lower()
        content = attributes.get("content") or ""
        label = attributes.get("charset")
        if label is None and kind == "content-type" and (found := _CHARSET.search(content)):
            label = found[1]
        if label and isinstance(self._view, Iso2022Jp) and self._charset is None:
            return self._declared(self._view, label)
        if kind == "content-security-policy":
            return self._policy(content, complete=not attributes.cut)
        return None

    def _declared(self, view: Iso2022Jp, label: str) -> Outcome | None:
        """The encoding, where neither the message nor a mark said it: the first one counts."""
        name = encoding_name(label.encode("latin-1", "replace"))
        if name == "replacement":
            return Outcome.CHARSET
        if name is not None:
            self._charset = name
            view.off = name != "iso-2022-jp"
        return None

    def _policy(self, text: str, *, complete: bool) -> Outcome | None:
        """The head of the message has gone: this policy cannot be extended, only honoured."""
        if not self._wish.needs or (complete and not self._wish.forbidden([text])):
            return None
        if self._plain is None:
            return Outcome.CSP
        self._html, self._wish = self._plain, _NOTHING
        return None


def _view(charset: str | None) -> AsciiView | None:
    """How to read a document of that encoding; None: nothing can be written in it."""
    match charset:
        case "replacement":
            return None
        case "utf-16le" | "utf-16be":
            return Utf16(charset)
        case "iso-2022-jp" | None:
            return Iso2022Jp()
    return Plain()
