"""Which character encoding a text is in: the WHATWG's answer (encoding.spec.whatwg.org 4.2 and 6,
html.spec.whatwg.org 13.2.3.2), as browsers find it.

A byte order mark counts before the header, the header before what the document says of
itself, as far as that stands in its first 1,024 bytes. What a browser may find out later (a
`meta` further down, a guess by the characters) is not looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import webencodings

from proxy.content.prescan import PRESCAN_BYTES, encoding_name, meta_encoding, xml_encoding

# Byte order marks, and XML declarations that have none.
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xfe\xff", "utf-16be"), (b"\xff\xfe", "utf-16le"))
_XML = b"<?xml"
_WIDE_XML = ((b"<\0?\0x\0", "utf-16le"), (b"\0<\0?\0x", "utf-16be"))
# Of these a byte below 0x80 may be half of a character, or depends on what came before.
_NOT_ASCII = frozenset({"utf-16le", "utf-16be", "iso-2022-jp", "replacement"})
# Second bytes may be letters or brackets: see Charset.ascii_based.
_ASCII_TRAILS = frozenset({"big5", "euc-kr", "gb18030", "gbk", "shift_jis"})
# webencodings knows the labels; for these names Python has a better codec, or none.
_CODECS = {
    "gbk": "gb18030",  # 10.1.1: gbk's decoder is gb18030's
    "replacement": "ascii",
    "x-user-defined": "ascii",
}


@dataclass(frozen=True, slots=True)
class Charset:
    """`name` is the WHATWG's, lower-case; `codec` Python's name of what comes nearest to it.

    `ascii_based`: a byte that is ASCII markup (white space, quotes, `<`, `>`, `&`, `/`, `=`, `!`,
    `-`, `?`) always means itself. True of UTF-8 and of the single-byte encodings, as far as the
    web has them; of EUC-JP, whose other bytes are all above 0x7F; and of Shift_JIS, Big5, GBK
    and EUC-KR, as second bytes there begin at 0x40 or 0x41, above all of these characters. The
    digits that are second and fourth bytes of gb18030 are no markup either. False of UTF-16 and
    of ISO-2022-JP, where they are halves of characters, and of `replacement`.

    `ascii_exact`: so does every byte below 0x80, letters and brackets included.
    """

    name: str
    codec: str
    ascii_based: bool
    ascii_exact: bool


def charset_named(label: bytes) -> Charset | None:
    """The encoding that has this label, which may be in any case; None: there is no such label."""
    name = encoding_name(label)
    return _known(name) if name else None


@cache
def _known(name: str) -> Charset:
    codec = _CODECS.get(name) or webencodings.lookup(name).codec_info.name
    ascii_based = name not in _NOT_ASCII
    return Charset(name, codec, ascii_based, ascii_based and name not in _ASCII_TRAILS)


UTF8 = _known("utf-8")
WINDOWS_1252 = _known("windows-1252")

_PARAMETER = re.compile(rb';([^;="]*+)=[ \t]*+("(?:[^"\\]++|\\.)*+"?|[^;]*+)')


def charset_in(content_type: bytes) -> Charset | None:
    """What the first `charset` parameter of a Content-Type names.

    mimesniff.spec.whatwg.org 4.4, but blanks around the equals sign are taken, as Chromium does.
    """
    for name, value in _PARAMETER.findall(content_type):
        if name.strip(b" \t").lower() == b"charset":
            if value.startswith(b'"'):
                value = re.sub(rb"\\(.)", rb"\1", value[1:].removesuffix(b'"'))
            return charset_named(value)
    return None


def charset_of(content_type: bytes | None, start: bytes, *, html: bool) -> Charset:
    """The encoding of a text that begins with `start` and, if that is short, ends there."""
    sniffer = CharsetSniffer(content_type, html=html)
    return sniffer.feed(start) or sniffer.finish()


class CharsetSniffer:
    """Feed it the beginning of a text until it answers. Holds PRESCAN_BYTES at most.

    With a header's charset three bytes are enough. Else an HTML document is read up to a
    `meta` that decides, up to 1,024 bytes or up to its end, and no shorter: browsers, too,
    take a `meta` behind `<body>`. Other texts need more than the first bytes only if these
    begin an XML declaration.
    """

    def __init__(self, content_type: bytes | None, *, html: bool) -> None:
        self._declared = charset_in(content_type) if content_type else None
        self._html = html
        self._default = WINDOWS_1252 if html else UTF8
        self._start = b""
        self._found: Charset | None = None

    def feed(self, data: bytes) -> Charset | None:
        """The answer, as soon as more bytes would not change it."""
        if self._found is None and data:
            self._start += data[: PRESCAN_BYTES - len(self._start)]
            if len(self._start) == PRESCAN_BYTES:
                self._found = self.finish()
            else:
                # Neither a tag nor a declaration is complete without a `>`.
                self._found = self._decide(ended=False, turned=b">" in data)
        return self._found

    def finish(self) -> Charset:
        """The answer for a text that ends here."""
        return self._found or self._decide(ended=True, turned=True) or self._default

    def _decide(self, *, ended: bool, turned: bool) -> Charset | None:
        """None: more bytes may change it. `turned`: something may have become complete."""
        start = self._start
        for mark, name in _MARKS:
            if start.startswith(mark):
                return _known(name)
            if not ended and mark.startswith(start):
                return None
        if self._declared:
            return self._declared
        for form, name in _WIDE_XML:
            if start.startswith(form):
                return _known(name)
        if turned and (said := self._said(ended=ended)):
            return _known(said)
        return None if ended or self._open(turned=turned) else self._default

    def _said(self, *, ended: bool) -> str | None:
        """What the document says of itself; in HTML a declaration of XML comes last."""
        said = meta_encoding(self._start) if self._html else None
        return said or (xml_encoding(self._start) if ended or not self._html else None)

    def _open(self, *, turned: bool) -> bool:
        """Whether there may still come something that decides."""
        start = self._start
        may_be = any(form.startswith(start[: len(form)]) for form, _ in _WIDE_XML)
        declares = _XML.startswith(start[: len(_XML)]) and not turned
        return self._html or may_be or declares
