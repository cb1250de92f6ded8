"""List files: one entry a line, hosts files, comments; what is wrong is named by its line."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.ast import ListType
from proxy.policy.listfiles import MAX_NAMED, read_list_file
from proxy.policy.values import Unfit, read_network


def read(text: str | bytes, kind: str) -> tuple[list[str], list[str]]:
    raw = text if isinstance(text, bytes) else text.encode()
    entries, problems = read_list_file("l.txt", raw, ListType(kind))
    return list(entries), [str(problem) for problem in problems]


def test_domains_one_to_a_line_and_hosts_lines() -> None:
    text = (
        "\ufeff# ads\n\nAds.Example\r\n*.wild.example.\n  padded.example  # why\n"
        "0.0.0.0 a.test b.test\n127.0.0.1\tlocalhost c.test # x\n::1 ip6-localhost\n"
        "0.0.0.0 0.0.0.0\nads.example\n_dmarc.x.example\nlocal\n"
    )
    assert read(text, "domain") == (
        [
            "ads.example",
            "*.wild.example",
            "padded.example",
            "a.test",
            "b.test",
            "c.test",
            "_dmarc.x.example",
            "local",
        ],
        [],
    )


def test_each_bad_line_is_named() -> None:
    text = "ok.example\nhttp://x.test/y\n||adblock.example^\nnot a host\n-bad.example\nlast.example"
    entries, problems = read(text, "domain")
    assert entries == ["ok.example", "last.example"]
    assert [problem.split(": ")[0] for problem in problems] == [
        f"l.txt:{n}:1" for n in (2, 3, 4, 5)
    ]
    assert "a host alone: x.test" in problems[0]


def test_a_file_that_is_something_else_is_not_listed_line_by_line() -> None:
    _, problems = read("<p>not found</p>\n" * 5000, "domain")
    assert len(problems) == MAX_NAMED + 1
    assert f"{5000 - MAX_NAMED} more lines are wrong" in problems[-1]


def test_addresses_and_blocks() -> None:
    entries, problems = read(
        "10.0.0.1\n10.0.0.0/8 # inner\n2001:DB8::/32\n10.0.0.1/8\n1.2.3\n", "cidr"
    )
    assert entries == ["10.0.0.1", "10.0.0.0/8", "2001:db8::/32"]
    assert problems == [
        "l.txt:4:1: '10.0.0.1/8' has bits set beyond its prefix (the block is 10.0.0.0/8)",
        "l.txt:5:1: '1.2.3' is not an address or CIDR block"
        " (as 10.20.0.0/16, 192.0.2.7 or 2001:db8::/32)",
    ]


def test_texts_keep_their_case_and_their_hashes() -> None:
    assert read("# comment\nMozilla/5.0 #1\n x \n", "string") == (["Mozilla/5.0 #1", "x"], [])


def test_digests_are_lower_case() -> None:
    entries, problems = read("AB" * 32 + "\n" + "cd" * 16 + "  # md5\nxyz\n", "hash")
    assert entries == ["ab" * 32, "cd" * 16]
    assert problems[0].startswith("l.txt:3:1: 'xyz' is not a digest")


def test_bytes_that_are_not_text_are_placed() -> None:
    assert read(b"a.test\nb\xff.test\n", "domain")[1] == ["l.txt:2:1: byte 0xff is not UTF-8"]


def test_an_empty_file_is_an_empty_list() -> None:
    assert read("# nothing yet\n", "domain") == ([], [])


@given(st.binary(max_size=200), st.sampled_from(list(ListType)))
def test_any_bytes_are_read_or_complained_of(raw: bytes, kind: ListType) -> None:
    entries, problems = read_list_file("l.txt", raw, kind)
    assert all(isinstance(entry, str) and entry for entry in entries)
    assert all(problem.file == "l.txt" for problem in problems)


_V4_TEXT = st.from_regex(
    r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(/[0-9]{1,2})?", fullmatch=True
)


@given(_V4_TEXT | st.ip_addresses().map(str))
def test_the_quick_way_reads_addresses_as_ipaddress_does(text: str) -> None:
    try:
        expected = ipaddress.ip_network(text, strict=True)
    except ValueError:
        with pytest.raises(Unfit):
            read_network(text)
    else:
        assert ipaddress.ip_network(read_network(text)) == expected


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("domain", "host{0}.tracker{1}.example"),
        ("domain", "0.0.0.0 host{0}.tracker{1}.example"),
        ("cidr", "10.{1}.{2}.0/24"),
        ("hash", "{0:064x}"),
        ("string", "some text {0}"),
    ],
)
def test_a_hundred_thousand_entries_are_read(kind: str, line: str) -> None:
    text = "\n".join(line.format(i, i % 251, i // 251 % 256) for i in range(100_000)).encode()
    entries, problems = read_list_file("l.txt", text, ListType(kind))
    assert not problems
    assert len(entries) > 60_000
