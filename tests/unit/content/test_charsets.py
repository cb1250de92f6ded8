"""Which encoding a text is in: marks, headers, what a document says of itself, and when."""

from __future__ import annotations

import codecs

import pytest
import webencodings
from hypothesis import given
from hypothesis import strategies as st
from webencodings.labels import LABELS

from proxy.content.charsets import Charset, CharsetSniffer, charset_named, charset_of
from proxy.content.prescan import PRESCAN_BYTES

HTML = b"text/html"


def name_of(content_type: bytes | None, start: bytes, *, html: bool = True) -> str:
    return charset_of(content_type, start, html=html).name


def answered_after(content_type: bytes | None, text: bytes, *, html: bool) -> int | None:
    """How many bytes were needed; None: the end."""
    sniffer = CharsetSniffer(content_type, html=html)
    for size in range(len(text)):
        if sniffer.feed(text[size : size + 1]):
            return size + 1
    return None


@pytest.mark.parametrize(
    ("content_type", "start", "name"),
    [
        (b"text/html; charset=koi8-r", b"\xef\xbb\xbfa", "utf-8"),
        (b"text/html; charset=koi8-r", b"\xff\xfea\0", "utf-16le"),
        (None, b"\xfe\xff\0a", "utf-16be"),
        (b"text/html; charset=koi8-r", b"<meta charset=gbk>", "koi8-r"),
        (b"text/html; charset=no-such", b"<meta charset=gbk>", "gbk"),
        (b"text/html; charset=utf-16", b"<p>", "utf-16le"),
        (b"text/html; charset=x-user-defined", b"<p>", "x-user-defined"),
        (HTML, b"", "windows-1252"),
        (None, b"<p>", "windows-1252"),
        (None, b"\xef\xbb", "windows-1252"),
    ],
)
def test_a_mark_counts_before_the_header_and_the_header_before_the_document(
    content_type: bytes | None, start: bytes, name: str
) -> None:
    assert name_of(content_type, start) == name


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        (b"text/plain;charset=SHIFT_JIS", "shift_jis"),
        (b'text/plain; charset="l\\atin1"', "windows-1252"),
        (b"text/plain; Charset = ' utf-8'", "utf-8"),
        (b'text/plain; a=";charset=gbk;"; charset=big5', "big5"),
        (b"text/plain; charset=gbk; charset=big5", "gbk"),
        (b"text/plain; charset=  euc-kr ; x", "euc-kr"),
        (b"text/plain; charset", "utf-8"),
        (b"text/plain; charset=", "utf-8"),
        (b'text/plain; charset="gbk', "gbk"),
        (b"text/plain; charset=iso-2022-kr", "replacement"),
        (b"text/plain;" + b" " * 60_000 + b"charset=gbk", "gbk"),
        (b"text/plain" + b"; a" * 20_000, "utf-8"),
        (b"\xff;charset=\xff", "utf-8"),
    ],
)
def test_the_header(content_type: bytes, name: str) -> None:
    assert name_of(content_type, b"x", html=False) == name


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (b"<meta charset=gbk>", "gbk"),
        (b"<META\nCHARSET = 'Shift_JIS'>", "shift_jis"),
        (b"<meta/charset=gbk>", "gbk"),
        (b"<meta charset=utf-16>", "utf-8"),
        (b"<meta charset=x-user-defined>", "windows-1252"),
        (b"<meta charset=nope><meta charset=gbk>", "gbk"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=euc-jp">', "euc-jp"),
        (b"<meta content='a;charset = \"euc-jp\"' http-equiv=content-type>", "euc-jp"),
        (b"<meta content='charsetcharset=euc-jp' http-equiv=content-type>", "euc-jp"),
        (b"<meta content='charset=\"euc-jp' http-equiv=content-type>", "windows-1252"),
        (b"<meta content='text/html; charset=euc-jp'>", "windows-1252"),
        (b"<meta charset=big5 charset=gbk>", "big5"),
        (b"<meta content='charset=euc-jp' http-equiv=content-type charset=gbk>", "gbk"),
        (b"<metax charset=gbk>", "windows-1252"),
        (b"<meta charset=gbk", "windows-1252"),
        (b"<!-- <meta charset=gbk> --><meta charset=big5>", "big5"),
        (b"<!--><meta charset=gbk>-->", "gbk"),
        (b"<!-- <meta charset=gbk>", "windows-1252"),
        (b"<a title='<meta charset=gbk>'><meta charset=big5>", "big5"),
        (b"<a title='>'<meta charset=gbk>", "windows-1252"),
        (b"<a/b=1 c><meta charset=gbk>", "gbk"),
        (b"</a x='<meta charset=big5>'><meta charset=gbk>", "gbk"),
        (b"</ <meta charset=big5><meta charset=gbk>", "gbk"),
        (b"<?x <meta charset=big5><meta charset=gbk>", "gbk"),
        (b"<!x <meta charset=big5><meta charset=gbk>", "gbk"),
        (b"< meta charset=big5><meta charset=gbk>", "gbk"),
        (b"<meta =charset=big5 charset=gbk>", "gbk"),
        (b"<script>'<meta charset=gbk>'</script>", "gbk"),
        (b"<body><p><meta charset=gbk>", "gbk"),
        (b'<?xml version="1.0" encoding="koi8-r"?><html>', "koi8-r"),
        (b'<?xml version="1.0" encoding="koi8-r"?><meta charset=gbk>', "gbk"),
        (b'<?xml encoding="utf-16"?>', "utf-8"),
        (b'<?xml encoding="koi8-r?>', "windows-1252"),
        (b' <?xml encoding="koi8-r"?>', "windows-1252"),
        (b"<\0?\0x\0m\0", "utf-16le"),
        (b"\0<\0?\0x\0m", "utf-16be"),
        (b" " * (PRESCAN_BYTES - 18) + b"<meta charset=gbk>", "gbk"),
        (b" " * (PRESCAN_BYTES - 17) + b"<meta charset=gbk>", "windows-1252"),
    ],
)
def test_what_a_document_says(document: bytes, name: str) -> None:
    assert name_of(HTML, document) == name
    sniffer = CharsetSniffer(HTML, html=True)
    answers = [sniffer.feed(document[i : i + 1]) for i in range(len(document))]
    assert {answer.name for answer in [*answers, sniffer.finish()] if answer} == {name}


@pytest.mark.parametrize(
    ("document", "name"),
    [
        (b"<meta charset=gbk>", "utf-8"),
        (b'<?xml version="1.0" encoding="koi8-r"?><a/>', "koi8-r"),
        (b"<?xml version='1.0'?><a encoding='koi8-r'/>", "utf-8"),
        (b"\0<\0?\0x\0m", "utf-16be"),
        (b"plain", "utf-8"),
        (b"", "utf-8"),
    ],
)
def test_other_texts_are_utf8_unless_they_declare_xml(document: bytes, name: str) -> None:
    assert name_of(b"text/xml", document, html=False) == name


@pytest.mark.parametrize(
    ("content_type", "text", "html", "needed"),
    [
        (b"text/html; charset=gbk", b"<p>", True, 1),
        (b"text/html; charset=gbk", b"\xef\xbb!", True, 3),
        (b"text/html; charset=gbk", b"\xff!", True, 2),
        (HTML, b"\xfe\xffxx", True, 2),
        (HTML, b"<meta charset=gbk><p>", True, 18),
        (HTML, b"<body>" + b"x" * 2000, True, PRESCAN_BYTES),
        (HTML, b"<p>", True, None),
        (b"text/plain", b"hello", False, 1),
        (b"text/plain", b"<hello", False, 2),
        (b"text/xml", b"<?xml version='1.0'?><a/>", False, 21),
    ],
)
def test_it_answers_as_soon_as_it_can_be_sure(
    content_type: bytes, text: bytes, html: bool, needed: int | None
) -> None:
    assert answered_after(content_type, text, html=html) == needed


PARTS = [
    b"<meta ", b"charset=", b"gbk", b">", b"'", b'"', b"<!--", b"-->", b"<a", b" ", b"/", b"=",
    b"<?xml ", b"encoding='big5'", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"<", b"x" * 300,
]  # fmt: skip


@given(
    st.lists(st.sampled_from(PARTS), max_size=14).map(b"".join),
    st.booleans(),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_the_answer_does_not_depend_on_the_cut(text: bytes, html: bool, sizes: list[int]) -> None:
    sniffer, at, turn, found = CharsetSniffer(None, html=html), 0, 0, None
    while at < len(text) and found is None:
        size = sizes[turn % len(sizes)]
        found = sniffer.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    assert (found or sniffer.finish()) == charset_of(None, text, html=html)


def test_every_label_leads_to_a_codec_that_python_has() -> None:
    for label, name in LABELS.items():
        charset = charset_named(b" " + label.upper().encode() + b"\n")
        assert isinstance(charset, Charset)
        assert charset.name == name
        assert codecs.lookup(charset.codec)
    assert charset_named(b"no-such-charset") is None


MARKUP = b"\t\n\f\r \"&'-/=<>!?"


@pytest.mark.parametrize("name", sorted(set(LABELS.values()) - {"replacement", "x-user-defined"}))
def test_markup_is_no_part_of_other_characters_where_that_is_said(name: str) -> None:
    charset = charset_named(name.encode())
    assert charset is not None
    low = bytes(range(0x80)) if charset.ascii_exact else MARKUP
    for first in range(0x80, 0x100):
        for second in low:
            text = (bytes((first, second)) + b"  ").decode(charset.codec, "replace")
            if charset.ascii_based:
                assert text.endswith(chr(second) + "  ")
    if not charset.ascii_based:
        assert name in {"utf-16le", "utf-16be", "iso-2022-jp"}
    elif not charset.ascii_exact:
        assert name in {"shift_jis", "big5", "gbk", "gb18030", "euc-kr"}
    assert webencodings.lookup(name).name == name
