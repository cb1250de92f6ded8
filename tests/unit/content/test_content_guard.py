"""Scanning a stream, and holding back what may be part of a match."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from proxy.content.guard import CodedGuard, Guard
from proxy.content.scan import StreamScanner
from proxy.patterns import PatternSet, StreamPattern, literal, regex
from tests.support.stream_patterns import CUTS, TEXTS, patterns, pieces, reference, split_sets

SETS = st.lists(patterns(), min_size=1, max_size=4)
Seen = tuple[bytes, list[tuple[frozenset[int], int, bytes]]]


def occurring(found: Sequence[StreamPattern], data: bytes) -> frozenset[int]:
    return frozenset(n for n, p in enumerate(found) if reference(p.regex).search(data))


@given(SETS, TEXTS, CUTS)
def test_a_scanner_finds_what_is_in_the_whole_for_every_cut(
    found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    scanner = StreamScanner(PatternSet(found))
    fresh = [scanner.feed(piece) for piece in pieces(data, cuts)]
    fresh.append(scanner.finish())
    assert scanner.found == occurring(found, data)
    assert sum(map(len, fresh)) == len(scanner.found)  # each once
    assert frozenset().union(*fresh) == scanner.found


@given(SETS, TEXTS, CUTS)
def test_a_large_set_that_is_split_finds_the_same(
    found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    with split_sets():
        guard = Guard(PatternSet(found))
        assert guarded(guard, data, cuts)[0] == data
    assert guard.found == occurring(found, data)


@given(st.lists(patterns(boundaries=False), min_size=1, max_size=4), TEXTS, CUTS)
def test_a_pattern_is_found_with_the_byte_that_completes_it(
    found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    scanner = StreamScanner(PatternSet(found))
    seen = b""
    for piece in pieces(data, cuts):
        scanner.feed(piece)
        seen += piece
        assert scanner.found == occurring(found, seen)
        unfound = [p for n, p in enumerate(found) if n not in scanner.found]
        ends = (reference(f"(?:{p.live})\\z").search(seen).start() for p in unfound)
        assert scanner.live == len(seen) - min(ends, default=len(seen))


def guarded(guard: Guard, data: bytes, cuts: Sequence[int]) -> Seen:
    """All that leaves, and what was known and had left at every find."""
    out, finds = b"", []
    steps = [(guard.feed, piece) for piece in pieces(data, cuts)]
    for step in [*steps, None]:
        out += step[0](step[1]) if step else guard.finish()
        while guard.fresh:
            finds.append((guard.found, guard.size, out))
            out += guard.release()
    return out, finds


@given(SETS, TEXTS, CUTS)
def test_a_guard_passes_everything_and_stops_at_the_same_places(
    found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    whole = guarded(Guard(PatternSet(found)), data, [])
    guard = Guard(PatternSet(found), digest=True)
    assert guarded(guard, data, cuts) == whole
    assert whole[0] == data
    assert (guard.found, guard.size) == (occurring(found, data), len(data))
    assert guard.sha256 == hashlib.sha256(data).hexdigest()


@given(st.lists(patterns(boundaries=False), min_size=1, max_size=4), TEXTS, CUTS)
def test_no_byte_of_a_match_has_left_when_it_is_found(
    found: list[StreamPattern], data: bytes, cuts: list[int]
) -> None:
    _, finds = guarded(Guard(PatternSet(found)), data, cuts)
    known: frozenset[int] = frozenset()
    for numbers, size, out in finds:
        for number in numbers - known:
            match = reference(found[number].regex).search(data[:size])
            assert match.start() >= len(out)
        known = numbers


def test_a_find_stops_before_what_follows() -> None:
    guard = Guard(PatternSet([literal("secret"), literal("later")]), digest=True)
    assert guard.feed(b"a secret, and later more") == b"a "
    assert (guard.fresh, guard.found, guard.size) == (True, {0}, 8)
    assert guard.feed(b"!") == b""
    assert guard.release() == b"secret, and "
    assert (guard.fresh, guard.found) == (True, {0, 1})
    assert guard.release() == b"later more!"
    assert (guard.fresh, guard.size) == (False, 25)
    assert guard.finish() == b""


def test_the_end_may_complete_a_match() -> None:
    guard = Guard(PatternSet([regex(r"\bend\b")]))
    assert guard.feed(b"the end") == b"the "
    assert guard.finish() == b""
    assert guard.fresh
    assert guard.release() == b"end"


def test_a_found_pattern_holds_nothing_back() -> None:
    guard = Guard(PatternSet([literal("aab"), literal("xyz")]))
    guard.feed(b"aab")
    assert guard.release() == b"aab"
    assert guard.feed(b"aa") == b"aa"
    assert guard.feed(b"xy") == b""


def test_many_patterns_are_found_among_a_thousand() -> None:
    words = [literal(f"word{number:04d}") for number in range(1000)]
    data = b" ".join(b"word%04d" % number for number in range(0, 1000, 3))
    scanner = StreamScanner(PatternSet(words))
    for piece in pieces(data, range(0, len(data), 100)):
        scanner.feed(piece)
    assert scanner.found == frozenset(range(0, 1000, 3))


def test_nothing_to_look_for_lets_everything_pass() -> None:
    guard = Guard(PatternSet([]), digest=True)
    assert guard.feed(b"x" * 100) == b"x" * 100
    assert (guard.fresh, guard.size, guard.finish()) == (False, 100, b"")
    assert guard.sha256 == hashlib.sha256(b"x" * 100).hexdigest()


DATA = b"begin " + bytes(range(256)) * 20 + b" secret " + b"more of it " * 200


@given(st.lists(st.integers(0, 6000), max_size=10))
def test_a_coded_guard_keeps_the_coded_pieces_of_a_match(cuts: list[int]) -> None:
    coded = zlib.compress(DATA, 1)
    inflate = zlib.decompressobj()
    guard = CodedGuard(PatternSet([literal("secret")]), digest=True)
    out, seen = b"", b""
    for piece in pieces(coded, cuts):
        out += guard.feed(piece, [inflate.decompress(piece)])
        if guard.fresh:
            seen = zlib.decompressobj().decompress(out)
            assert b"secret" not in seen
            assert DATA.startswith(seen)
            out += guard.release()
    out += guard.finish([inflate.flush()])
    assert (out, guard.found, guard.size) == (coded, {0}, len(DATA))
    assert guard.sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_coded_guard_is_bounded() -> None:
    guard = CodedGuard(PatternSet([literal("secret")]), limit=100)
    assert guard.feed(b"raw", [b"", b"hello sec"]) == b""
    assert guard.feed(b"x" * 50, []) == b""
    assert not guard.overflow
    assert guard.feed(b"x" * 50, []) == b""
    assert guard.overflow
    assert guard.feed(b"y", [b"!"]) == b"raw" + b"x" * 100 + b"y"
    assert not guard.overflow
