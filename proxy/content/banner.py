"""Puts one piece of HTML into a document that streams by; every other byte stays as it is.

It goes where the document itself says head or body, once, and nowhere if there is no such
place: a fragment that a script fetched is text/html too, and must not be touched. What comes
out does not depend on how the document was cut. html.spec.whatwg.org 13.2.5 and 13.2.6.4.
"""

from __future__ import annotations

import enum

from proxy.content.html import Event, Found, TagScanner


class At(enum.StrEnum):
    """Where the banner goes."""

    HEAD_END = "head_end"  #: before </head>, or before <body> where </head> is left out
    BODY_START = "body_start"  #: behind <body ...>
    BODY_END = "body_end"  #: before </body>, or </html>, or the end of a document with <body>


class Outcome(enum.StrEnum):
    """What became of it."""

    PENDING = "pending"  #: the document has not shown the place yet
    INSERTED = "inserted"
    NO_BODY = "no_body"  #: no <body> tag (or </head>) where it would be one
    CHARSET = "charset"  #: UTF-16 or UTF-32, by its byte order mark
    AMBIGUOUS = "ambiguous"  #: where tags are depends on a tree (raw text inside svg or select)


# 13.2.6.4.1 to 13.2.6.4.6: start tags that do not open the body by themselves.
_BEFORE_BODY = frozenset(
    b"html head base basefont bgsound link meta title style script noscript noframes "
    b"template".split()
)
_OPENS_BODY = frozenset({b"body", b"html", b"br"})  # as end tags
_UTF8_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xfe\xff", b"\xff\xfe")


class BannerEditor:
    """Feed it the document: `feed(data)` and `finish()` return what is to be sent instead.

    `html` is inserted as it is: its character set must be the document's, or ASCII. Raises
    ValueError for an `at` that is not one of At. Holds back at most 17 bytes.
    """

    def __init__(self, html: bytes, at: str = At.BODY_START) -> None:
        self._html = html
        self._at = At(at)
        self._outcome = Outcome.PENDING
        self._scanner = TagScanner()
        self._kept = b""
        self._begun = False
        self._in_body = False
        self._body_tag = False  # the last tag is the <body> that counts
        self._body_seen = False
        self._templates = 0

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    @property
    def inserted(self) -> bool:
        return self._outcome is Outcome.INSERTED

    def feed(self, data: bytes | bytearray) -> bytes:
        """The next bytes of the document, as they are to be sent."""
        if self._outcome is not Outcome.PENDING:
            return bytes(data)
        buffer = self._kept + data
        start = self._begin(buffer)
        if start is None:
            self._kept = buffer
            return b""
        for event in self._scanner.scan(buffer, start):
            place = self._place(event)
            if place is not None:
                return self._insert(buffer, place)
            if self._outcome is not Outcome.PENDING:
                break
        kept = self._scanner.kept if self._outcome is Outcome.PENDING else 0
        settled = len(buffer) - kept
        self._kept = buffer[settled:]
        return buffer[:settled]

    def finish(self) -> bytes:
        """The document has ended: what is still to be sent."""
        kept, self._kept = self._kept, b""
        if self._outcome is not Outcome.PENDING:
            return kept
        at_end = self._at is At.BODY_END and self._body_seen and not self._templates
        if at_end and self._scanner.in_text:
            return self._insert(b"", 0)
        self._outcome = Outcome.NO_BODY
        return kept

    def _begin(self, buffer: bytes) -> int | None:
        """Index behind a byte order mark; None: it may still become one."""
        if self._begun:
            return 0
        if buffer.startswith(_WIDE_MARKS):
            self._outcome = Outcome.CHARSET
        elif buffer.startswith(_UTF8_MARK):
            self._begun = True
            return len(_UTF8_MARK)
        elif any(mark.startswith(buffer) for mark in (_UTF8_MARK, *_WIDE_MARKS)):
            return None
        self._begun = True
        return 0 if self._outcome is Outcome.PENDING else len(buffer)

    def _insert(self, buffer: bytes, place: int) -> bytes:
        self._outcome = Outcome.INSERTED
        self._kept = b""
        return buffer[:place] + self._html + buffer[place:]

    def _place(self, event: Event) -> int | None:
        """Where in the buffer the banner goes, if this event says so."""
        if event.found is Found.AMBIGUOUS:
            self._outcome = Outcome.AMBIGUOUS
        elif event.name == b"template" and event.found is not Found.CLOSED:
            # Its content is a document of its own, in which no body opens.
            step = 1 if event.found is Found.START else -1
            self._templates = max(0, self._templates + step)
        elif not self._templates:
            return self._in(event) if self._in_body else self._before(event)
        return None

    def _in(self, event: Event) -> int | None:
        ends = event.found is Found.END and event.name in (b"body", b"html")
        return event.at if ends else None

    def _before(self, event: Event) -> int | None:
        """The body has not begun yet (13.2.6.4.1 to 13.2.6.4.6)."""
        match event.found:
            case Found.CLOSED:
                return event.at if self._body_tag else None
            case Found.END if event.name == b"head":
                return event.at if self._at is At.HEAD_END else None
            case Found.END if event.name in _OPENS_BODY:
                self._body_opens()
                return self._in(event) if self._at is At.BODY_END else None
            case Found.START if event.name == b"body":
                return self._body_start(event)
            case Found.START if event.name == b"frameset":
                self._outcome = Outcome.NO_BODY
            case Found.START if event.name not in _BEFORE_BODY:
                self._body_opens()
            case Found.TEXT:
                self._body_opens()
        return None

    def _body_start(self, event: Event) -> int | None:
        self._body_seen = True
        if self._at is At.HEAD_END:
            return event.at
        if self._at is At.BODY_START:
            self._body_tag = True
        else:
            self._body_opens()
        return None

    def _body_opens(self) -> None:
        """By itself or by its tag: from here on a <body> would only add attributes."""
        self._in_body, self._scanner.watch_text = True, False
        if self._at is not At.BODY_END:
            self._outcome = Outcome.NO_BODY
