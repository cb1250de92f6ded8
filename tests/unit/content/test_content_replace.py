"""Replacing in a stream is replacing in the whole, however it is cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.content.replace import ReplacePlan, StreamReplacer
from proxy.patterns import PatternError, StreamPattern, literal, regex
from tests.support.stream_patterns import CUTS, TEXTS, patterns, pieces, reference, split_sets

Items = Sequence[tuple[StreamPattern, str]]


def streamed(plan: ReplacePlan, data: bytes, cuts: Sequence[int]) -> tuple[bytes, int]:
    editor = StreamReplacer(plan)
    out = [editor.feed(piece) for piece in pieces(data, cuts)]
    return b"".join([*out, editor.finish()]), editor.count


def by_re2(items: Items, data: bytes) -> tuple[bytes, int]:
    """One alternation of all patterns, each in a group, over the whole."""
    compiled = reference("|".join(f"({pattern.regex})" for pattern, _ in items))
    starts, at = [], 1
    for pattern, _ in items:
        starts.append(at)
        at += pattern.groups + 1

    def insert(match: object) -> bytes:
        for number, (pattern, by) in enumerate(items):
            if match.span(starts[number]) != (-1, -1):  # type: ignore[attr-defined]
                out = by.encode()
                for group in range(pattern.groups + 1):
                    text = match[starts[number] + group] or b""  # type: ignore[index]
                    out = out.replace(b"\\%d" % group, text)
                return out
        raise AssertionError

    replaced, count = compiled.subn(insert, data)
    return replaced, count


def rewrites(pattern: StreamPattern) -> list[str]:
    return ["", "X", r"<\0>", *([r"[\1]"] if pattern.groups else [])]


@given(st.data(), st.lists(patterns(), min_size=1, max_size=4), TEXTS, CUTS)
def test_it_equals_re2_over_the_whole_for_every_cut(
    draw: st.DataObject, found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    items = [(pattern, draw.draw(st.sampled_from(rewrites(pattern)))) for pattern in found]
    assert streamed(ReplacePlan(items), data, cuts) == by_re2(items, data)


@given(st.lists(patterns(), min_size=1, max_size=4), TEXTS, CUTS)
def test_however_a_large_set_is_split_the_result_is_the_same(
    found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    items = [(pattern, f"<{n}>") for n, pattern in enumerate(found)]
    with split_sets():
        plan = ReplacePlan(items)
        assert streamed(plan, data, cuts) == by_re2(items, data)


WORDS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=6)


@given(WORDS, st.booleans(), st.text("aAbB", max_size=40), CUTS)
def test_literals_of_one_another_are_told_apart(
    words: list[str], fold: bool, text: str, cuts: list[int]
) -> None:
    items = [(literal(word, ignore_case=fold), f"<{n}>") for n, word in enumerate(words)]
    assert streamed(ReplacePlan(items), text.encode(), cuts) == by_re2(items, text.encode())


@given(st.lists(patterns(), min_size=1, max_size=3), TEXTS, st.integers(1, 5))
def test_no_more_is_held_than_may_become_a_match(
    found: list[StreamPattern], data: bytes, width: int
) -> None:
    """Never a whole match; with a word boundary one byte more, for the octet behind decides."""
    longest = max(pattern.max_bytes for pattern in found)
    editor = StreamReplacer(ReplacePlan([(pattern, "") for pattern in found]))
    for at in range(0, len(data), width):
        editor.feed(data[at : at + width])
        assert editor.held <= longest - 1 + any(pattern.boundary for pattern in found)


def test_only_a_live_prefix_is_held() -> None:
    editor = StreamReplacer(ReplacePlan([(literal("secret"), "xxx")]))
    assert editor.feed(b"data: {}\n\n") == b"data: {}\n\n"
    assert editor.feed(b"a sec") == b"a "
    assert editor.feed(b"ond sec") == b"second "
    assert editor.feed(b"ret.") == b"xxx."
    assert (editor.finish(), editor.inserted, editor.outcome) == (b"", True, "replaced")


def test_what_was_inserted_is_not_searched() -> None:
    plan = ReplacePlan([(literal("a"), "aa"), (literal("ab"), "never")])
    assert streamed(plan, b"abab", [1, 2, 3]) == (b"aabaab", 2)


def test_a_greedy_match_waits_for_its_end() -> None:
    plan = ReplacePlan([(regex("ab{0,3}"), "X")])
    editor = StreamReplacer(plan)
    assert [editor.feed(bytes([octet])) for octet in b"abbbb"] == [b"", b"", b"", b"X", b"b"]
    assert streamed(plan, b"abb", [1, 2]) == (b"X", 1)


def test_a_word_boundary_looks_across_cuts_and_at_the_ends() -> None:
    plan = ReplacePlan([(regex(r"\bcat\b"), "dog")])
    for cuts in ([], range(64)):
        text = b"cat concat catalog cat"
        assert streamed(plan, text, cuts) == (b"dog concat catalog dog", 2)


def test_nothing_found_costs_nothing_and_changes_nothing() -> None:
    editor = StreamReplacer(ReplacePlan([(literal("needle"), "x")]))
    chunk = b"hay" * 1000
    assert editor.feed(chunk) is chunk
    assert (editor.inserted, editor.outcome, editor.finish()) == (False, "no_match", b"")


def test_a_thousand_literals_are_one_search() -> None:
    words = [f"word{number:04d}!" for number in range(1000)]
    plan = ReplacePlan([(literal(word), f"<{n}>") for n, word in enumerate(words)])
    text = "".join(f"{word} {word[:5]} " for word in words[::37]).encode()
    expected = "".join(f"<{n}> {words[n][:5]} " for n in range(0, 1000, 37)).encode()
    for cuts in ([], range(0, len(text), 7)):
        assert streamed(plan, text, cuts)[0] == expected


def test_a_thousand_patterns_without_case_are_told_apart() -> None:
    words = [f"Word{number:04d}" for number in range(1000)]
    items = [(literal(word, ignore_case=True), f"<{n}>") for n, word in enumerate(words)]
    items.append((regex(r"\bend\b"), "END"))
    text = b"wORD0999 the end. WORD0001 tend"
    assert streamed(ReplacePlan(items), text, [3, 12])[0] == b"<999> the END. <1> tend"


@pytest.mark.parametrize(
    ("by", "message"),
    [(r"\2", "there are 1"), ("\\", "neither"), (r"\x", "neither"), (r"\9", "group")],
)
def test_a_wrong_rewrite_is_refused(by: str, message: str) -> None:
    with pytest.raises(PatternError, match=message):
        ReplacePlan([(regex("(a)"), by)])


def test_a_rewrite_is_of_a_regex_only() -> None:
    plan = ReplacePlan([(literal("a"), r"\1\\"), (regex("(b)(c)?"), r"\2\1\\é")])
    assert streamed(plan, b"ab", [])[0] == rb"\1\\" + "b\\é".encode()
