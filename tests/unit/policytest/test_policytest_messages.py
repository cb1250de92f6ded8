"""Messages that are written are read back the same: codings, framings, several in one stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.cases_given import CODINGS, RequestModel, ResponseModel
from proxy.policytest.coding import NotDecodable, decode, encode
from proxy.policytest.messages import read_requests, read_response, request_bytes, response_bytes


@given(data=st.binary(max_size=300), codings=st.lists(st.sampled_from(CODINGS), max_size=3))
def test_codings_are_undone(data: bytes, codings: list[str]) -> None:
    assert decode(encode(data, codings), codings) == data


def test_raw_deflate_is_understood() -> None:
    import zlib

    packer = zlib.compressobj(wbits=-15)
    assert decode(packer.compress(b"abc") + packer.flush(), ["deflate"]) == b"abc"


@given(data=st.binary(min_size=1, max_size=60), coding=st.sampled_from([*CODINGS, "lzma"]))
def test_what_is_not_coded_is_said(data: bytes, coding: str) -> None:
    try:
        decode(data, [coding])
    except NotDecodable:
        return
    assert coding in ("deflate", "br")  # where nearly anything means something


@given(
    body=st.binary(max_size=20_000),
    framing=st.sampled_from(["length", "chunked", "close"]),
    coding=st.lists(st.sampled_from(CODINGS), max_size=1),
)
def test_a_response_is_read_as_it_was_meant(body: bytes, framing: str, coding: list[str]) -> None:
    model = ResponseModel(framing=framing, encoding=coding, status=203)
    seen = read_response(response_bytes(model, body, "GET"), "GET", ended=True)
    assert seen is not None
    assert (seen.start, seen.body, seen.problem) == (("203",), body, "")


@given(bodies=st.lists(st.binary(max_size=50), max_size=4))
def test_several_requests_of_one_connection_are_told_apart(bodies: list[bytes]) -> None:
    stream = b"".join(
        request_bytes(RequestModel(method="POST", framing=("length", "chunked")[n % 2]), body)
        for n, body in enumerate(bodies)
    )
    assert [seen.body for seen in read_requests(stream)] == bodies


@pytest.mark.parametrize("data", [b"", b"GET / HTTP", b"\x16\x03\x01\x00", b"EHLO a\r\n"])
def test_what_is_no_message_is_none(data: bytes) -> None:
    assert read_requests(data) == []
    assert read_response(data, "GET", ended=True) is None


def test_a_message_that_is_cut_says_so() -> None:
    whole = request_bytes(RequestModel(method="POST"), b"0123456789")
    (seen,) = read_requests(whole[:-1])
    assert seen.problem
    response = response_bytes(ResponseModel(), b"0123456789", "GET")
    cut = read_response(response[:-1], "GET", ended=True)
    assert cut is not None
    assert cut.problem


def test_interim_responses_are_passed_over() -> None:
    final = response_bytes(ResponseModel(), b"x", "GET")
    seen = read_response(b"HTTP/1.1 103 Early Hints\r\n\r\n" + final, "GET", ended=True)
    assert seen is not None
    assert seen.start == ("200",)
