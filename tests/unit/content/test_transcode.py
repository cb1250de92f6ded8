"""Editing text in any encoding: what is not edited stays, byte by byte, and what is, is right."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webencodings.labels import LABELS

from proxy.content.charsets import Charset, charset_named
from proxy.content.transcode import Recoder, Utf8View

NAMES = sorted(set(LABELS.values()))
TEXTUAL = sorted({*NAMES} - {"replacement", "x-user-defined"})


def charset(name: str) -> Charset:
    found = charset_named(name.encode())
    assert found is not None
    return found


def seen(name: str, data: bytes) -> str:
    view = Utf8View(charset(name))
    return (view.feed(data) + view.finish()).decode()


class Holder:
    """Changes nothing; holds the last `size` bytes back."""

    inserted = False
    outcome = "held"

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        self._kept += data
        settled = max(0, len(self._kept) - self._size)
        out, self._kept = self._kept[:settled], self._kept[settled:]
        return out

    def finish(self) -> bytes:
        return self._kept


class Replacer:
    """Replaces a text whose beginning does not repeat in it."""

    inserted = False
    outcome = "replaced"

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old.encode(), new.encode()
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        text = (self._kept + data).replace(self._old, self._new)
        sizes = range(min(len(self._old) - 1, len(text)), 0, -1)
        held = next((n for n in sizes if self._old.startswith(text[-n:])), 0)
        self._kept = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> bytes:
        return self._kept


class Dropper(Holder):
    def __init__(self) -> None:
        super().__init__(1 << 30)

    def feed(self, data: bytes) -> bytes:
        return b""


def recoded(
    name: str, data: bytes, editor: Holder | Replacer, size: int = 1 << 20, *, html: bool = True
) -> bytes:
    recoder = Recoder(editor, charset(name), html=html)
    out = [recoder.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join(out) + recoder.finish()


SHIFTS = [b"\x1b(B", b"\x1b(J", b"\x1b(I", b"\x1b$@", b"\x1b$B", b"\x1b$(D", b"\x1b", b"\x1b$"]
HOSTILE = st.lists(
    st.binary(min_size=1, max_size=4)
    | st.sampled_from([*SHIFTS, b"<a>", b"\x00\xd8", b"\xd8\x00", b"\x810\x810", b"\x87\x9a"]),
    max_size=20,
).map(b"".join)


@pytest.mark.parametrize("name", NAMES)
@given(data=HOSTILE, held=st.integers(0, 9), size=st.integers(1, 7), times=st.sampled_from([1, 90]))
@settings(deadline=None, max_examples=25)
def test_without_an_edit_every_byte_stays(
    name: str, data: bytes, held: int, size: int, times: int
) -> None:
    data *= times
    assert recoded(name, data, Holder(held)) == data
    assert recoded(name, data, Holder(held), size) == data


@pytest.mark.parametrize("name", [name for name in NAMES if name != "iso-2022-jp"])
@given(data=HOSTILE)
@settings(deadline=None, max_examples=25)
def test_behind_an_edit_bytes_that_are_no_text_stay_and_mean_the_same(
    name: str, data: bytes
) -> None:
    start, changed = ("ol:".encode(charset(name).codec), "n:".encode(charset(name).codec))
    out = recoded(name, start + data, Replacer("ol", "n"))
    assert out == recoded(name, start + data, Replacer("ol", "n"), 1)
    assert seen(name, out) == seen(name, changed + data)
    if name not in {"shift_jis", "big5", "gbk", "gb18030"}:  # one form of each character
        assert out == changed + data


@given(data=HOSTILE)
@settings(deadline=None)
def test_in_iso_2022_jp_no_byte_becomes_another_character_behind_an_edit(data: bytes) -> None:
    out = recoded("iso-2022-jp", b"ol:" + data, Replacer("ol", "n"))
    assert out == recoded("iso-2022-jp", b"ol:" + data, Replacer("ol", "n"), 1)
    runs = re.compile("(?:&#65533;|\ufffd)+")
    assert runs.sub("?", seen("iso-2022-jp", out)) == runs.sub(
        "?", seen("iso-2022-jp", b"n:" + data)
    )


SAMPLES = {
    "utf-8": "naïve 日本 old 😀",
    "utf-16le": "naïve 日本 old 😀",
    "utf-16be": "naïve 日本 old 😀",
    "iso-2022-jp": "これは¥old‾ｱｲｳ日本old語",
    "shift_jis": "これはoldテストｱｲｳ表示old",
    "euc-jp": "これはoldテストｱｲｳ表示old",
    "euc-kr": "안녕old하세요",
    "big5": "中文old功許",
    "gbk": "中文old測試€",
    "gb18030": "中文old測試😀",
    "windows-1252": "naïve “old” €",
    "koi8-r": "приветoldмир",
    "windows-1251": "приветoldмир",
    "iso-8859-8-i": "שלוםold",
    "windows-874": "สวัสดีold",
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("new", ["", "new", "old old", "語é😀"])
@pytest.mark.parametrize("size", [1, 2, 5, 1 << 20])
def test_an_edit_is_written_in_the_encoding(name: str, new: str, size: int) -> None:
    codec = charset(name).codec
    text = SAMPLES[name] * 3
    data = _encoded(text, name)
    editor = Replacer("old", new)
    out = recoded(name, data, editor, size)
    assert out == recoded(name, data, Replacer("old", new))
    wanted = text.replace("old", new)
    referred = "".join(c if _has(c, name) else f"&#{ord(c)};" for c in wanted)
    assert seen(name, out) == referred
    assert codec == "iso2022_jp" or out == _encoded(referred, name)


def _has(character: str, name: str) -> bool:
    if name == "iso-2022-jp":
        return character != "é" and character != "😀"
    return character.encode(charset(name).codec, "ignore") != b""


def _encoded(text: str, name: str) -> bytes:
    codec = "iso2022_jp_ext" if name == "iso-2022-jp" else charset(name).codec
    return text.encode(codec)


def test_what_an_encoding_lacks_is_a_question_mark_outside_of_html() -> None:
    for name in ("windows-1252", "shift_jis", "iso-2022-jp"):
        out = recoded(name, b"an old text", Replacer("old", "😀"), html=False)
        assert out == b"an ? text"


def test_byte_order_marks_are_kept() -> None:
    data = b"\xff\xfe" + "an old text".encode("utf-16-le")
    out = recoded("utf-16le", data, Replacer("old", "new"))
    assert out == b"\xff\xfe" + "an new text".encode("utf-16-le")


def test_up_to_the_edit_every_form_of_a_character_stays_and_behind_it_the_first_counts() -> None:
    because = b"\x87\x9a"  # NEC's, for what stands at 81E6, too
    out = recoded("shift_jis", because + b"old" + because, Replacer("old", "new"))
    assert out == because + b"new" + b"\x81\xe6"


def test_two_escape_sequences_never_follow_one_another_at_an_edit() -> None:
    data = b"\x1b$B$3$l\x1b(Bold\x1b$B$3\x1b(B"
    for size in (1, 2, 3, 100):
        out = recoded("iso-2022-jp", data, Replacer("old", "日"), size)
        assert out == b"\x1b$B$3$lF|$3\x1b(B"


def test_a_held_text_goes_out_as_far_as_the_editor_gives_it() -> None:
    recoder = Recoder(Replacer("secret", "x"), charset("utf-16le"), html=False)
    assert recoder.feed("data: 1\n\nse".encode("utf-16-le")) == "data: 1\n\n".encode("utf-16-le")
    assert recoder.feed("cond\n\n".encode("utf-16-le")) == "second\n\n".encode("utf-16-le")
    assert recoder.outcome == "replaced"
    assert recoder.inserted is False


def test_an_editor_that_drops_everything_costs_no_memory() -> None:
    recoder = Recoder(Dropper(), charset("euc-jp"), html=False)
    for _ in range(40):
        assert recoder.feed(b"\xa4\xa2" * 32768) == b""
    assert recoder.finish() == b""
    assert recoder._encoder is not None  # what came in is not remembered any more


def test_an_editor_that_writes_no_utf8_does_no_harm() -> None:
    class Breaker(Holder):
        def feed(self, data: bytes) -> bytes:
            return data[:-1] + b"\xff\xed\xa0"

    out = recoded("shift_jis", b"ab", Breaker(0), html=False)
    assert out.startswith(b"a?")
    assert set(out) == set(b"a?")


@pytest.mark.parametrize("name", TEXTUAL)
def test_the_view_shows_text_as_utf8(name: str) -> None:
    text = SAMPLES.get(name, "plain")
    data = _encoded(text, name)
    view = Utf8View(charset(name))
    pieces = [view.feed(data[i : i + 1]) for i in range(len(data))]
    assert (b"".join(pieces) + view.finish()).decode() == text


@given(st.sampled_from(NAMES), HOSTILE, st.integers(1, 9))
@settings(deadline=None)
def test_the_view_takes_any_bytes_in_any_cut(name: str, data: bytes, size: int) -> None:
    view, whole = Utf8View(charset(name)), Utf8View(charset(name))
    pieces = [view.feed(data[at : at + size]) for at in range(0, len(data), size)]
    seen = b"".join(pieces) + view.finish()
    assert seen == whole.feed(data) + whole.finish()
    assert seen.decode("utf-8") is not None
