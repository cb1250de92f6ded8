"""host:port of an explicit client: what is taken, how it is normalised, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Endpoint
from proxy.redirect.authority import parse_authority


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (b"example.com:443", "example.com", 443),
        (b"EXAMPLE.Com:443", "example.com", 443),
        (b"example.com.:443", "example.com", 443),
        (b"a_b.test:1", "a_b.test", 1),
        (b"xn--bcher-kva.test:80", "xn--bcher-kva.test", 80),
        (b"192.0.2.1:65535", "192.0.2.1", 65535),
        (b"[2001:DB8:0::1]:443", "2001:db8::1", 443),
        (b"[::ffff:192.0.2.1]:443", "192.0.2.1", 443),
        (b"[::ffff:c000:201]:443", "192.0.2.1", 443),
    ],
)
def test_accepted(text: bytes, host: str, port: int) -> None:
    assert parse_authority(text, None) == Endpoint(host, port)


@pytest.mark.parametrize("text", [b"example.com", b"example.com:"])
def test_default_port(text: bytes) -> None:
    assert parse_authority(text, 80) == Endpoint("example.com", 80)
    with pytest.raises(ValueError, match="needs a port"):
        parse_authority(text, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "host:port"),
        (b":443", "host:port"),
        (b"example.com:0", "1-65535"),
        (b"example.com:65536", "1-65535"),
        (b"example.com:0x50", "host:port"),
        (b"example.com:+80", "host:port"),
        (b"example.com:-1", "host:port"),
        (b"example.com:80:80", "host:port"),
        (b"user@example.com:80", "user information"),
        (b"user:pw@example.com:80", "user information"),
        (b"2001:db8::1:443", "host:port"),
        (b"[2001:db8::1", "host:port"),
        (b"[fe80::1%25eth0]:80", "host:port"),
        (b"[fe80::1%eth0]:80", "host:port"),
        (b"[v1.x]:80", "host:port"),
        (b"[192.0.2.1]:80", "not an IPv6"),
        (b"[:::1]:80", "not an IPv6"),
        (b"exa mple.com:80", "host:port"),
        (b"ex%61mple.com:80", "host:port"),
        (b"b\xc3\xbccher.test:80", "host:port"),
        (b"example..com:80", "not a name"),
        (b".example.com:80", "not a name"),
        (b"-a.com:80", "not a name"),
        (b".:80", "not a name"),
        (b"2130706433:80", "dotted decimal"),
        (b"0x7f000001:80", "dotted decimal"),
        (b"127.1:80", "dotted decimal"),
        (b"0x7f.1:80", "dotted decimal"),
        (b"127.0.0.1.:80", "dotted decimal"),
        (b"0177.0.0.1:80", "dotted decimal"),
        (b"256.0.0.1:80", "dotted decimal"),
        (b"a" * 64 + b".com:80", "too long"),
        (b"a." * 127 + b"com:80", "too long"),
    ],
)
def test_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_authority(text, 80)


@given(st.binary(max_size=40) | st.from_regex(rb"[\[\]0-9a-fA-Fx:.@%-]{0,30}", fullmatch=True))
def test_any_bytes_are_an_endpoint_or_a_value_error(text: bytes) -> None:
    try:
        got = parse_authority(text, 80)
    except ValueError:
        return
    assert 1 <= got.port <= 65535
    again = f"{got}".encode()
    assert parse_authority(again, 80) == got
