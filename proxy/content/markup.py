"""Text and HTML of a policy as ASCII that means the same in every encoding and every place."""

from __future__ import annotations

import re
from functools import lru_cache

from proxy.content.html import Found, TagScanner
from proxy.content.insertion import At

#: `all: initial` keeps the page's own rules out; a note is seen above fixed headers.
_LOOK = (
    "all:initial;display:block;position:relative;z-index:2147483647;box-sizing:border-box;"
    "padding:8px 16px;background:#fff4ce;color:#201f1e;border-bottom:1px solid #c8a600;"
    "font:14px/1.5 sans-serif;text-align:center"
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._~:/?,@%+-]")


def escape(value: str) -> str:
    """A value that means itself in text and in quoted attributes.

    More than these two need is written as a character reference, so that a value cannot end a
    quoted string of a script or a style sheet either; there it would show as written.
    """
    return _NOT_PLAIN.sub(lambda found: f"&#{ord(found[0])};", value)


def note(text: str, at: At, *, styled: bool) -> bytes:
    """Plain text as an element of its own. At the end of the head nothing is shown: a <meta>.

    `styled` gives it a look by a style attribute, which a Content-Security-Policy may forbid.
    """
    lines = [escape(line) for line in text.strip().splitlines()]
    if at is At.HEAD_END:
        return f'<meta name="notice" content="{" ".join(lines)}">'.encode("ascii")
    look = f' style="{_LOOK}"' if styled else ""
    content = "<br>".join(lines)
    return f'<div role="note" class="sluicegate-banner"{look}>{content}</div>'.encode("ascii")


@lru_cache(maxsize=64)
def as_ascii(html: str) -> bytes:
    """HTML with everything beyond ASCII written as character references.

    In scripts and style sheets, where there are none, as escapes of those languages: they hold
    in strings and names. Line ends are LF, as a parser makes them (what is hashed by a
    Content-Security-Policy is what the parser made). Lone surrogates become U+FFFD.
    """
    html = html.replace("\r\n", "\n").replace("\r", "\n")
    if html.isascii():
        return html.encode("ascii")
    source = html.encode("utf-8", "replace")
    pieces, at = [], 0
    for name, begin, end in _raw_texts(source):
        pieces += [_referenced(source[at:begin]), _escaped(name, source[begin:end])]
        at = end
    return "".join([*pieces, _referenced(source[at:])]).encode("ascii")


def _raw_texts(source: bytes) -> list[tuple[bytes, int, int]]:
    """Where scripts and style sheets stand: (element, begin, end)."""
    found, begin = [], 0
    for event in TagScanner().scan(source):
        if event.found is Found.CLOSED:
            begin = event.at
        elif event.found is Found.END and event.name in (b"script", b"style"):
            found.append((event.name, begin, event.at))
    return found


def _referenced(source: bytes) -> str:
    return _NOT_ASCII.sub(lambda found: f"&#{ord(found[0])};", source.decode("utf-8"))


def _escaped(name: bytes, source: bytes) -> str:
    write = _in_script if name == b"script" else _in_style
    return _NOT_ASCII.sub(lambda found: write(found[0]), source.decode("utf-8"))


def _in_script(char: str) -> str:
    """ECMA-262 12.9.4: code units."""
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _in_style(char: str) -> str:
    """css-syntax 4.3.7: the blank ends the escape."""
    return f"\\{ord(char):x} "
