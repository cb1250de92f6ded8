"""The preamble parser: what is consumed, what is refused how, and that cuts change nothing."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import BadPreamble
from proxy.model import Endpoint
from proxy.redirect.explicit_preamble import MAX_BYTES, Asked, ExplicitPreamble

HEAD = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nUser-Agent: t\r\n\r\n"


def feed(*pieces: bytes) -> Asked | bytes | None:
    """The outcome; a refusal's reply as bytes. Feeding stops at the first outcome."""
    preamble = ExplicitPreamble()
    rest = list(pieces)
    while rest:
        try:
            asked = preamble.feed(rest.pop(0))
        except BadPreamble as error:
            return error.reply
        if asked is not None:
            return Asked(asked.target, asked.connect, asked.leftover + b"".join(rest))
    return None


def refused(data: bytes) -> tuple[int, str]:
    """Status and text of the refusal; it must be a whole answer that h11 can read."""
    reply = feed(data)
    assert isinstance(reply, bytes)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.receive_data(reply)
    answer, body = client.next_event(), client.next_event()
    assert isinstance(answer, h11.Response)
    assert isinstance(body, h11.Data)
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert (b"connection", b"close") in list(answer.headers)
    return answer.status_code, bytes(body.data).decode()


def test_connect_consumes_its_head_and_nothing_more() -> None:
    assert feed(HEAD) == Asked(Endpoint("a.test", 443), True, b"")
    assert feed(HEAD + b"\x16\x03\x01\r\n\r\n") == Asked(
        Endpoint("a.test", 443), True, b"\x16\x03\x01\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("data", "target"),
    [
        (b"GET http://a.test/x HTTP/1.1\r\n", Endpoint("a.test", 80)),
        (b"GET HTTP://A.test:8080 HTTP/1.0\r\n", Endpoint("a.test", 8080)),
        (b"OPTIONS http://a.test:81?q HTTP/1.1\n", Endpoint("a.test", 81)),
        (b"M-SEARCH http://[2001:db8::1]:82/?a@b HTTP/1.1\r\n", Endpoint("2001:db8::1", 82)),
        (b"\r\n\nGET http://a.test/ HTTP/1.1\r\n", Endpoint("a.test", 80)),
    ],
)
def test_absolute_form_consumes_nothing(data: bytes, target: Endpoint) -> None:
    """The HTTP callout judges the request, so it gets every byte: also those that are wrong."""
    for rest in (b"", b"Host: a.test\r\n\r\nbody", b"bad header\x00\r\n\r\n"):
        assert feed(data + rest) == Asked(target, False, data + rest)


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"GET / HTTP/1.1\r\n", 400, "this is a proxy"),
        (b"GET //a.test/ HTTP/1.1\r\n", 400, "this is a proxy"),
        (b"OPTIONS * HTTP/1.1\r\n", 400, "this is a proxy"),
        (b"GET a.test:80 HTTP/1.1\r\n", 400, "this is a proxy"),
        (b"GET https://a.test/ HTTP/1.1\r\n", 501, "use CONNECT"),
        (b"GET ftp://a.test/ HTTP/1.1\r\n", 501, "only http"),
        (b"GET http:///x HTTP/1.1\r\n", 400, "host:port"),
        (b"GET http://u:p@a.test/ HTTP/1.1\r\n", 400, "user information"),
        (b"GET http://a.test\\@b.test/ HTTP/1.1\r\n", 400, "user information"),
        (b"GET http://a.test:99999/ HTTP/1.1\r\n", 400, "1-65535"),
        (b"GET http://a.test/\r\n", 400, "request line"),
        (b"GET  http://a.test/ HTTP/1.1\r\n", 400, "request line"),
        (b"GET http://a.test/ HTTP/1.1 \r\n", 400, "request line"),
        (b"GET http://a.test/ x HTTP/1.1\r\n", 400, "request line"),
        (b"GET\thttp://a.test/\tHTTP/1.1\r\n", 400, "request line"),
        (b"GET http://a.test/\x00 HTTP/1.1\r\n", 400, "request line"),
        (b"GET http://a.test/ http/1.1\r\n", 400, "request line"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
        (b" GET http://a.test/ HTTP/1.1\r\n", 400, "not an HTTP"),
        (b"\x00", 400, "not an HTTP"),
        (b"\xff\xfe", 400, "not an HTTP"),
        (b"CONNECT a.test HTTP/1.1\r\n", 400, "port"),
        (b"CONNECT http://a.test:443 HTTP/1.1\r\n", 400, "host:port"),
        (b"CONNECT a.test:443/ HTTP/1.1\r\n", 400, "host:port"),
        (b"connect a.test:443 HTTP/1.1\r\n", 400, "this is a proxy"),
        (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", 400, "malformed"),  # no Host
        (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\nX y\r\n\r\n", 400, "malformed"),
        (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", 400, "content"),
        (
            b"CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "content",
        ),
        (b"GET http://a.test/" + b"a" * MAX_BYTES, 414, "too long"),
        (b"\r\n" * MAX_BYTES, 414, "empty lines"),
        (HEAD[:-2] + b"X: " + b"a" * MAX_BYTES, 431, "too large"),
        (HEAD[:-2] + b"X: " + b"a" * MAX_BYTES + b"\r\n\r\n", 431, "too large"),
    ],
)
def test_refused_with_an_answer_that_says_why(data: bytes, status: int, why: str) -> None:
    got, text = refused(data)
    assert (got, why in text) == (status, True), text


def test_nothing_that_the_client_said_is_repeated_to_it() -> None:
    for data in (b"GET /evil<script> HTTP/1.1\r\n", b"CONNECT evil<:1 HTTP/1.1\r\n"):
        assert "evil" not in refused(data)[1]


@pytest.mark.parametrize(
    ("first", "word"), [(b"\x16\x03\x01", "TLS"), (b"\x05\x01\x00", "SOCKS5"), (b"\x04", "SOCKS4")]
)
def test_other_protocols_get_no_http_answer(first: bytes, word: str) -> None:
    with pytest.raises(BadPreamble, match=word) as caught:
        ExplicitPreamble().feed(first)
    assert caught.value.reply == b""


@pytest.mark.parametrize("length", [0, 1, 10, len(HEAD) - 1])
def test_not_yet(length: int) -> None:
    assert feed(HEAD[:length]) is None


_PIECES = st.sampled_from(
    [
        b"GET ", b"CONNECT ", b"http://", b"https://", b"a.test", b":80", b":443", b"/", b" ",
        b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host: x", b"X: y", b"\x00", b"\x16",
        b"@", b"[::1]", b"\r\n\r\n", b"Content-Length: 0",
    ]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=14).map(b"".join), st.data())
@example(HEAD + b"tail", None)
@example(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", None)
def test_cuts_change_nothing(data: bytes, draw: st.DataObject | None) -> None:
    whole = feed(data)
    assert feed(*(data[i : i + 1] for i in range(len(data)))) == whole
    if draw is not None:
        cut = draw.draw(st.integers(0, len(data)))
        assert feed(data[:cut], data[cut:]) == whole


@pytest.mark.parametrize("data", [HEAD[:-2] + b"X: " + b"a" * 70000, b"G" * 70000, b"\n" * 70000])
@pytest.mark.timeout(30)  # what is not linear does not end
def test_byte_by_byte_ends_at_the_same_place(data: bytes) -> None:
    pieces = feed(*(data[i : i + 1] for i in range(len(data))))
    assert pieces == feed(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_outcome_or_a_refusal(data: bytes) -> None:
    feed(data)
    feed(HEAD[:30] + data)
