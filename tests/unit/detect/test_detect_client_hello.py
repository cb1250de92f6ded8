"""The ClientHello reader, against hellos that OpenSSL wrote and against broken ones."""

from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.callouts.client_hello import BadHello, ClientHello, HelloReader, TooLarge

LIMIT = 65536
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def openssl_hello(
    name: str | None, alpn: tuple[str, ...] = (), version: ssl.TLSVersion = TLS13
) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def read(data: bytes, limit: int = LIMIT) -> object:
    return HelloReader(limit).feed(data)


def read_bytewise(data: bytes, limit: int = LIMIT) -> object:
    reader, outcome = HelloReader(limit), None
    for end in range(1, len(data) + 1):
        outcome = reader.feed(data[:end])
        if outcome is not None:
            break
    return outcome


def records(message: bytes, size: int = 1 << 14) -> bytes:
    """A handshake message spread over records of at most `size` bytes."""
    parts = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part for part in parts)


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


def sni(*names: tuple[int, bytes]) -> bytes:
    entries = b"".join(struct.pack("!BH", kind, len(name)) + name for kind, name in names)
    return extension(0, struct.pack("!H", len(entries)) + entries)


def hello(
    extensions: bytes | None = b"", *, ciphers: bytes = b"\x13\x01", tail: bytes = b""
) -> bytes:
    """A handshake message of our own making."""
    body = (
        b"\x03\x03" + bytes(32) + b"\x00" + struct.pack("!H", len(ciphers)) + ciphers + b"\x01\x00"
    )
    if extensions is not None:
        body += struct.pack("!H", len(extensions)) + extensions
    body += tail
    return b"\x01" + len(body).to_bytes(3, "big") + body


class TestOpenssl:
    @pytest.mark.parametrize("version", [TLS12, TLS13])
    @pytest.mark.parametrize("name", [None, "a.test", "WWW.Example.TEST", "x" * 60 + ".test"])
    @pytest.mark.parametrize("alpn", [(), ("h2", "http/1.1"), ("x" * 255,)])
    def test_names_and_protocols_are_read(
        self, version: ssl.TLSVersion, name: str | None, alpn: tuple[str, ...]
    ):
        expected = ClientHello(name.lower() if name else None, alpn)
        assert read(openssl_hello(name, alpn, version)) == expected

    def test_every_split_and_every_record_size_reads_the_same(self):
        data = openssl_hello("a.test", ("h2",))
        expected = ClientHello("a.test", ("h2",))
        for end in range(1, len(data)):
            reader = HelloReader(LIMIT)
            assert reader.feed(data[:end]) is None
            assert reader.feed(data) == expected
        for size in range(1, 64):
            assert read_bytewise(records(data[5:], size)) == expected

    def test_an_address_is_not_a_server_name(self):
        assert read(openssl_hello("192.0.2.1")) == ClientHello(None, ())

    def test_what_follows_the_hello_is_not_looked_at(self):
        assert read(openssl_hello("a.test") + b"junk") == ClientHello("a.test", ())


class TestForms:
    def test_a_hello_without_extensions_is_valid(self):
        assert read(records(hello(None))) == ClientHello(None, ())

    def test_a_trailing_dot_and_case_do_not_make_another_name(self):
        assert read(records(hello(sni((0, b"A.Test."))))) == ClientHello("a.test", ())

    def test_names_of_other_types_are_skipped(self):
        assert read(records(hello(sni((7, b"zz"), (0, b"a.test"))))) == ClientHello("a.test", ())

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "instead of ClientHello"),
            (b"\x16\x03\x01\x00\x00", "record of 0 bytes"),
            (b"\x16\x03\x01\x40\x01", "record of 16385 bytes"),
            (records(hello())[:20] + b"", None),
            (b"\x16\x03\x01\x00\x01\x01\x15\x03\x01\x00\x01", "not a handshake record"),
            (b"\x80\x2e\x01\x03\x01" + bytes(40), "not a handshake record"),
            (records(hello(tail=b"x")), "after the extensions"),
            (records(hello(ciphers=b"\x13")), "a field of 1 bytes"),
            (records(hello(ciphers=b"\x13\x01\x02")), "odd length"),
            (records(hello(sni((0, b"a.test")) * 2)), "extension 0 twice"),
            (records(hello(sni((0, b"a"), (0, b"b")))), "two server names"),
            (records(hello(sni((0, b"a\x00b")))), "printable"),
            (records(hello(sni((0, b"")))), "a field of 0 bytes"),
            (records(hello(extension(0, b""))), "too early"),
            (records(hello(extension(0, b"\x00\x01\x00"))), "too early"),
            (records(hello(extension(0, b"\x00\x01\x00\x00"))), "after the list"),
            (records(hello(extension(16, b"\x00\x02\x01h!"))), "after the list"),
            (records(b"\x01\x00\x00\x02\x02\x00"), "legacy_version"),
        ],
    )
    def test_broken_hellos_are_named(self, data: bytes, reason: str | None):
        outcome = read(data)
        if reason is None:
            assert outcome is None
        else:
            assert isinstance(outcome, BadHello)
            assert reason in outcome.reason
        assert read_bytewise(data) == outcome


class TestLimit:
    def test_an_announced_length_above_the_limit_is_refused_at_once(self):
        assert isinstance(read(b"\x16\x03\x01\x00\x04\x01\x01\x00\x01"), TooLarge)

    def test_the_limit_counts_record_headers(self):
        data = records(hello(extension(99, bytes(200))), 1)
        assert isinstance(read(data, limit=800), TooLarge)
        assert read_bytewise(data, limit=800) == read(data, limit=800)
        assert isinstance(read(data, limit=len(data)), ClientHello)


@given(st.data())
def test_hostile_bytes_never_raise_and_the_cut_does_not_matter(data: st.DataObject):
    base = bytearray(records(hello(sni((0, b"a.test")) + extension(16, b"\x00\x03\x02h2")), 30))
    for _ in range(data.draw(st.integers(0, 3))):
        base[data.draw(st.integers(0, len(base) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(base[: data.draw(st.integers(0, len(base)))])
    for limit in (LIMIT, 60):
        whole = read(cut, limit)
        assert whole == read_bytewise(cut, limit)
