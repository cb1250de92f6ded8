"""YAML as policies may use it: version 1.2 scalars, one document, nothing hostile."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PolicyError
from proxy.policy.document import MAX_BYTES, read_document
from proxy.policy.load import parse_policy
from proxy.policy.positions import Complaints
from proxy.policy.scalars import read_plain


def no_files(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory")


def problems(text: bytes | str) -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    complaints = Complaints("p.yaml")
    read_document(raw, complaints)
    return [str(problem) for problem in complaints.all]


def data(text: str) -> object:
    complaints = Complaints("p.yaml")
    document = read_document(text.encode(), complaints)
    assert not complaints.all
    assert document is not None
    return document.data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-0012", -12),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("0b101", "0b101"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("22:00-06:00", "22:00-06:00"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("1.2.3", "1.2.3"),
        ("2024-01-02", "2024-01-02"),
        ("+", "+"),
        ("9" * 100, "9" * 100),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read = read_plain(text)
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_a_float() -> None:
    read = read_plain(".nan")
    assert isinstance(read, float)
    assert math.isnan(read)


def test_quotes_and_the_string_tag_make_text() -> None:
    assert data("a: '1'\nb: \"true\"\nc: !!str 1\nd: |\n  2\n") == {
        "a": "1",
        "b": "true",
        "c": "1",
        "d": "2\n",
    }


def test_an_alias_repeats_what_its_anchor_holds() -> None:
    assert data("a: &x {n: [1, 2]}\nb: *x\n") == {"a": {"n": [1, 2]}, "b": {"n": [1, 2]}}


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert data("\ufeffversion: 1\n") == {"version": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "p.yaml:3:1: key 'a' again (it is there since line 1)"),
        ("x: {k: 1, k: 2}\n", "p.yaml:1:11: key 'k' again (it is there since line 1)"),
        ("a: !env HOME\n", "p.yaml:1:4: tag !env is not allowed"),
        ("a: !!python/name:os.system x\n", "p.yaml:1:4: tag !!python/name:os.system"),
        ("a: !!binary aGk=\n", "p.yaml:1:4: tag !!binary is not allowed"),
        ("a: !!set {x}\n", "p.yaml:1:4: tag !!set is not allowed"),
        ("a: &x {}\nb: {<<: *x}\n", "p.yaml:2:5: merge keys (<<) are not part of YAML 1.2"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1: a second document in the file"),
        ("a: &x [*x]\n", "an alias inside what its own anchor holds"),
        ("a: *nothing\n", "p.yaml:1:4: not YAML: found undefined alias"),
        ("a: [1, 2\nb: 3\n", "p.yaml:2:2: not YAML: while parsing a flow sequence"),
        ("\ta: 1\n", "p.yaml:1:1: not YAML"),
        ("a: b: c\n", "p.yaml:1:5: not YAML: mapping values are not allowed"),
        ("a: 'open\n", "not YAML: while scanning a quoted scalar that begins at line 1"),
        ("1: x\n", 'p.yaml:1:1: the number 1 as a key, expected text (quote it: "1")'),
        ("? [a]\n: 1\n", "p.yaml:1:3: a key that is not text"),
        ("a:\nb: 1\n", "p.yaml:1:1: a has no value"),
        ("", "p.yaml:1:1: the file is empty"),
        ("# only a comment\n", "p.yaml:1:1: the file is empty"),
        ("--- \n...\n", "p.yaml:1"),
        (b"a: 1\nb: \xe9\n", "p.yaml:2:4: byte 0xe9 is not UTF-8"),
        ("é: 1\nb: \x07\n", "p.yaml:2:4: character U+0007 is not allowed in YAML"),
        ("version: 1\n".encode("utf-16"), "p.yaml:1:1: byte 0xff is not UTF-8"),
    ],
)
def test_what_yaml_or_a_policy_does_not_allow(text: str | bytes, expected: str) -> None:
    found = problems(text)
    assert any(expected in problem for problem in found), found


def test_several_mistakes_of_one_document_are_all_named() -> None:
    found = problems("a: 1\na: 2\nb: !x 3\nc:\n")
    assert [line.split(":")[1] for line in found] == ["2", "3", "4"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[" * 200_000 + "]" * 200_000,
        "{a: " * 100_000 + "1" + "}" * 100_000,
        "- " * 100_000 + "x",
    ],
)
def test_deep_nesting_is_refused_before_it_costs_anything(text: str) -> None:
    assert any("nested more than 64 deep" in problem for problem in problems(text))


def test_a_bomb_of_aliases_is_refused_in_linear_time() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert any("aliases repeat more than" in p for p in problems("\n".join(lines)))


def test_too_large_a_file_is_not_even_parsed() -> None:
    assert any(f"at most {MAX_BYTES}" in p for p in problems(b"a" * (MAX_BYTES + 1)))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_policy_error(raw: bytes) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy("p.yaml", raw, no_files)
    assert caught.value.problems


# fmt: off
_KEYS = st.sampled_from([
    "version", "policy", "rules", "lists", "macros", "defaults", "anomalies", "sublayers", "id",
    "layer", "when", "then", "block", "all", "not", "host", "dst.port", "headers", "set",
])
# fmt: on
_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_KEYS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(_KEYS, _JUNK, max_size=6))
def test_any_structure_ends_in_policy_error_or_a_policy(junk: dict[str, object]) -> None:
    raw = json.dumps(junk).encode()  # JSON is YAML
    with contextlib.suppress(PolicyError):
        parse_policy("p.yaml", raw, no_files)
