"""What is accepted means what RE2 makes of it; what is refused says why."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from proxy.patterns import PatternError, StreamPattern, literal, regex
from proxy.patterns.text import sequences, variants
from tests.support.stream_patterns import TEXTS, patterns, reference


def spans(compiled: object, data: bytes) -> list[list[tuple[int, int]]]:
    found = compiled.finditer(data)  # type: ignore[attr-defined]
    return [[m.span(n) for n in range(compiled.groups + 1)] for m in found]  # type: ignore[attr-defined]


@given(patterns(), TEXTS)
def test_an_accepted_pattern_matches_and_captures_as_in_re2(
    pattern: StreamPattern, data: bytes
) -> None:
    original = reference(pattern.source)
    assert pattern.groups == original.groups
    assert spans(reference(pattern.regex), data) == spans(original, data)
    plain = reference(pattern.plain)
    assert [m.span() for m in plain.finditer(data)] == [m.span() for m in original.finditer(data)]


@given(patterns(), TEXTS)
def test_no_match_is_empty_or_longer_than_its_maximum(pattern: StreamPattern, data: bytes) -> None:
    for match in reference(pattern.regex).finditer(data):
        start, end = match.span()
        assert 0 < end - start <= pattern.max_bytes


@given(patterns(boundaries=False), st.text("abcA -", min_size=1, max_size=5).map(str.encode))
def test_the_live_regex_is_exactly_the_proper_prefixes(pattern: StreamPattern, data: bytes) -> None:
    live = reference(pattern.live).fullmatch(data) is not None
    assert not live or len(data) < pattern.max_bytes
    words = reference(pattern.plain)
    longer = [data + more.encode() for more in ("a", "b", "c", "A", " ", "-")]
    if any(words.fullmatch(word) for word in longer):
        assert live
    if live:  # it can be gone on with, to another prefix or to a match
        goes_on = reference(f"(?:{pattern.live})|(?:{pattern.plain})")
        assert any(goes_on.fullmatch(word) for word in longer)


@pytest.mark.parametrize(
    ("source", "yes", "no"),
    [
        ("é?x", ["éx", "x"], ["\u00c3x", "é"]),
        ("[äö]{2}", ["äö", "ää"], ["ä", "a"]),
        ("[à-ü]", ["à", "ü", "ß" if "à" <= "ß" <= "ü" else "é"], ["a", "ý"]),
        ("[a-é]", ["a", "~", "é"], ["Z", "ê"]),
        ("(?i)straße", ["STRAẞE", "Straße"], ["strasse"]),
        ("(?i)ärger", ["ÄRGER", "äRgEr"], ["arger"]),
        ("(?i)[α-γ]x", ["Βx", "ϐX"], ["δx"]),
        ("(?i)k", ["K", "k"], ["\u212a"]),
        ("[😀-😂]", ["😁"], ["😃"]),
        ("(?i:a)b", ["Ab", "ab"], ["aB"]),
        ("(?i)a(?-i:b)c", ["AbC"], ["ABC"]),
        (r"a\.b", ["a.b"], ["axb"]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[^]a]", ["b"], ["]", "a"]),
        (r"[\w-]", ["-", "_"], ["+"]),
        ("[[:alpha:]]", ["q"], ["1"]),
        ("(?P<name>a)", ["a"], ["b"]),
    ],
)
def test_characters_are_their_utf8(source: str, yes: list[str], no: list[str]) -> None:
    compiled = reference(regex(source).regex)
    assert [text for text in yes if not compiled.fullmatch(text.encode())] == []
    assert [text for text in no if compiled.fullmatch(text.encode())] == []


REFUSED = [
    ("a*", "no upper bound", "{0,64}"),
    ("a+", "no upper bound", "{0,64}"),
    ("a{2,}", "no upper bound", "{0,64}"),
    ("^a", "anchors", "\\b"),
    ("a$", "anchors", "\\b"),
    (r"\Aa", "anchors", "\\b"),
    (r"a\z", "anchors", "\\b"),
    ("a(?=b)", "not possible", "surroundings"),
    ("(?<!a)b", "not possible", "surroundings"),
    (r"(a)\1", "refers back", ""),
    ("a?", "empty text", ""),
    ("a|", "empty text", ""),
    (r"\b", "empty text", ""),
    ("a{0,1001}", "too often", "1000"),
    ("(?:a{100}){11}", "nested quantifiers", "upper bounds"),
    (".{1000}" * 5, "more than 4096", "upper bounds"),
    ("(?:" + "|".join(["abcd{250}"] * 90) + ")", "too big", "upper bounds"),
    ("[^ä]", "negated class", "octets"),
    (r"\pL", "not possible", "[ä-ü]"),
    (r"[\xe9-é]", "from an octet", ""),
    (r"(?i)\xe9", "upper and lower case", "(?-i:"),
    ("(a", "not closed", ""),
    ("a)", "no opening", ""),
    ("[a", "too early", ""),
    ("a\\", "too early", ""),
    ("[b-a]", "backwards", ""),
    ("a{,3}", "{n}", "\\{"),
    ("a{3}{2}", "another one", "(?:x?)?"),
    ("a???", "another one", "(?:x?)?"),
    ("a{0}", "repeats nothing", ""),
    ("a{3,2}", "ends before", ""),
    (r"\b?a", "cannot be repeated", ""),
    ("(?m)a", "not known", "ignore case"),
    ("(?)a", "not possible", ""),
    (r"\q", "not known", ""),
    (r"\x4", "two hex digits", ""),
    ("[[:nope:]]", "not known", ""),
    ("[\\x00-\\xff]|[^\\x00-\\xff]", "matches nothing", ""),
    ("(?P<n>a)(?P<n>b)", "two groups", ""),
    ("(" * 101 + "a" + ")" * 101, "nested deeper", ""),
    ("\ud800", "surrogate", ""),
]


@pytest.mark.parametrize(("source", "message", "hint"), REFUSED, ids=[r[0][:12] for r in REFUSED])
def test_what_a_stream_cannot_do_is_refused_in_plain_words(
    source: str, message: str, hint: str
) -> None:
    with pytest.raises(PatternError) as caught:
        regex(source)
    assert message in str(caught.value)
    assert hint in caught.value.hint


@given(st.text("ab?{}()[]|\\^$.*+,-0129:ixédw<P>", max_size=12))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        regex(text)
    except PatternError:
        return
    if text.isascii():
        reference(text)  # what is accepted is RE2 syntax


def test_a_literal_is_found_as_it_is() -> None:
    pattern = literal("a.*(é)")
    assert pattern.max_bytes == 7
    assert reference(pattern.regex).search("xxa.*(é)".encode()).span() == (2, 9)
    folded = literal("Groß", ignore_case=True)
    assert reference(folded.regex).fullmatch("GROẞ".encode())
    for empty in ("", "\ud800"):
        with pytest.raises(PatternError):
            literal(empty)


def test_four_kilobytes_are_the_longest_literal() -> None:
    pattern = literal("ab" * 2048)
    live = reference(f"(?:{pattern.live})\\z")
    assert live.search(b"ab" * 2048)[0] == b"ab" * 2047
    with pytest.raises(PatternError):
        literal("a" * 4097)


def test_characters_fold_as_in_re2_where_both_are_beyond_ascii() -> None:
    """All characters with case that the interpreter knows and RE2 knows, too."""
    cased = [chr(code) for code in range(0x80, 0x1E944) if not 0xD800 <= code <= 0xDFFF]
    cased = [char for char in cased if char.lower() != char or char.upper() != char]
    for char in cased:
        folded = re2.compile(f"(?i){re2.escape(char)}")
        for other in variants(char):
            assert folded.fullmatch(other), (char, other)
        for other in (char.lower(), char.upper(), char.casefold()):
            if len(other) == 1 and not other.isascii() and folded.fullmatch(other):
                assert other in variants(char), (char, other)


@given(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF))
def test_a_range_of_characters_is_exactly_its_sequences(a: int, b: int, code: int) -> None:
    first, last = min(a, b), max(a, b)
    if 0xD800 <= code <= 0xDFFF:
        code = first if not 0xD800 <= first <= 0xDFFF else 0x41
    octets = chr(code).encode()
    found = [
        spans
        for spans in sequences(first, last)
        if len(spans) == len(octets)
        and all(low <= octet <= high for (low, high), octet in zip(spans, octets, strict=True))
    ]
    assert len(found) == (first <= code <= last)
