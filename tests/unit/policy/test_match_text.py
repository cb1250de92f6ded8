"""Globs, target readings, domain and address sets: against plain oracles, and at size."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.globs import compile_globs
from proxy.policy.lists import Ancestors, CidrSet, DomainSet, parse_address
from proxy.policy.paths import path_readings, query_readings, url_readings
from proxy.policy.regex import compile_regex

# --- globs ---------------------------------------------------------------------------------

small = st.text(alphabet="ab./[é\x00", max_size=8).map(lambda t: t.encode().decode("latin-1"))
globs = st.lists(
    st.sampled_from(["a", "b", "ab", ".", "*", "?", "[", "Ã"]), min_size=1, max_size=6
).map("".join)


@given(st.lists(globs, min_size=1, max_size=4), small)
def test_globs_mean_what_the_oracle_says(patterns: list[str], text: str) -> None:
    def oracle(pattern: str) -> bool:
        parts = {"*": ".*", "?": "."}
        source = "".join(parts.get(c, re.escape(c)) for c in pattern)
        return re.fullmatch(source, text, re.DOTALL) is not None

    assert compile_globs(patterns)(text) is any(map(oracle, patterns))


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*ba", "aba", False),
        ("*a*a*", "a", False),
        ("*a*a*", "aa", True),
        ("*ab*ba*", "aba", False),
        ("*ab*ba*", "xabxbax", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("a*bc*c", "abc", False),
        ("**", "", True),
        ("a**", "a", True),
        ("?", "", False),
        ("?*", "x", True),
    ],
)
def test_pieces_of_a_glob_do_not_overlap(pattern: str, text: str, expected: bool) -> None:
    assert compile_globs([pattern])(text) is expected


@pytest.mark.timeout(30)  # what is not linear does not end
@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*a*b", "*?a?*a?*a?*a?*b", "a*a*a*a*a*a*a*c"])
def test_many_stars_stay_linear(pattern: str) -> None:
    matches = compile_globs([pattern])
    assert not matches("a" * 60_000)


@pytest.mark.timeout(30)  # what is not linear does not end
def test_a_regex_that_backtracks_elsewhere_is_bounded_here() -> None:
    occurs = compile_regex("(a+)+$")
    assert not occurs("a" * 100_000 + "!")


# --- readings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "also"),
    [
        ("/admin/x", set()),
        ("/%61dmin/x", {"/admin/x"}),
        ("//admin///x", {"/admin/x"}),
        ("/public/../admin/x", {"/admin/x"}),
        ("/./admin/x", {"/admin/x"}),
        ("/public/%2e%2e/admin/x", {"/admin/x"}),
        ("/admin%2fx", {"/admin%2Fx", "/admin/x"}),
        ("/a%5c..%5cadmin/x", {"/a%5C..%5Cadmin/x", "/admin/x"}),
        ("/a\\..\\admin/x", {"/admin/x"}),
        ("/public/..;jsession=1/admin/x", {"/admin/x"}),
        ("/%2561dmin", {"/%61dmin"}),
        ("/../../x", {"/x"}),
        ("/a/..", {"/"}),
        ("/a/b/.", {"/a/b/"}),
        ("/a/b/", set()),
        ("/%zz%4", {"/%zz%4"}),
        ("/", set()),
    ],
)
def test_path_readings(path: str, also: set[str]) -> None:
    readings = path_readings(path)
    assert readings[0] == path
    assert set(readings) == {path} | also


@given(st.text(alphabet="/.%2eEfF;\\a", max_size=40).map(lambda t: "/" + t))
def test_normalised_paths_have_no_dot_segments_and_are_stable(path: str) -> None:
    readings = path_readings(path)
    for reading in readings[1:]:
        if "%" not in reading:
            assert not {".", ".."} & set(reading.split("/"))
        if "%" not in reading and "\\" not in reading:
            assert path_readings(reading)[-1] == reading


def test_query_and_url_readings() -> None:
    assert query_readings("a=1") == ("a=1",)
    assert "q=drop table" in query_readings("q=drop+%74able")
    urls = url_readings("h.test", "/x/../%61", "b=%63")
    assert urls[0] == "http://h.test/x/../%61?b=%63"
    assert "http://h.test/a?b=c" in urls


@pytest.mark.timeout(30)  # what is not linear does not end
def test_a_long_path_is_read_in_linear_time() -> None:
    path_readings("/" + "../%2e/" * 9000)


# --- domains -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "listed", "exact"),
    [
        ("a.test", True, True),
        ("x.a.test", True, False),
        ("y.x.a.test", True, False),
        ("xa.test", False, False),
        ("test", False, False),
        ("b.test", False, False),
        ("x.b.test", True, True),
        ("", False, False),
        (".", False, False),
    ],
)
def test_domain_sets(name: str, listed: bool, exact: bool) -> None:
    entries = ("A.test.", "*.b.test")
    assert (name in DomainSet(entries)) is listed
    assert (name in DomainSet(entries, exact=True)) is exact


label = st.sampled_from(["a", "b", "test", "x-1"])
names = st.lists(label, min_size=1, max_size=5).map(".".join)


@given(st.lists(names, max_size=6), names)
def test_domain_sets_against_endswith(entries: list[str], name: str) -> None:
    expected = any(name == entry or name.endswith("." + entry) for entry in entries)
    assert (name in DomainSet(entries)) is expected


def test_only_names_that_can_be_keys_are_made() -> None:
    assert Ancestors(100).of("a.b.c.test") == ["b.c.test", "c.test", "test"]
    assert Ancestors(6).of("a.b.c.test") == ["c.test", "test"]
    assert Ancestors(0).of("a.b") == []


@pytest.mark.timeout(30)  # what is not linear does not end
def test_a_hundred_thousand_domains() -> None:
    entries = [f"ad{i}.tracker{i % 977}.example" for i in range(100_000)]
    listed = DomainSet(entries)
    assert "cdn.ad99999.tracker345.example" in listed
    assert "ad99999.tracker344.example" not in listed
    hostile = ".".join("a" * 30_000)
    for _ in range(1000):
        assert hostile not in listed
        assert "www.nowhere.example.org" not in listed


# --- addresses -----------------------------------------------------------------------------

v4 = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(v4, st.integers(0, 32)), max_size=8), v4)
def test_cidr_sets_against_ipaddress(blocks: list[tuple[int, int]], number: int) -> None:
    networks = [ipaddress.ip_network((first, bits), strict=False) for first, bits in blocks]
    address = ipaddress.IPv4Address(number)
    asked = [address, *(n.network_address for n in networks), *(n[-1] for n in networks)]
    listed = CidrSet(map(str, networks))
    for one in asked:
        assert (one in listed) is any(one in network for network in networks)
    assert ipaddress.ip_address("2001:db8::1") not in listed


def test_mapped_blocks_are_ipv4_and_a_wide_v6_block_is_not() -> None:
    ten = parse_address("10.1.2.3")
    assert ten is not None
    assert ten in CidrSet(["::ffff:10.0.0.0/104"])
    assert ten not in CidrSet(["::/0"])


@pytest.mark.timeout(30)  # what is not linear does not end
def test_a_hundred_thousand_blocks() -> None:
    entries = [f"{11 + i // 65536}.{i // 256 % 256}.{i % 256}.0/25" for i in range(100_000)]
    listed = CidrSet(entries)
    inside, outside = parse_address("11.77.3.127"), parse_address("11.77.3.128")
    assert inside is not None
    assert outside is not None
    for _ in range(2000):
        assert inside in listed
        assert outside not in listed


def test_an_entry_that_is_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="not-an-address"):
        CidrSet(["not-an-address"])
