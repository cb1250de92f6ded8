"""What a piece of HTML needs a Content-Security-Policy's permission for. W3C CSP3 4.2, 6.1, 6.7.

Not read: what style sheets fetch (`url()`, `@import`), and what scripts do once they run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from proxy.content.html import Found, TagScanner
from proxy.content.html_tag import Attributes

SCRIPT, SCRIPT_ATTRIBUTE = "script-src-elem", "script-src-attr"
STYLE, STYLE_ATTRIBUTE = "style-src-elem", "style-src-attr"


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a policy may forbid.

    `directive`: the most specific one that governs it. `inline`: its text, or `url`: where it
    comes from; neither: something whose text could not be made out. `element`: a hash alone
    permits it ('unsafe-hashes' is needed for attributes and javascript: URLs).
    """

    directive: str
    inline: bytes | None = None
    url: str | None = None
    element: bool = True
    integrity: tuple[str, ...] = ()


# HTML's elements that fetch, by attribute.
_FETCHES = {
    ("img", "src"): "img-src",
    ("input", "src"): "img-src",
    ("image", "href"): "img-src",
    ("video", "poster"): "img-src",
    ("video", "src"): "media-src",
    ("audio", "src"): "media-src",
    ("source", "src"): "media-src",
    ("track", "src"): "media-src",
    ("iframe", "src"): "frame-src",
    ("embed", "src"): "object-src",
    ("object", "data"): "object-src",
    ("base", "href"): "base-uri",
    ("form", "action"): "form-action",
}
_LINKS = {
    "stylesheet": STYLE,
    "icon": "img-src",
    "apple-touch-icon": "img-src",
    "manifest": "manifest-src",
    "modulepreload": SCRIPT,
}
_GOES = ("href", "src", "action", "formaction", "data", "xlink:href")
_JAVASCRIPT = re.compile(r"[\x00-\x20]*javascript:", re.IGNORECASE)
# HTML 4.12.1: other types are data, which is not executed.
_RUNS = re.compile(
    r"|module|importmap|speculationrules|(?:text|application)/(?:x-)?(?:java|ecma|live|j)script"
    r"(?:1\.[0-5])?",
    re.IGNORECASE,
)


@lru_cache(maxsize=64)
def needs(html: bytes) -> tuple[Need, ...]:
    """Everything in this HTML that a policy may forbid, in order.

    Non-ASCII characters must be written as character references. Pure, never fails.
    """
    return tuple(_read(html))


def _read(html: bytes) -> Iterator[Need]:
    scanner = TagScanner(all_attributes=True)
    inline, begin = "", 0
    for event in scanner.scan(html):
        name = event.name.decode("latin-1")
        if event.found is Found.AMBIGUOUS:
            yield from (Need(SCRIPT), Need(STYLE))
        elif event.found is Found.END and inline == name:
            yield Need(SCRIPT if name == "script" else STYLE, inline=html[begin : event.at])
            inline = ""
        elif event.found is Found.CLOSED and (attributes := scanner.attributes) is not None:
            yield from _tag(name, attributes)
            if _has_text(name, attributes):
                inline, begin = name, event.at


def _has_text(name: str, attributes: Attributes) -> bool:
    """Whether this start tag begins something inline."""
    if name == "script":
        return attributes.get("src") is None and _runs(attributes)
    return name == "style"


def _runs(attributes: Attributes) -> bool:
    return _RUNS.fullmatch((attributes.get("type") or "").strip()) is not None


def _tag(name: str, attributes: Attributes) -> Iterator[Need]:
    for attribute in attributes:
        value = attributes.get(attribute) or ""
        if attribute == "style":
            yield Need(STYLE_ATTRIBUTE, inline=value.encode(), element=False)
        elif attribute.startswith("on"):
            yield Need(SCRIPT_ATTRIBUTE, inline=value.encode(), element=False)
        elif attribute in _GOES and _JAVASCRIPT.match(value):
            yield Need(SCRIPT, inline=value.strip().encode(), element=False)
        elif attribute == "srcdoc":  # its document inherits the policy
            yield from _read(value.encode("ascii", "xmlcharrefreplace"))
        elif attribute == "srcset":
            for candidate in value.split(","):
                yield Need("img-src", url=candidate.split()[0] if candidate.split() else "")
        elif value and (directive := _FETCHES.get((name, attribute))):
            yield Need(directive, url=value)
    yield from _loads(name, attributes)


def _loads(name: str, attributes: Attributes) -> Iterator[Need]:
    """Scripts and links, whose attributes say what they are."""
    integrity = tuple((attributes.get("integrity") or "").split())
    source = attributes.get("src")
    if name == "script" and source and _runs(attributes):
        yield Need(SCRIPT, url=source, integrity=integrity)
    target = attributes.get("href")
    if name == "link" and target:
        for word in (attributes.get("rel") or "").lower().split():
            if directive := _LINKS.get(word):
                yield Need(directive, url=target, integrity=integrity)
