"""Redirect targets: what is filled in, and that nothing of a request leaves its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.heads import Field, RequestHead
from proxy.policy.templates import expand_redirect, unknown_placeholders


def request(target: bytes = b"/a/b?x=1&y=2", host: bytes = b"www.a.test:8080") -> RequestHead:
    return RequestHead(b"1.1", (Field(b"Host", b"host", host),), method=b"GET", target=target)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("https://${host}${path}?${query}", b"https://www.a.test/a/b?x=1&y=2"),
        ("/moved${path}", b"/moved/a/b"),
        (
            "https://gate.test/?back=${url}",
            b"https://gate.test/?back=http%3A//www.a.test/a/b%3Fx%3D1%26y%3D2",
        ),
        (
            "https://gate.test/stop?h=${host}&p=${path}#top",
            b"https://gate.test/stop?h=www.a.test&p=/a/b#top",
        ),
        ("https://gate.test/ü ${nothing}", b"https://gate.test/%C3%BC%20$%7Bnothing%7D"),
    ],
)
def test_expansion(to: str, expected: bytes) -> None:
    assert expand_redirect(to, request()) == expected


def test_a_v6_host_gets_its_brackets_back() -> None:
    assert (
        expand_redirect("https://${host}/", request(host=b"[2001:db8::1]:80"))
        == b"https://[2001:db8::1]/"
    )


def test_a_path_with_two_slashes_does_not_become_a_host() -> None:
    assert expand_redirect("${path}", request(b"//evil.test/x")) == b"/evil.test/x"


def test_a_host_cannot_leave_the_authority() -> None:
    assert expand_redirect("https://${host}.gate.test/", request(host=b"evil.test/?#@x")) == (
        b"https://evil.test%2F%3F%23%40x.gate.test/"
    )


def test_unknown_placeholders() -> None:
    assert unknown_placeholders("https://${host}/${user}${path}") == ["user"]


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_hostile_octets_stay_inside_the_field(target: bytes, host: bytes) -> None:
    for to in ("https://${host}${path}?${query}", "/x?u=${url}", "${path}"):
        location = expand_redirect(to, request(b"/" + target, host))
        assert all(0x21 <= octet <= 0x7E for octet in location)
        assert not set(b'"<>\\^`{|}') & set(location)
        assert b"#" not in location
