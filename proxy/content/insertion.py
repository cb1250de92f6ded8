"""Where in an HTML document something goes, decided from its tags while it streams by.

html.spec.whatwg.org 13.2.6.4.1 to 13.2.6.4.7, as far as tags alone can tell: the place is one
in which the element that is put in becomes a child of the head or the body and nothing else in
the tree changes; where that is not sure there is none, and the outcome says why.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from proxy.content.html import Event, Found, TagScanner
from proxy.content.html_tag import Attributes


class At(enum.StrEnum):
    """Where it goes."""

    HEAD_END = "head_end"  #: before </head>, or before <body> where </head> is left out
    BODY_START = "body_start"  #: behind <body ...>
    BODY_END = "body_end"  #: before </body>, or </html>, or the end of a document with <body>


class Outcome(enum.StrEnum):
    """What became of a banner: seen from the message's head, or from the document itself."""

    PENDING = "pending"  #: the document has not shown the place yet
    INSERTED = "inserted"

    EMPTY = "empty"  #: the message has no content (HEAD, 1xx, 204, 304, a length of 0)
    STATUS = "status"  #: 205, 206, or a redirect, whose content nobody sees
    NOT_HTML = "not_html"
    XHTML = "xhtml"  #: a banner that is not well-formed XML would break the page
    ATTACHMENT = "attachment"  #: a download, not a page
    FRAGMENT = "fragment"  #: fetched by a script: a part of a page, or data
    FRAME = "frame"  #: the document of a frame, and the rule wants top-level ones only
    NO_TRANSFORM = "no_transform"  #: Cache-Control: no-transform (RFC 9110 7.7)

    CODING = "coding"  #: a Content-Encoding that cannot be taken off
    CHARSET = "charset"  #: an encoding in which nothing can be written
    CSP = "csp"  #: the page's Content-Security-Policy forbids it
    NO_BODY = "no_body"  #: no <body> tag (or </head>) where it would be one; a frameset
    LATE = "late"  #: content had opened the body before its tag came
    AMBIGUOUS = "ambiguous"  #: where tags are depends on a tree (raw text inside svg or select)


class Place(NamedTuple):
    """A place in the document: before the byte with this number, or behind it."""

    byte: int
    behind: bool


#: Told of every <meta> of the head; an outcome ends the search.
OnMeta = Callable[[Attributes], Outcome | None]

LATE_BYTES = 65536  #: how far behind its opening a late <body> is looked for

# 13.2.6.4.1 to 13.2.6.4.6: start tags that do not open the body by themselves.
_BEFORE_BODY = frozenset(
    b"html head base basefont bgsound link meta title style script noscript noframes "
    b"template".split()
)
_OPENS_BODY = frozenset({b"body", b"html", b"br"})  # as end tags


class _In(enum.Enum):
    HEAD = enum.auto()  # the body has not begun
    BODY = enum.auto()  # the end of the body is looked for
    LATE = enum.auto()  # there is no place any more; which name has that?


class PlaceFinder:
    """Feed it the document's bytes, in an encoding that has ASCII in its place.

    `outcome` stays PENDING while the place may still come, and after `look` or `end` has
    answered it. `settled`: bytes from the beginning of which no place can lie any more; at
    most 17 bytes fewer than were fed. `in_head`: nothing of the body has been seen.
    """

    def __init__(self, at: At, on_meta: OnMeta) -> None:
        self.outcome = Outcome.PENDING
        self._at = at
        self._on_meta = on_meta
        self._scanner = TagScanner()
        self._kept = b""
        self._base = 0  # the number of the first byte of the buffer
        self._in = _In.HEAD
        self._opened = 0  # where content opened the body
        self._body_tag = False  # the last tag is the <body> that counts
        self._body_seen = False
        self._firm = False  # the body stays: no frameset can take its place any more
        self._templates = 0

    @property
    def settled(self) -> int:
        return self._base + (0 if self._in is not _In.LATE else len(self._kept))

    @property
    def in_head(self) -> bool:
        return self._in is _In.HEAD

    def look(self, data: bytes) -> Place | None:
        """The next bytes: the place, if it is there. Not to be called after an answer."""
        buffer = self._kept + data
        for event in self._scanner.scan(buffer):
            place = self._place(event)
            if place is not None or self.outcome is not Outcome.PENDING:
                return place
        size = len(buffer) - self._scanner.kept
        self._base += size
        self._kept = buffer[size:]
        if self._in is _In.LATE and self._base > self._opened + LATE_BYTES:
            self.outcome = Outcome.NO_BODY
        return None

    def end(self) -> bool:
        """The document has ended: whether its end is the place."""
        at_end = self._in is _In.BODY and self._body_seen and not self._templates
        if at_end and self._scanner.in_text and not self._scanner.in_tree:
            return True
        self.outcome = Outcome.NO_BODY
        return False

    def _place(self, event: Event) -> Place | None:
        """The place, if this event says so."""
        if event.found is Found.AMBIGUOUS:
            self.outcome = Outcome.NO_BODY if self._in is _In.LATE else Outcome.AMBIGUOUS
        elif event.name == b"template" and event.found is not Found.CLOSED:
            # Its content is a document of its own, in which no body opens.
            step = 1 if event.found is Found.START else -1
            self._templates = max(0, self._templates + step)
        elif not self._templates:
            return _LOOK[self._in](self, event)
        return None

    def _head(self, event: Event) -> Place | None:
        """The body has not begun yet (13.2.6.4.1 to 13.2.6.4.6)."""
        match event.found:
            case Found.CLOSED:
                return self._closed(event)
            case Found.END if event.name == b"head":
                return self._before(event) if self._at is At.HEAD_END else None
            case Found.END if event.name in _OPENS_BODY:
                self._body_opens(event)
                return self._body(event) if self._in is _In.BODY else None
            case Found.START if event.name == b"body":
                return self._body_start(event)
            case Found.START if event.name == b"frameset":
                self.outcome = Outcome.NO_BODY
            case Found.START if event.name not in _BEFORE_BODY:
                self._body_opens(event)
            case Found.TEXT:
                self._body_opens(event)
        return None

    def _closed(self, event: Event) -> Place | None:
        if self._body_tag:
            return Place(self._base + event.at - 1, behind=True)
        attributes = self._scanner.attributes
        if event.name == b"meta" and attributes is not None:
            self.outcome = self._on_meta(attributes) or Outcome.PENDING
        return None

    def _body_start(self, event: Event) -> Place | None:
        self._body_seen = self._firm = True
        if self._at is At.HEAD_END:
            return self._before(event)
        if self._at is At.BODY_START:
            self._body_tag = True
        else:
            self._body_opens(event)
        return None

    def _body_opens(self, event: Event) -> None:
        """By itself or by its tag: from here on a <body> would only add attributes."""
        self._in = _In.BODY if self._at is At.BODY_END else _In.LATE
        self._opened = self._base + event.at
        self._firm = self._firm or event.found is Found.TEXT
        self._scanner.watch_text = self._in is _In.BODY and not self._firm

    def _body(self, event: Event) -> Place | None:
        """The body's end is looked for (13.2.6.4.7)."""
        match event.found:
            case Found.TEXT:
                self._firm = True
            case Found.START if event.name == b"body":
                self._body_seen = self._firm = True
            case Found.START if event.name == b"frameset" and not self._firm:
                self.outcome = Outcome.NO_BODY
            case Found.END if event.name in (b"body", b"html"):
                if self._firm:
                    return self._before(event)
                self.outcome = Outcome.NO_BODY
        self._scanner.watch_text = not self._firm
        return None

    def _late(self, event: Event) -> Place | None:
        if self._base + event.at > self._opened + LATE_BYTES:
            self.outcome = Outcome.NO_BODY
        elif event.found is Found.START and event.name == b"body":
            self.outcome = Outcome.LATE
        return None

    def _before(self, event: Event) -> Place | None:
        """What is put in must not end up inside an element that reads it in its own way."""
        if self._scanner.in_tree:
            self.outcome = Outcome.AMBIGUOUS
            return None
        return Place(self._base + event.at, behind=False)


_LOOK = {
    _In.HEAD: PlaceFinder._head,
    _In.BODY: PlaceFinder._body,
    _In.LATE: PlaceFinder._late,
}
