"""What a document says of its own encoding: html.spec.whatwg.org 13.2.3.2, "prescan a byte stream
to determine its encoding", with the XML declaration that the same section falls back to.

Each function takes the beginning of the document and answers an encoding's name or None. What
it finds in a beginning it finds in every longer one, too.
"""

from __future__ import annotations

import re

import webencodings

PRESCAN_BYTES = 1024

_SPACE = rb"\t\n\f\r "
_MARKUP = re.compile(rb"(?i)<(?:(!--)|(meta)(?=[" + _SPACE + rb"/])|(/?[a-z])|[!/?])")
_NAME_END = re.compile(rb"[" + _SPACE + rb">]")
# "get an attribute": the tag's end; or a name, which may begin with an equals sign, and behind
# an equals sign a value, which is missing here only when it is cut off.
_ATTRIBUTE = re.compile(
    rb"[" + _SPACE + rb"/]*+(?:(?P<end>>)|(?P<name>[^" + _SPACE + rb"/>][^" + _SPACE + rb"/>=]*+)"
    rb"[" + _SPACE + rb"]*+(?:(?P<equals>=)[" + _SPACE + rb"]*+(?P<value>"
    rb"\"[^\"]*+\"|'[^']*+'|(?=>)|[^" + _SPACE + rb">\"'][^" + _SPACE + rb">]*+)?+)?+)"
)
_CHARSET = re.compile(rb"charset[" + _SPACE + rb"]*+=[" + _SPACE + rb"]*+")
_LABEL = re.compile(rb"\"([^\"]*)\"|'([^']*)'|([^\"'" + _SPACE + rb";][^" + _SPACE + rb";]*)")
_XML = re.compile(
    rb"<\?xml[^>]*?encoding[\x00-\x20]*+=[\x00-\x20]*+(?:\"([^\">]*)\"|'([^'>]*)')[^>]*>"
)
# In UTF-16 the declaration itself could not have been read (13.2.3.2).
_WIDE = ("utf-16be", "utf-16le")


def encoding_name(label: bytes) -> str | None:
    """The WHATWG's name for a label ("get an encoding"), lower-case."""
    encoding = webencodings.lookup(label.decode("latin-1"))
    name: str | None = encoding.name if encoding is not None else None
    return name


def xml_encoding(start: bytes) -> str | None:
    """`<?xml ... encoding="..."?>` at the very beginning ("get an XML encoding")."""
    found = _XML.match(start)
    name = encoding_name(found[1] or found[2] or b"") if found else None
    return "utf-8" if name in _WIDE else name


def meta_encoding(start: bytes) -> str | None:
    """The first `<meta>` in PRESCAN_BYTES that names an encoding there is."""
    start = start[:PRESCAN_BYTES]
    at: int | None = 0
    while at is not None and (markup := _MARKUP.search(start, at)):
        comment, meta, tag = markup.groups()
        if comment:
            # The dashes may be those that open it: `<!-->`.
            at = _behind(start, b"-->", markup.start() + 2)
        elif meta or tag:
            # Of other tags the name goes on through a solidus, of `meta` it does not.
            name_end = _NAME_END.search(start, markup.end())
            tag_end = name_end.start() if name_end else len(start)
            attributes, at = _attributes(start, markup.end() if meta else tag_end)
            if meta and at is not None and (name := _in_meta(attributes)):
                return name
        else:
            at = _behind(start, b">", markup.start())
    return None


def _behind(start: bytes, wanted: bytes, at: int) -> int | None:
    place = start.find(wanted, at)
    return place + len(wanted) if place >= 0 else None


def _attributes(start: bytes, at: int) -> tuple[dict[bytes, bytes], int | None]:
    """The attributes from `at` on, the first of a name, and where the tag has ended (None: not).

    Lower-case, as their values are compared in lower case only.
    """
    attributes: dict[bytes, bytes] = {}
    while found := _ATTRIBUTE.match(start, at):
        at = found.end()
        if found["end"]:
            return attributes, at
        if at == len(start) or (found["equals"] and found["value"] is None):
            break
        value = found["value"] or b""
        if value[:1] in (b'"', b"'"):
            value = value[1:-1]
        attributes.setdefault(found["name"].lower(), value.lower())
    return attributes, None


def _in_meta(attributes: dict[bytes, bytes]) -> str | None:
    """The encoding that a meta element with these attributes declares."""
    if (label := attributes.get(b"charset")) is not None:
        name = encoding_name(label)
    elif attributes.get(b"http-equiv") == b"content-type":
        name = _in_content(attributes.get(b"content", b""))
    else:
        return None
    if name == "x-user-defined":
        return "windows-1252"
    return "utf-8" if name in _WIDE else name


def _in_content(content: bytes) -> str | None:
    """html.spec.whatwg.org 2.5.5, "extracting a character encoding from a meta element"."""
    named = _CHARSET.search(content)
    label = _LABEL.match(content, named.end()) if named else None
    return encoding_name(label[1] or label[2] or label[3] or b"") if label else None
