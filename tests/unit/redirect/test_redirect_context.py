"""The decoder of the redirect context: what it takes, and what it says of what it does not."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.context import FIXED, ContextFlag, RedirectContext, decode_context

V4 = bytes.fromhex("c0000209") + bytes(12)
V6 = bytes.fromhex("20010db8000000000000000000000009")


def raw(
    *, family: int = 4, flags: int = 4, original: bytes = V4, source: bytes = V4,
    sid: bytes = b"", application: bytes = b"curl", **changes: int,
) -> bytes:  # fmt: skip
    values = {"magic": 0x31434753, "version": 1, "protocol": 6, "uid": 1000}
    values |= {"size": 88 + len(sid) + len(application), "sid_size": len(sid)} | changes
    fixed = struct.pack(
        "<IHHBBHI16s16s2s2sIQQQHHI",
        values["magic"], values["version"], values["size"], family, values["protocol"], flags, 77,
        original, source, b"\x01\xbb", b"\xc0\x00", values["uid"], 5_000_000_000, 8, 9,
        values["sid_size"], len(application), 0,
    )  # fmt: skip
    return fixed + sid + application


def test_linux() -> None:
    assert decode_context(raw() + b"more of the redirector's own") == RedirectContext(
        original=Endpoint("192.0.2.9", 443),
        source=Endpoint("192.0.2.9", 0xC000),
        pid=77,
        process_start=5_000_000_000,
        uid=1000,
        sid=b"",
        group_id=8,
        space=9,
        application="curl",
        flags=ContextFlag.SOURCE_KNOWN,
    )


def test_windows() -> None:
    path = "\\device\\harddiskvolume3\\windows\\curl.exe"
    sid, name = b"\x01\x01" + bytes(10), path.encode("utf-16-le")
    unknown = 0xFFFFFFFF
    found = decode_context(
        raw(family=6, original=V6, flags=3, uid=unknown, sid=sid, application=name)
    )
    assert found.original == Endpoint("2001:db8::9", 443)
    assert (found.source, found.uid, found.sid) == (None, None, sid)
    assert found.application == path
    assert found.flags == ContextFlag.UTF16 | ContextFlag.FULL_PATH


def test_a_mapped_address_is_ipv4() -> None:
    mapped = bytes(10) + b"\xff\xff\xc0\x00\x02\x09"
    assert decode_context(raw(family=6, original=mapped)).original == Endpoint("192.0.2.9", 443)


def test_a_name_that_is_no_text_stays_visible() -> None:
    assert decode_context(raw(application=b"a\xff")).application == "a\\xff"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "0 bytes are fewer than the 88"),
        (raw()[:87], "87 bytes are fewer"),
        (raw(magic=1), "begins with 0x00000001"),
        (raw(version=2), "layout v2"),
        (raw(family=2), "family 2 is neither 4 nor 6"),
        (raw(protocol=17), "protocol 17 is not TCP"),
        (raw(size=93), "its size is 93 bytes, but only 92 arrived"),
        (raw(size=5000), "more than 4096"),
        (raw(sid_size=1), "do not add up"),
        (raw(size=88), "do not add up"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, complaint: str) -> None:
    with pytest.raises(RedirectError, match=complaint):
        decode_context(data)


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(RedirectError):
        decode_context(data)


@given(st.data())
def test_a_bent_context_is_refused_or_understood(data: st.DataObject) -> None:
    bent = bytearray(raw(sid=b"\x01\x00", application=b"x"))
    place = data.draw(st.integers(0, FIXED.size - 1))
    bent[place] = data.draw(st.integers(0, 255))
    try:
        found = decode_context(bytes(bent))
    except RedirectError:
        return
    assert replace(found, pid=0).pid == 0
