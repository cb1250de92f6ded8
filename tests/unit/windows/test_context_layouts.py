"""Redirect contexts of other drivers, written as those write them, and of a described one."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.context import ContextFlag, RedirectContext
from proxy.redirect.context_layouts import LAYOUT_NAMES, Field, Layout, decoder
from tests.support.fake_winsock import sockaddr

FOUR, SIX = ("192.0.2.9", 8443), ("2001:db8::9", 8443)


def packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def known(context: RedirectContext) -> tuple[Endpoint, int, int]:
    return context.original, context.pid, context.group_id


@pytest.mark.parametrize("destination", [FOUR, SIX])
def test_wfpsampler(destination: tuple[str, int]) -> None:
    """SOCKADDR_STORAGE[2]: the original remote and the original local address."""
    local = ("192.0.2.1", 50001) if destination is FOUR else ("2001:db8::1", 50001)
    data = sockaddr(destination).ljust(128, b"\0") + sockaddr(local).ljust(128, b"\0")
    found = decoder("wfpsampler")(data)
    assert found.original == Endpoint(*destination)
    assert found.source == Endpoint(*local)
    assert (found.pid, found.process_start, found.sid) == (0, 0, b"")


def test_wfpsampler_of_a_socket_that_was_not_bound() -> None:
    local = sockaddr(("0.0.0.0", 0)).ljust(128, b"\0")
    assert decoder("wfpsampler")(sockaddr(FOUR).ljust(128, b"\0") + local).source is None
    assert decoder("wfpsampler")(sockaddr(FOUR).ljust(256, b"\0")).source is None


@pytest.mark.parametrize("layout", ["<III4s2s2x", "<QII4s2s2x"], ids=["20 bytes", "24 bytes"])
def test_guest_proxy_agent(layout: str) -> None:
    data = struct.pack(layout, 999, 4711, 1, packed(FOUR[0]), FOUR[1].to_bytes(2, "big"))
    assert known(decoder("guest-proxy-agent")(data)) == (Endpoint(*FOUR), 4711, 999)


def test_guest_proxy_agent_of_another_size() -> None:
    with pytest.raises(RedirectError, match="21 bytes; Guest Proxy Agent writes 20, or 24"):
        decoder("guest-proxy-agent")(b"\0" * 21)


@pytest.mark.parametrize(("destination", "family"), [(FOUR, 2), (SIX, 23)])
def test_proxybridge(destination: tuple[str, int], family: int) -> None:
    address = packed(destination[0])
    four, six = (address, b"") if family == 2 else (b"", address)
    data = struct.pack("<HBBHH4s16sI", family, 6, 0, destination[1], 0, four, six, 4711)
    assert known(decoder("proxybridge")(data)) == (Endpoint(*destination), 4711, 0)


def test_ours_is_the_published_layout() -> None:
    with pytest.raises(RedirectError, match="fewer than the 88 of layout v1"):
        decoder("sluicegate")(b"SGC1")


def test_a_described_layout() -> None:
    fields = [
        "pid=u32be@0", "process_start=u64le@4", "original_ipv6=ipv6@12", "original_port=u16be@28",
        "application=utf16(40)@30", "logon_id=u8@70",
    ]  # fmt: skip
    path = "C:\\ä.exe\0junk".encode("utf-16-le").ljust(40, b"\0")
    data = struct.pack(">I", 7) + struct.pack("<Q", 133) + packed("::ffff:192.0.2.9")
    found = decoder("custom", fields)(data + b"\x20\xfb" + path + b"\x05 more")
    assert known(found) == (Endpoint("192.0.2.9", 8443), 7, 5)  # IPv4 is never written as IPv6
    assert (found.process_start, found.application) == (133, "C:\\ä.exe")
    assert ContextFlag.FULL_PATH in found.flags


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pid", "is not NAME=TYPE@OFFSET"),
        ("pid=u32@0", "is not NAME=TYPE@OFFSET"),  # which byte order?
        ("pid=u32le@-1", "is not NAME=TYPE@OFFSET"),
        ("port=u16le@0", "the names are family, original, "),
        ("pid=ipv4@0", "pid has type u8, u16le"),
        ("original_ipv4=ipv6@0", "original_ipv4 has type ipv4"),
        ("application=utf16(5000)@0", "4096 bytes at most"),
    ],
)
def test_a_field_that_is_not_right(text: str, says: str) -> None:
    with pytest.raises(RedirectError) as found:
        Field.parse(text)
    assert says in str(found.value)
    assert repr(text) in str(found.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (["pid=u32le@0"], "the destination is missing"),
        (["original_ipv4=ipv4@0"], "the destination is missing"),
        (["original=sockaddr@0", "original_port=u16be@2"], "address and port already"),
        (["pid=u32le@0", "pid=u32le@4"], "pid is there twice"),
        (
            ["original_port=u16be@0", "original_ipv4=ipv4@4", "original_ipv6=ipv6@8"],
            "give family too",
        ),
    ],
)
def test_a_layout_that_says_no_destination(fields: list[str], says: str) -> None:
    with pytest.raises(RedirectError, match=says):
        Layout.parse(fields)


def test_layouts_by_name() -> None:
    with pytest.raises(RedirectError, match="is not one of sluicegate, wfpsampler"):
        decoder("mine")
    with pytest.raises(RedirectError, match="custom needs its fields"):
        decoder("custom")
    with pytest.raises(RedirectError, match="fields belong to the layout custom"):
        decoder("proxybridge", ["pid=u32le@0"])


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("proxybridge", b"\x02\0" + b"\0" * 30, "0 is not a port"),
        ("proxybridge", b"\x11\0" + b"\0" * 30, "family 17"),
        ("proxybridge", b"", "0 bytes are fewer than the 32"),
        ("wfpsampler", b"\x11" * 256, "neither IPv4 nor IPv6"),
    ],
)
def test_a_context_that_says_no_destination(name: str, data: bytes, says: str) -> None:
    with pytest.raises(RedirectError, match=f"redirect context: .*{says}"):
        decoder(name)(data)


@given(
    st.sampled_from([name for name in LAYOUT_NAMES if name != "custom"]), st.binary(max_size=300)
)
def test_whatever_a_driver_writes_is_decoded_or_refused(name: str, data: bytes) -> None:
    try:
        found = decoder(name)(data)
    except RedirectError:
        return
    assert found.original.ip is not None
