"""PROXY headers as bytes: what they say, and that nothing else is taken for one."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.errors import BadPreamble
from proxy.model import Endpoint
from proxy.redirect.crc32c import crc32c
from proxy.redirect.proxy_header import MAX_BLOCK, MAX_LINE, ProxyHeader, Relayed

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
SOURCE, DESTINATION = Endpoint("198.51.100.7", 56324), Endpoint("192.0.2.9", 443)
SOURCE6, DESTINATION6 = Endpoint("2001:db8::7", 1), Endpoint("2001:db8::9", 65535)


def block(command: int = 0x21, family: int = 0x11, body: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def addresses(source: Endpoint = SOURCE, destination: Endpoint = DESTINATION) -> bytes:
    packed = [ipaddress.ip_address(one.host).packed for one in (source, destination)]
    return b"".join(packed) + struct.pack(">HH", source.port, destination.port)


def vector(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def summed(*vectors: bytes) -> bytes:
    """A header with a right checksum, as RFC 4960 appendix B computes it."""
    body = addresses() + b"".join(vectors)
    zeroed = block(body=body + vector(3, bytes(4)))
    return zeroed[:-4] + crc32c(zeroed).to_bytes(4, "big")


TCP4 = b"PROXY TCP4 198.51.100.7 192.0.2.9 56324 443\r\n"
TCP6 = b"PROXY TCP6 2001:db8::7 2001:DB8:0:0::9 1 65535\r\n"
HEADERS: dict[bytes, tuple[Endpoint | None, Endpoint | None]] = {
    TCP4: (SOURCE, DESTINATION),
    TCP6: (SOURCE6, DESTINATION6),
    b"PROXY TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.9 56324 443\r\n": (SOURCE, DESTINATION),
    b"PROXY UNKNOWN\r\n": (None, None),
    b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n": (None, None),
    b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16) + b"\r\n": (None, None),
    block(body=addresses()): (SOURCE, DESTINATION),
    block(family=0x21, body=addresses(SOURCE6, DESTINATION6)): (SOURCE6, DESTINATION6),
    block(body=addresses() + vector(2, b"a.test") + vector(0xEA, b"\x01vpce")): (
        SOURCE,
        DESTINATION,
    ),
    summed(vector(4, bytes(3)), vector(5, b"id")): (SOURCE, DESTINATION),
    block(0x20, 0x00): (None, None),
    block(0x20, 0x11, addresses()): (None, None),
    block(0x20, 0x31, b"whatever it is"): (None, None),
    block(0x21, 0x00, b"whatever it is"): (None, None),
    block(0x21, 0x12, addresses()): (None, None),
    block(0x21, 0x31, bytes(216)): (None, None),
    block(body=addresses() + vector(4, bytes(MAX_BLOCK - 15))): (SOURCE, DESTINATION),
}

REFUSED = {
    "http": b"GET / HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01\x02\x00",
    "lower case": b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "lf alone": TCP4.replace(b"\r", b""),
    "cr within": b"PROXY UNKNOWN a\rb\r\n",
    "two spaces": TCP4.replace(b"TCP4 ", b"TCP4  "),
    "trailing space": TCP4.replace(b"443", b"443 "),
    "leading zero in port": TCP4.replace(b"443", b"0443"),
    "port too large": TCP4.replace(b"443", b"65536"),
    "source port too large": TCP4.replace(b"56324", b"65536"),
    "port of plus": TCP4.replace(b"443", b"+443"),
    "port zero": TCP4.replace(b" 443", b" 0"),
    "leading zero in address": TCP4.replace(b"192.0.2.9", b"192.0.2.09"),
    "octal address": TCP4.replace(b"192.0.2.9", b"0300.0.2.9"),
    "name": TCP4.replace(b"192.0.2.9", b"abcdef.de"),
    "family does not fit": TCP4.replace(b"TCP4", b"TCP6"),
    "zone": TCP6.replace(b"db8::7", b"db8::7%eth0"),
    "unspecified destination": TCP4.replace(b"192.0.2.9", b"0.0.0.0"),
    "multicast destination": TCP4.replace(b"192.0.2.9", b"224.0.0.1"),
    "unknown protocol": TCP4.replace(b"TCP4", b"UDP4"),
    "no end": b"PROXY UNKNOWN " + b"x" * MAX_LINE,
    "end too late": b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 15) + b"\r\n",
    "version 1 in a block": block(0x11, body=addresses()),
    "version 3": block(0x31, body=addresses()),
    "command 2": block(0x22, body=addresses()),
    "family 4": block(0x21, 0x41, addresses()),
    "protocol 3": block(0x21, 0x13, addresses()),
    "too short for addresses": block(body=addresses()[:-1]),
    "too short for a path": block(family=0x31, body=bytes(215)),
    "vector without length": block(body=addresses() + b"\x04\x00"),
    "vector beyond the end": block(body=addresses() + b"\x04\x00\x05abcd"),
    "vector of one byte": block(body=addresses() + b"\x04"),
    "wrong checksum": summed()[:-1] + b"\x00",
    "short checksum": block(body=addresses() + vector(3, b"abc")),
    "too long": block(body=addresses() + vector(4, bytes(MAX_BLOCK - 14))),
    "port zero in a block": block(body=addresses(SOURCE, Endpoint("192.0.2.9", 0))),
}


def outcome(pieces: list[bytes]) -> Relayed | str | None:
    """What the parser says when it is fed so, or its complaint."""
    header, rest = ProxyHeader(), list(pieces)
    try:
        while rest:
            found = header.feed(rest.pop(0))
            if found is not None:
                return Relayed(found.source, found.destination, found.leftover + b"".join(rest))
    except BadPreamble as error:
        return str(error)
    return None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True)]


@pytest.mark.parametrize("header", HEADERS)
def test_headers(header: bytes) -> None:
    """Right whole and byte by byte; the flow's own bytes are kept; nothing is said too early."""
    expected = Relayed(*HEADERS[header], b"\x16\x03")
    assert outcome([header + b"\x16\x03"]) == expected
    assert outcome([bytes([byte]) for byte in header + b"\x16\x03"]) == expected
    assert outcome([bytes([byte]) for byte in header[:-1]]) is None


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_match_exactly_is_refused(name: str) -> None:
    data = REFUSED[name]
    complaint = outcome([data])
    assert isinstance(complaint, str)
    assert outcome([bytes([byte]) for byte in data]) == complaint


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda tail: b"PROXY " + tail),
        st.binary(max_size=100).map(lambda tail: SIGNATURE + tail),
        st.binary(max_size=100).map(lambda body: block(body=addresses() + body)),
        st.sampled_from([*HEADERS, *REFUSED.values()]),
    ),
    st.binary(max_size=20),
    st.lists(st.integers(0, 5000), max_size=8),
)
@example(TCP4, b"", [1, 5, 6, 7])
def test_any_cut_gives_the_same(head: bytes, tail: bytes, places: list[int]) -> None:
    assert outcome(cut(head + tail, places)) == outcome([head + tail])


@given(st.binary(max_size=300), st.integers(0, 300), st.binary(max_size=3))
@example(b"", 12, b"\x21")
def test_hostile_bytes_never_do_more_than_be_refused(
    noise: bytes, place: int, change: bytes
) -> None:
    for header in (TCP4, summed(vector(4, b"x"))):
        data = header[:place] + change + header[place + len(change) :] + noise
        found = outcome([data])
        if isinstance(found, Relayed) and found.destination is not None:
            assert found.destination.ip is not None
            assert 1 <= found.destination.port <= 65535


def test_a_flipped_bit_is_found_by_the_checksum() -> None:
    header = summed(vector(5, b"id"))
    for index in range(16, 28):  # the addresses and ports
        changed = bytearray(header)
        changed[index] ^= 1
        assert outcome([bytes(changed)]) == "the PROXY header's checksum is wrong"


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720 B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc32c(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def test_no_more_is_held_than_a_header_has() -> None:
    header = ProxyHeader()
    assert header.empty
    with pytest.raises(BadPreamble, match="limit"):
        header.feed(block()[:-2] + b"\xff\xff")
    assert not header.empty
