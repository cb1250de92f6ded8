"""The part of the WHATWG HTML tokenizer that finds tags in a stream.

A subset of html.spec.whatwg.org 13.2.5: it knows where a tag begins and ends, and what only
looks like one (comments, attribute values, script, raw text, CDATA). It builds no tree. Where
the right reading depends on a tree (inside svg, math and select, whose raw text and CDATA are
read otherwise) it goes on only while both readings agree, and else says AMBIGUOUS. `noscript`
is raw text, as in a browser that runs scripts.

For ASCII-compatible character sets. Time is linear in the bytes, however they arrive.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple

from proxy.content.html_tag import NAME_MAX, SIMPLE_VALUE, SPACE, TAG_NAME, Attributes, TagReader


class Found(enum.Enum):
    TEXT = enum.auto()  #: a character of text that is not white space
    START = enum.auto()  #: `<name`, with a complete name
    END = enum.auto()  #: `</name`, with a complete name
    CLOSED = enum.auto()  #: behind the `>` of the tag found last
    AMBIGUOUS = enum.auto()  #: from here on a tree would be needed; nothing more is reported


class Event(NamedTuple):
    """`at` is an index into the buffer given to `scan`: of the `<`, or as said at Found."""

    found: Found
    at: int
    name: bytes = b""  #: lower-case; cut at 16 bytes


class _State(enum.IntEnum):  # of int for its fast hash
    DATA = enum.auto()
    TAG = enum.auto()
    BOGUS = enum.auto()  # <!doctype ...>, <?...>, </...>: all end at the first >
    COMMENT_START = enum.auto()
    COMMENT = enum.auto()
    CDATA = enum.auto()
    RAW = enum.auto()
    RAW_OR_DATA = enum.auto()
    SCRIPT = enum.auto()
    ESCAPED = enum.auto()
    DOUBLE_ESCAPED = enum.auto()
    PLAINTEXT = enum.auto()


_ENDS = rb"(?=[" + SPACE + rb"/>])"
_TEXT = re.compile(rb"[^" + SPACE + rb"]")
_COMMENT_END = re.compile(rb"--!?>")
_CDATA = b"<![CDATA["

# 13.2.5.2 to 13.2.5.5, as 13.2.6.4 switches to them.
_RAW_END = {
    name: re.compile(rb"(?i)</" + name + _ENDS)
    for name in b"title textarea style xmp iframe noembed noframes noscript script".split()
}
_SCRIPT_TURN = re.compile(rb"(?i)<!--|</script" + _ENDS)
_ESCAPED_TURN = re.compile(rb"(?i)-->|<(/?)script" + _ENDS)
_SCRIPT_OVERLAP = len(b"</script")
_OWN_VALUE_MAX = 1 << 20
_TREE_NEEDED = frozenset({b"svg", b"math", b"select"})

# Text and simple tags of elements that change nothing, in one go: most of a body. Possessive,
# so that it is linear; what it does not match is read state by state.
_SPECIAL = b"|".join(
    [*_RAW_END, *_TREE_NEEDED, b"body", b"html", b"frameset", b"template", b"plaintext"]
)
_ORDINARY = re.compile(
    rb"(?:[^<]++|</?+(?!(?i:" + _SPECIAL + rb")[" + SPACE + rb"/>])[A-Za-z][A-Za-z0-9-]*+"
    rb"(?:[" + SPACE + rb"]++[A-Za-z][A-Za-z0-9_:-]*+(?:=" + SIMPLE_VALUE + rb")?+)*+"
    rb"[" + SPACE + rb"]*+/?+>)++"
)


class TagScanner:
    """Call `scan` with what was kept from the last call followed by what is new.

    `kept` says how many bytes at the end of that buffer were not settled (at most 17).
    `watch_text`: whether TEXT is reported, and every tag; without it only tags of elements that
    change how things are read, of `body`, `html`, `frameset` and `template` are sure to be.
    `all_attributes`: of every start tag, and not of `meta` only; for HTML of our own, whose
    values may be long (images in data: URLs).
    """

    def __init__(self, *, all_attributes: bool = False) -> None:
        self.watch_text = True
        self._all = all_attributes
        self.kept = 0
        self._state = _State.DATA
        self._events: list[Event] = []
        self._lost = False
        self._name = b""  # of the tag found last, or of the element whose raw text this is
        self._starts = False  # that tag is a start tag
        self._inside = TagReader(_OWN_VALUE_MAX) if all_attributes else TagReader()
        self._open = dict.fromkeys(_TREE_NEEDED, 0)

    @property
    def attributes(self) -> Attributes | None:
        """Of the tag found last, from the time when it is CLOSED, if they are read."""
        return self._inside.attributes

    @property
    def in_text(self) -> bool:
        """Whether everything is settled and markup that follows would be read as such."""
        return self._state is _State.DATA and not self.kept

    @property
    def in_tree(self) -> bool:
        """Whether a svg, math or select is open, as far as tags alone can tell."""
        return any(self._open.values())

    def scan(self, buffer: bytes, start: int = 0) -> Iterator[Event]:
        """The events of this buffer. Not to be resumed once its consumer has stopped."""
        at = start
        while at < len(buffer) and not self._lost:
            state = self._state
            step = _STEPS[state](self, buffer, at)
            if self._events:
                yield from self._events
                self._events.clear()
            if step == at and state is self._state:
                break
            at = step
        self.kept = len(buffer) - at

    # --- each takes the buffer and where to begin, and answers how far things are settled

    def _data(self, buffer: bytes, at: int) -> int:
        if not self.watch_text and (ordinary := _ORDINARY.match(buffer, at)):
            at = ordinary.end()
        less_than = buffer.find(b"<", at)
        end = less_than if less_than >= 0 else len(buffer)
        if self.watch_text and (text := _TEXT.search(buffer, at, end)):
            self._events.append(Event(Found.TEXT, text.start()))
        return self._markup(buffer, end) if less_than >= 0 else end

    def _markup(self, buffer: bytes, at: int) -> int:
        """13.2.5.6, 13.2.5.7: what the `<` at `at` begins."""
        second, third = buffer[at + 1 : at + 2], buffer[at + 2 : at + 3]
        if second.isalpha():
            return self._open_tag(buffer, at, at + 1, Found.START)
        if not second or (second == b"/" and not third):
            return at
        if second == b"!":
            return self._declaration(buffer, at)
        if second == b"/":
            if third.isalpha():
                return self._open_tag(buffer, at, at + 2, Found.END)
            if third == b">":
                return at + 3
        if second in (b"/", b"?"):
            self._state = _State.BOGUS
            return at + 2
        if self.watch_text:
            self._events.append(Event(Found.TEXT, at))
        return at + 1

    def _declaration(self, buffer: bytes, at: int) -> int:
        """13.2.5.42. CDATA exists in svg and math only; elsewhere it is a bogus comment."""
        seen = buffer[at : at + len(_CDATA)]
        if seen.startswith(b"<!--"):
            self._state = _State.COMMENT_START
            return at + 4
        if seen == _CDATA and self.in_tree:
            self._state = _State.CDATA
            return at + len(_CDATA)
        if b"<!--".startswith(seen) or (_CDATA.startswith(seen) and self.in_tree):
            return at
        self._state = _State.BOGUS
        return at + 2

    def _open_tag(self, buffer: bytes, at: int, begin: int, found: Found) -> int:
        name = TAG_NAME.match(buffer, begin, begin + NAME_MAX)
        end = name.end() if name else begin
        if end == len(buffer) and end - begin < NAME_MAX:
            return at
        self._name = buffer[begin:end].lower()
        self._starts = found is Found.START
        self._state = _State.TAG
        wanted = self._starts and (self._all or self._name == b"meta")
        self._inside.begin(attributes=wanted, exact=self._name in _TREE_NEEDED)
        self._events.append(Event(found, at, self._name))
        return end

    def _tag(self, buffer: bytes, at: int) -> int:
        at = self._inside.read(buffer, at)
        if self._inside.closed:
            self._close_tag(at)
        return at

    def _close_tag(self, at: int) -> None:
        self._events.append(Event(Found.CLOSED, at, self._name))
        self._state = _State.DATA
        name = self._name
        if name in _TREE_NEEDED:
            if self._starts and not (self._inside.slash and name != b"select"):
                self._open[name] += 1
            elif not self._starts and self._open[name]:
                self._open[name] -= 1
        elif self._starts:
            self._enter(name, at)

    def _enter(self, name: bytes, at: int) -> None:
        """How the content of an element is read."""
        if name == b"plaintext":
            if self.in_tree:
                self._give_up(at)
            self._state = _State.PLAINTEXT
        elif name in _RAW_END:
            if self.in_tree:
                self._state = _State.RAW_OR_DATA
            else:
                self._state = _State.SCRIPT if name == b"script" else _State.RAW

    def _give_up(self, at: int) -> None:
        self._lost = True
        self._events.append(Event(Found.AMBIGUOUS, at))

    def _bogus(self, buffer: bytes, at: int) -> int:
        end = buffer.find(b">", at)
        if end < 0:
            return len(buffer)
        self._state = _State.DATA
        return end + 1

    def _comment_start(self, buffer: bytes, at: int) -> int:
        """13.2.5.43, 13.2.5.44: `<!-->` and `<!--->` are comments."""
        for abrupt in (b">", b"->"):
            if buffer.startswith(abrupt, at):
                self._state = _State.DATA
                return at + len(abrupt)
        if buffer[at:] != b"-":
            self._state = _State.COMMENT
        return at

    def _comment(self, buffer: bytes, at: int) -> int:
        end = _COMMENT_END.search(buffer, at)
        if end is None:
            return max(at, len(buffer) - len(b"--!"))
        self._state = _State.DATA
        return end.end()

    def _cdata(self, buffer: bytes, at: int) -> int:
        """Settled only if `]]>` is also where a bogus comment would end."""
        end = buffer.find(b">", at)
        if end < 0:
            return max(at, len(buffer) - len(b"x]]"))
        # `]` is also the second byte of characters in Shift_JIS, GBK and Big5.
        alone = end - at < 3 or buffer[end - 3] < 0x80
        if alone and buffer[at:end].endswith(b"]]"):
            self._state = _State.DATA
        else:
            self._give_up(end)
        return end + 1

    def _raw(self, buffer: bytes, at: int) -> int:
        end = _RAW_END[self._name].search(buffer, at)
        if end is None:
            return max(at, len(buffer) - len(b"</") - len(self._name))
        self._state = _State.DATA
        return end.start()

    def _raw_or_data(self, buffer: bytes, at: int) -> int:
        """Raw text in HTML, ordinary content in svg: equal if the next tag is its end tag."""
        less_than = buffer.find(b"<", at)
        if less_than < 0:
            return len(buffer)
        if _RAW_END[self._name].match(buffer, less_than):
            self._state = _State.DATA
        elif not (b"</" + self._name).startswith(buffer[less_than:].lower()):
            self._give_up(less_than)
        return less_than

    def _script(self, buffer: bytes, at: int) -> int:
        """13.2.5.4, 13.2.5.15 to 13.2.5.17."""
        turn = _SCRIPT_TURN.search(buffer, at)
        if turn is None:
            return max(at, len(buffer) - _SCRIPT_OVERLAP)
        if turn[0] == b"<!--":
            self._state = _State.ESCAPED
            return turn.start() + len(b"<!")  # its dashes may be those of -->
        self._state = _State.DATA
        return turn.start()

    def _escaped(self, buffer: bytes, at: int) -> int:
        """13.2.5.20 to 13.2.5.31: in `<!--`, `<script>` hides the next `</script>`."""
        turn = _ESCAPED_TURN.search(buffer, at)
        if turn is None:
            return max(at, len(buffer) - _SCRIPT_OVERLAP)
        ends = turn[1] == b"/"
        if turn[0] == b"-->":
            self._state = _State.SCRIPT
        elif self._state is _State.DOUBLE_ESCAPED:
            if ends:
                self._state = _State.ESCAPED
        elif ends:
            self._state = _State.DATA
            return turn.start()
        else:
            self._state = _State.DOUBLE_ESCAPED
        return turn.end()

    def _plaintext(self, buffer: bytes, at: int) -> int:
        return len(buffer)


_STEPS = {
    _State.DATA: TagScanner._data,
    _State.TAG: TagScanner._tag,
    _State.BOGUS: TagScanner._bogus,
    _State.COMMENT_START: TagScanner._comment_start,
    _State.COMMENT: TagScanner._comment,
    _State.CDATA: TagScanner._cdata,
    _State.RAW: TagScanner._raw,
    _State.RAW_OR_DATA: TagScanner._raw_or_data,
    _State.SCRIPT: TagScanner._script,
    _State.ESCAPED: TagScanner._escaped,
    _State.DOUBLE_ESCAPED: TagScanner._escaped,
    _State.PLAINTEXT: TagScanner._plaintext,
}
