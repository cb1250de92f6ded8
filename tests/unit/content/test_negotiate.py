"""Accept-Encoding, narrowed to what can be decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.content.negotiate import narrow_accept_encoding


@pytest.mark.parametrize(
    ("value", "narrowed"),
    [
        (b"gzip, deflate, br, zstd", b"gzip, deflate, br, zstd"),
        (b"gzip, deflate, br, zstd, dcb, dcz", b"gzip, deflate, br, zstd"),
        (b"GZIP;q=0.5,Br ; Q=1.000", b"GZIP;q=0.5, Br ; Q=1.000"),
        (b"sdch, compress;q=0.3, x-gzip", b"x-gzip"),
        (b"compress", b"identity"),
        (b"", b"identity"),
        (b",,", b"identity"),
        (b"*", b"identity"),
        (b"gzip, *;q=0.1", b"gzip"),
        (b"gzip;q=0, br", b"gzip;q=0, br"),
        (b"gzip, *;q=0", b"gzip, identity;q=0"),
        (b"*;q=0.000, br", b"br, identity;q=0"),
        (b"*;q=0", b"identity;q=0"),
        (b"identity;q=0.5, *;q=0", b"identity;q=0.5"),
        (b"identity;q=0, gzip", b"identity;q=0, gzip"),
        (b"gzip;q=1.5, br;q=0.1234, deflate;level=9, zstd", b"zstd"),
        (b"gz\x00ip, br x, gzip", b"gzip"),
    ],
)
def test_narrowed(value: bytes, narrowed: bytes) -> None:
    assert narrow_accept_encoding(value) == narrowed


@given(st.lists(st.sampled_from([b"gzip", b"*", b";q=0", b"br", b",", b" ", b"x", b"\t"])))
def test_narrowing_again_changes_nothing(parts: list[bytes]) -> None:
    once = narrow_accept_encoding(b"".join(parts))
    assert once
    assert b"*" not in once
    assert narrow_accept_encoding(once) == once
