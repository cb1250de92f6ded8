"""Encoding content codings: read back by the libraries alone, and flushed for who waits."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.content.codings import NESTED_MAX, SUPPORTED, CodingLimits, Decoder, Encoder

READERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": zstd.decompress,
}
FREE = CodingLimits(ratio=0)


@given(
    st.lists(st.sampled_from(sorted(SUPPORTED)), max_size=NESTED_MAX),
    st.lists(st.binary(max_size=300), max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_others_read_what_is_written(codings: list[str], pieces: list[bytes]) -> None:
    encoder = Encoder(codings)
    coded = b"".join(map(encoder.feed, pieces)) + encoder.finish()
    for coding in reversed(codings):
        coded = READERS[coding](coded)
    assert coded == b"".join(pieces)


@pytest.mark.parametrize("codings", [*([c] for c in SUPPORTED), ["gzip", "br", "zstd", "deflate"]])
def test_after_a_flush_everything_can_be_read(codings: list[str]) -> None:
    encoder, decoder = Encoder(codings), Decoder(codings, FREE)
    for number in range(3):
        event = b"data: %d\n\n" % number
        coded = encoder.feed(event) + encoder.flush()
        assert b"".join(decoder.feed(coded)) == event
        assert encoder.flush() == b""
    assert list(decoder.feed(encoder.finish())) == []
    list(decoder.finish())
    assert decoder.fault is None


@pytest.mark.parametrize("coding", sorted(SUPPORTED))
def test_empty_content_becomes_a_complete_stream(coding: str) -> None:
    encoder = Encoder([coding])
    assert READERS[coding](encoder.flush() + encoder.finish()) == b""


def test_deflate_is_written_with_the_zlib_wrapper() -> None:
    assert zlib.decompress(Encoder(["deflate"]).finish(), 15) == b""


def test_a_zstd_window_that_browsers_take() -> None:
    encoder = Encoder(["zstd"])
    coded = encoder.feed(bytes(20 << 20)) + encoder.finish()
    window_log = 10 + (coded[5] >> 3)
    assert not coded[4] & 0x20
    assert window_log <= 23
