"""What the detector makes of first bytes, and that it is a function of the bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.callouts.detect import EXHAUSTED, UNDECIDED, Detection, Detector
from proxy.model import Protocol

LIMIT = 4096


def detect(data: bytes, *, final: bool = False, limit: int = LIMIT) -> Detection:
    return Detector(limit).feed(data, final)


def detect_bytewise(data: bytes, *, final: bool = False, limit: int = LIMIT) -> Detection:
    """As a flow would: one byte at a time, and nothing after the first decision."""
    detector = Detector(limit)
    for end in range(1, len(data) + 1):
        detection = detector.feed(data[:end], False)
        if detection != UNDECIDED:
            return detection
    return detector.feed(data, final)


HTTP1 = [
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.0\n",
    b"GET /\r\n",  # HTTP/0.9: the strict layer refuses it
    b"GET\t/ HTTP/1.1\r\n",
    b"GET  /\x00 HTTP/1.1\r\n",
    b"GET\x00/ HTTP/1.1\r\n",
    b"GET key\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"\n \t\x0b\x0cGET / HTTP/1.1\r\n",
    b"\xef\xbb\xbfGET / HTTP/1.1\r\n",
    b"get / http/1.1\r\n",
    b"FROB /a hTTp/3.9\r\n",
    b"\x00GET / HTTP/1.1\r\n",
    b"G\xc3\x84T\xc3\x9f /a HTTP/1.1\r\n",
    b"FROB /\xc3\xa9\xc3\xa9\xc3\xa9 HTTP/1.1\r\n",
    b"{x} / HTTP/1.1\r\n",
    b"POST http://a.test/ HTTP/1.1\r\n",
    b"POST\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"OPTIONS *\r\n",
    b"CONNECT a.test:443 HTTP/1.1\r\n",
    b"CONNECT a.test:443\r\n",
    b"CONNECT {} HTTP/1.1\r\n",
    b"PROPFIND /dav/ HTTP/1.1\r\n",
    b"GET / RTSP/1.0\r\n",  # a parser in use takes this for a request
    b"SOURCE /radio ICE/1.0\r\n",
    b"GET sip:a SIP/2.0 HTTP/1.1\r\n",
    b"EHLO / HTTP/1.1\r\n",
    b"SSH-2.0-x / HTTP/1.1\r\n",
    b"PRI * HTTP/2.0\r\n\r\nXX",
    b"PRI * HTTP/2.0\r\nHost: a.test\r\n",
    b"HTTP/1.1 200 OK\r\n",
]
NOT_HTTP = {
    Protocol.TLS: [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16\x03\x03",
        b"\x16\x03\x00",
        # RFC 5246 E.2: a ClientHello in the form of SSLv2
        bytes.fromhex("802e0103010015000000100000390000380000350000") + b"x" * 30,
    ],
    Protocol.HTTP2: [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12",
    ],
    Protocol.SSH: [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", b"SSH-1.99-x\n"],
    Protocol.SMTP: [b"EHLO mail.test\r\n", b"helo a\r\n", b"LHLO a\n"],
    Protocol.OPAQUE: [
        bytes.fromhex("0000000804d2162f"),  # PostgreSQL SSLRequest, which waits for an answer
        bytes.fromhex("0000000804d21630"),  # PostgreSQL GSSENCRequest
        b"\x05\x01\x00",  # SOCKS5
        b"\x10\x1a\x00\x04MQTT\x04\x02",
        b"AMQP\x00\x00\x09\x01",
        bytes.fromhex("300c020101600702010304008000"),  # LDAP bind
        b"\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x05",
        b"\x3f\x00\x00\x00\x01\x00\x00\x00",  # MongoDB
        b"\x20\x00\x00\x01\x85\xa6",  # MySQL answer, begins with a blank
        b"\x03\x00\x00\x13\x0e\xe0",  # RDP
        b"\x16\x05\x01",
        b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x11",  # lengths that do not add up
        b"*1\r\n$4\r\nPING\r\n",  # Redis
        b"get key\r\n",  # memcached
        b"USER anonymous\r\n",
        b"@RSYNCD: 31.0\n",
        b"OPTIONS rtsp://a.test/x RTSP/1.0\r\n",
        b"OPTIONS * RTSP/1.0\r\n",
        b"OPTIONS sip:a@b.test SIP/2.0\r\n",
        b"OPTIONS sips:a@b.test SIP/2.0\r\n",
        b"OPTIONS icap://a.test/x ICAP/1.0\r\n",
        b"CONNECT\naccept-version:1.2\n\n\x00",  # STOMP
        b'CONNECT {"verbose":false}\r\n',  # NATS
        b"<?xml version='1.0'?><stream:stream to='a.test'>",  # XMPP: waits without a line's end
        b'{"id": 1',
    ],
}
EVERY = [(Protocol.HTTP1, data) for data in HTTP1] + [
    (protocol, data) for protocol, cases in NOT_HTTP.items() for data in cases
]


@pytest.mark.parametrize(("protocol", "data"), EVERY)
def test_protocols_are_recognised_whole_and_byte_by_byte(protocol: Protocol, data: bytes):
    assert detect(data).protocol is protocol
    assert detect_bytewise(data).protocol is protocol
    assert detect(data + b"\r\nmore\0\0").protocol is protocol


@pytest.mark.parametrize("data", [data for data in HTTP1 if data[:1] not in (b"\x00",)])
def test_no_prefix_of_http_is_called_something_else(data: bytes):
    for end in range(1, len(data)):
        assert detect(data[:end]).protocol in (None, Protocol.HTTP1)


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET",
        b"\r\n",
        b" ",
        b"PRI * HTTP/2.0\r\n\r\nSM",
        b"\x16",
        b"\x16\x03",
        b"S",
        b"SSH-2",
    ],
)
def test_what_may_become_several_things_is_undecided(data: bytes):
    assert detect(data) == UNDECIDED


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"", Protocol.OPAQUE),
        (b"GET", Protocol.OPAQUE),
        (b"GET index", Protocol.HTTP1),
        (b"GET /", Protocol.HTTP1),
        (b"FROB /x", Protocol.OPAQUE),
        (b"\x16\x03", Protocol.OPAQUE),
        (b"SSH-2.0-x", Protocol.SSH),
        (b"EHLO a", Protocol.SMTP),
        (b"PRI * HTTP/2.0\r\n", Protocol.HTTP1),
        (b"\r\n\r\n", Protocol.OPAQUE),
    ],
)
def test_the_end_of_the_stream_decides_on_what_there_is(data: bytes, protocol: Protocol):
    assert detect(data, final=True).protocol is protocol


class TestLimit:
    def test_text_without_an_end_is_never_decided(self):
        assert detect(b"a" * LIMIT) == EXHAUSTED
        assert detect(b"\r\n" * LIMIT + b"GET / HTTP/1.1\r\n") == EXHAUSTED

    def test_what_comes_after_the_limit_does_not_count(self):
        line = b"FROB " + b"a" * LIMIT + b" HTTP/1.1\r\n"
        assert detect(line) == detect_bytewise(line) == EXHAUSTED
        assert detect(line, final=True) == EXHAUSTED

    def test_a_long_request_line_with_a_method_is_http(self):
        assert detect(b"GET *" + b"a" * LIMIT).protocol is Protocol.HTTP1

    def test_greetings_of_other_protocols_need_a_whole_line(self):
        assert detect(b"SSH-" + b"a" * LIMIT) == EXHAUSTED
        assert detect(b"EHLO " + b"a" * LIMIT) == EXHAUSTED


PIECES = st.sampled_from(
    [
        *(
            b"\r",
            b"\n",
            b"\r\n",
            b" ",
            b"\t",
            b"\x00",
            b"\x16",
            b"\x03",
            b"\x01",
            b"\x80",
            b"/",
            b"*",
        ),
        *(b"GET", b"G", b"POST ", b"CONNECT", b"OPTIONS ", b"HTTP/", b"http/1.1", b"HTT", b"P/"),
        *(b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n", b"SSH-", b"EHLO ", b"RTSP/1.0", b"rtsp://a"),
        *(b"\xef\xbb\xbf", b"{", b'"', b"<?xml ", b"x" * 30, b"\xc3\xa4"),
    ]
)


@given(st.lists(PIECES, max_size=8).map(b"".join) | st.binary(max_size=20), st.booleans())
def test_the_answer_does_not_depend_on_the_cut(data: bytes, final: bool):
    for limit in (LIMIT, 24):
        whole = detect(data, final=final, limit=limit)
        assert whole == detect_bytewise(data, final=final, limit=limit)


@given(
    st.lists(st.sampled_from([b"\r\n", b"\n", b" ", b"\t"]), max_size=3).map(b"".join),
    st.text("GETabc-_!~", min_size=1, max_size=9).map(str.encode),
    st.sampled_from([b" ", b"\t", b"  "]),
    st.binary(max_size=12).filter(lambda target: b"\n" not in target),
    st.sampled_from([b" HTTP/1.1", b" HTTP/1.0", b" http/1.1", b"\tHTTP/1.1", b" HTTP/9"]),
)
def test_no_request_line_is_opaque_unless_it_is_binary(
    lead: bytes, method: bytes, gap: bytes, target: bytes, version: bytes
):
    line = lead + method + gap + target + version + b"\r\n"
    control = sum((byte < 0x20 and byte not in b"\t\v\f\r") or byte == 0x7F for byte in target)
    if control < 2:
        assert detect(line).protocol is Protocol.HTTP1


@pytest.mark.parametrize("data", [b" " * LIMIT, b"a" * LIMIT, b"GET " + b"x" * LIMIT])
@pytest.mark.timeout(30)  # what is not linear does not end
def test_one_byte_at_a_time_comes_to_the_same(data: bytes):
    assert detect_bytewise(data) == detect(data)
