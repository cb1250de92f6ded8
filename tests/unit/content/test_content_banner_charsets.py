"""A banner in every kind of encoding: in its place, readable, and every other byte as it was."""

from __future__ import annotations

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.content.banner import BannerEditor
from proxy.content.insertion import At
from proxy.content.markup import as_ascii, escape, note

BANNER = as_ascii('<p title="ü > ß">Überwacht — 監視 \U0001f50d</p>')
START, END, HEAD = At.BODY_START, At.BODY_END, At.HEAD_END


def edit(
    document: bytes, at: At = START, charset: str | None = None, size: int = 1 << 20
) -> tuple[bytes, str]:
    editor = BannerEditor(BANNER, at, charset=charset)
    pieces = [document[i : i + size] for i in range(0, len(document), size)]
    out = b"".join(editor.feed(piece) for piece in pieces) + editor.finish()
    return out, editor.outcome.value


def page(text: str) -> str:
    return (
        f"<!doctype html><html><head><title>{text}</title></head>"
        f'<body title="{text}"><p>{text}</p><script>"</body>"</script></body></html>'
    )


# Characters whose second bytes are letters, brackets, quotes or angle brackets somewhere.
JAPANESE = "表ソ能 日本語 、。縦書き"
TEXTS = {
    "utf-8": "Grüße, мир, 世界 \U0001f600",
    "windows-1252": "Grüße – “déjà vu” €",
    "koi8-r": "Привет, мир",
    "shift_jis": JAPANESE,
    "euc-jp": JAPANESE,
    "gbk": "中国 誠 俓 乗",
    "gb18030": "中国 \U0001f600 ğ",
    "big5": "許功蓋 中文",
    "euc-kr": "한국어 똠",
    "utf-16le": "Grüße 世界 㰀㸀 \U0001f600",
    "utf-16be": "Grüße 世界 㰀㸀 \U0001f600",
    "iso-2022-jp": JAPANESE,
}


@pytest.mark.parametrize("size", [1 << 20, 1, 3, 7])
@pytest.mark.parametrize("at", list(At))
@pytest.mark.parametrize("charset", TEXTS)
def test_it_reads_the_same_in_every_encoding(charset: str, at: At, size: int):
    text = page(TEXTS[charset])
    out, outcome = edit(text.encode(charset), at, charset, size)
    assert outcome == "inserted"
    place = {START: text.index("<p>"), END: text.rindex("</body>"), HEAD: text.index("</head>")}
    expected = text[: place[at]] + BANNER.decode() + text[place[at] :]
    assert out.decode(charset) == expected


@pytest.mark.parametrize(
    ("mark", "charset"),
    [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16le"), (b"\xfe\xff", "utf-16be")],
)
@pytest.mark.parametrize("declared", [None, "iso-2022-jp", "utf-8", "utf-16be", "replacement"])
@pytest.mark.parametrize("size", [1 << 20, 1])
def test_a_byte_order_mark_goes_before_what_the_head_says(mark, charset, declared, size):
    text = page("世界")
    out, outcome = edit(mark + text.encode(charset), START, declared, size)
    assert outcome == "inserted"
    assert out.startswith(mark + "<!doctype".encode(charset))
    assert out[len(mark) :].decode(charset) == text.replace("<p>", f"{BANNER.decode()}<p>")


class TestDeclaredByTheDocument:
    @pytest.mark.parametrize(
        "meta",
        [
            '<meta charset="iso-2022-jp">',
            '<META HTTP-EQUIV="content-type" CONTENT="text/html; charset=ISO-2022-JP">',
            "<meta content='text/html;charset = csISO2022JP' http-equiv=Content-Type>",
            "",  # its escape sequences are enough, as they are to browsers
        ],
    )
    @pytest.mark.parametrize("size", [1 << 20, 1, 5])
    def test_iso_2022_jp(self, meta: str, size: int):
        text = page(JAPANESE + "縦縮").replace("<title>", f"{meta}<title>")
        out, outcome = edit(text.encode("iso-2022-jp"), END, None, size)
        assert outcome == "inserted"
        assert out.decode("iso-2022-jp") == text.replace(
            "</body></html>", f"{BANNER.decode()}</body></html>"
        )

    @pytest.mark.parametrize("meta", ["<meta charset=utf-8>", "<meta charset=utf-16>"])
    @pytest.mark.parametrize("size", [1 << 20, 1])
    def test_elsewhere_escape_sequences_are_nothing(self, meta: str, size: int):
        document = f"{meta}<title>\x1b$B</title><body>x".encode()
        out, outcome = edit(document, START, None, size)
        assert (out, outcome) == (document.replace(b"<body>", b"<body>" + BANNER), "inserted")

    def test_the_first_one_counts(self):
        document = (
            b"<meta charset=nonsense><meta charset=utf-8><meta charset=iso-2022-jp>\x1b$B<body>"
        )
        assert edit(document) == (document, "late")

    @pytest.mark.parametrize("label", ["hz-gb-2312", "iso-2022-kr", "replacement"])
    def test_what_browsers_do_not_read_is_left_alone(self, label: str):
        document = f"<meta charset={label}><body>".encode()
        assert edit(document) == (document, "charset")
        assert edit(b"<body>", START, "replacement") == (b"<body>", "charset")


class TestIso2022Jp:
    def test_a_document_that_ends_in_japanese(self):
        document = "<body>日本".encode("iso-2022-jp").removesuffix(b"\x1b(B")
        out, outcome = edit(document, END, "iso-2022-jp")
        assert outcome == "inserted"
        assert out.startswith(document)
        assert out.decode("iso-2022-jp") == "<body>日本" + BANNER.decode()

    def test_what_looks_like_a_tag_in_japanese_is_none(self):
        # The bytes of these characters are those of "<body>" in ASCII.
        inside = b"\x1b$B" + b"<body>" + b"\x1b(B"
        assert edit(inside, START, "iso-2022-jp") == (inside, "no_body")
        page = b"<title>" + inside + b"</title><body>"
        assert edit(page, START, "iso-2022-jp") == (page + BANNER, "inserted")

    def test_an_escape_sequence_inside_a_tag_is_nothing(self):
        document = b"<bo\x1b(Bdy>\x1b(Jx\x1b(B"
        assert edit(document, START, "iso-2022-jp", 1) == (
            b"<bo\x1b(Bdy>" + BANNER + b"\x1b(Jx\x1b(B",
            "inserted",
        )

    def test_roman_is_left_for_the_banner(self):
        """There a backslash is a yen sign."""
        out, _ = edit(b"\x1b(J<body>\\", START, "iso-2022-jp")
        assert out == b"\x1b(J<body>\x1b(B" + BANNER + b"\x1b(J\\"

    def test_a_wrong_escape_sequence_is_text(self):
        document = b"\x1b(Z<body>"
        assert edit(document, START, "iso-2022-jp", 1) == (document, "late")


class TestUtf16:
    def test_half_a_character_at_the_end_stays(self):
        document = "<body>x</body>".encode("utf-16le") + b"<"
        for size in (1 << 20, 1):
            out, outcome = edit(document, START, "utf-16le", size)
            assert outcome == "inserted"
            assert out.endswith("x</body>".encode("utf-16le") + b"<")

    def test_a_character_is_not_a_tag_by_half_of_it(self):
        document = "㰀戀<p>㰼</p>".encode("utf-16le")
        assert edit(document, START, "utf-16le") == (document, "no_body")


@given(
    st.binary(max_size=80)
    | st.lists(
        st.sampled_from(
            [
                b"<body>",
                b"</body>",
                b"<p>",
                b"\x1b$B",
                b"\x1b(B",
                b"\x1b(J",
                b"\x1b",
                b"\x1b(",
                b"a",
                b"<meta charset=utf-8>",
                b"<meta charset=iso-2022-jp>",
                b"\x00",
                b"\xff\xfe",
                b"\xef\xbb",
            ]
        ),
        max_size=12,
    ).map(b"".join),
    st.sampled_from([None, *TEXTS, "replacement", "x-user-defined"]),
    st.sampled_from(list(At)),
    st.integers(1, 9),
)
@settings(max_examples=400)
def test_hostile_bytes_come_out_as_they_were_however_they_are_cut(data, charset, at, size):
    whole = edit(data, at, charset)
    assert edit(data, at, charset, size) == whole
    out, outcome = whole
    if outcome != "inserted":
        assert out == data
    else:
        assert sum(out[:i] + out[len(out) - len(data) + i :] == data for i in range(len(data) + 1))


def test_a_text_is_escaped_and_keeps_its_lines():
    made = note('a < b & "c"\nmüde', START, styled=False)
    assert made == (
        b'<div role="note" class="sluicegate-banner">a &#60; b &#38; &#34;c&#34;<br>m&#252;de</div>'
    )
    assert note("x\ny", HEAD, styled=True) == b'<meta name="notice" content="x y">'


def test_html_beyond_ascii_means_the_same_in_scripts_and_styles():
    made = as_ascii(
        "<p>é</p><script>a('é\U0001f600')</script><style>i::after{content:'é'}</style>\r\n"
    )
    assert made == (
        b"<p>&#233;</p><script>a('\\u00e9\\ud83d\\ude00')</script>"
        b"<style>i::after{content:'\\e9 '}</style>\n"
    )


@given(st.text(max_size=40))
def test_a_value_means_itself_in_text_and_in_quotes_and_ends_no_string(value: str):
    assert not set(escape(value)) & set("<>\"'`\\\n\r${}=")
    # Control characters are never the same in HTML (13.2.3.5).
    plain = "".join(char for char in value if char.isprintable())
    for quote in "'\"":
        page = f"<b title={quote}{escape(plain)}{quote}>{escape(plain)}</b>"
        (found,) = html5lib.parse(page, namespaceHTMLElements=False).iter("b")
        assert (found.get("title"), found.text or "") == (plain, plain)
