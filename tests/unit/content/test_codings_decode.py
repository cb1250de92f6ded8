"""Decoding content codings: names, every cut, every truncation, evasions, bombs."""

from __future__ import annotations

import gzip
import itertools
import random
import tracemalloc
import zlib
from collections.abc import Sequence

import brotli
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.content.codings import (
    NESTED_MAX,
    SUPPORTED,
    CodingLimits,
    Decoder,
    Encoder,
    Fault,
    codings_of,
    unsupported,
)

FREE = CodingLimits(ratio=0)
TEXT = b"Don't be afraid to look, for it is completely harmless. " * 20
RAW_TEXT = zlib.compress(TEXT)[2:-4]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def decoded(
    codings: Sequence[str], pieces: Sequence[bytes], limits: CodingLimits = FREE
) -> tuple[bytes, Fault | None, str]:
    decoder = Decoder(codings, limits)
    out = [piece for data in pieces for piece in decoder.feed(data)]
    out += decoder.finish()
    assert all(0 < len(piece) <= 65536 for piece in out)
    return b"".join(out), decoder.fault, decoder.detail


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def encoded(codings: Sequence[str], data: bytes) -> bytes:
    encoder = Encoder(codings)
    return encoder.feed(data) + encoder.finish()


def stored(data: bytes, *, last: bool, padding: int = 0) -> bytes:
    """RFC 1951 3.2.4."""
    length = len(data).to_bytes(2, "little")
    return bytes([padding | last]) + length + bytes(b ^ 0xFF for b in length) + data


# --- names


@pytest.mark.parametrize(
    ("lines", "codings"),
    [
        ([], ()),
        ([b""], ()),
        ([b"gzip"], ("gzip",)),
        ([b" \t X-GZip  "], ("gzip",)),
        ([b" " * 4000 + b"br"], ("br",)),
        ([b"gzip, identity ,,deflate"], ("gzip", "deflate")),
        ([b"identity", b"Zstd"], ("zstd",)),
        ([b"gzip", b"br"], ("gzip", "br")),
        ([b"gzip x"], ("gzip x",)),
        ([b": gzip"], (": gzip",)),
        ([b"=?UTF-8?B?ZGVmbGF0ZQo=?="], ("=?utf-8?b?zgvmbgf0zqo=?=",)),
        ([b"gzip;q=1"], ("gzip;q=1",)),
        ([b"\xe7zip"], ("çzip",)),
        ([b"\x0bgzip"], ("\x0bgzip",)),
    ],
)
def test_names(lines: list[bytes], codings: tuple[str, ...]) -> None:
    assert codings_of(lines) == codings


@pytest.mark.parametrize(
    ("codings", "wrong"),
    [
        ((), None),
        (("gzip", "deflate", "br", "zstd", "gzip"), None),
        (("gzip",) * (NESTED_MAX + 1), "gzip"),
        (("gzip", "compress", "rot13"), "compress"),
        (("gzip x",), "gzip x"),
        (("chunked", "gzip"), "chunked"),
        (("=?utf-8?b?zgvmbgf0zqo=?=",), "=?utf-8?b?zgvmbgf0zqo=?="),
    ],
)
def test_what_cannot_be_decoded_is_named(codings: tuple[str, ...], wrong: str | None) -> None:
    assert unsupported(codings) == wrong
    decoder = Decoder(codings, FREE)
    assert decoder.fault is (Fault.UNKNOWN if wrong else None)
    if wrong:
        assert list(decoder.feed(b"x")) == []
        with pytest.raises(ValueError, match="cannot encode"):
            Encoder(codings)


# --- what is right

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}
#: Coding, and streams of TEXT in parts behind each of which they might end.
SAMPLES: list[tuple[str, list[bytes]]] = [
    ("gzip", [gzip.compress(TEXT)]),
    ("gzip", [gzip.compress(TEXT[:500]), gzip.compress(b""), gzip.compress(TEXT[500:])]),
    ("gzip", [gzip.compress(TEXT), *([b"\0"] * 20)]),
    ("gzip", [encoded(["gzip"], TEXT)]),
    ("deflate", [zlib.compress(TEXT)]),
    ("deflate", [RAW_TEXT]),
    ("deflate", [stored(TEXT, last=True)]),
    ("deflate", [encoded(["deflate"], TEXT)]),
    ("br", [brotli.compress(TEXT)]),
    ("br", [encoded(["br"], TEXT)]),
    ("zstd", [zstd.compress(TEXT)]),
    ("zstd", [zstd.compress(TEXT, options=CHECKED)]),
    ("zstd", [zstd.compress(TEXT[:77]), zstd.compress(b""), zstd.compress(TEXT[77:])]),
    ("zstd", [b"\x5a\x2a\x4d\x18\5\0\0\0look!", zstd.compress(TEXT), b"\x50\x2a\x4d\x18\0\0\0\0"]),
    ("zstd", [encoded(["zstd"], TEXT)]),
]


@pytest.mark.parametrize(("coding", "parts"), SAMPLES)
def test_decodes_whole_and_byte_by_byte(coding: str, parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert decoded([coding], [data]) == (TEXT, None, "")
    assert decoded([coding], bytewise(data)) == (TEXT, None, "")


@pytest.mark.parametrize(("coding", "parts"), SAMPLES)
def test_every_truncation_is_noticed(coding: str, parts: list[bytes]) -> None:
    data = b"".join(parts)
    ends = set(itertools.accumulate(map(len, parts)))
    for end in range(1, len(data)):
        content, fault, _ = decoded([coding], [data[:end]])
        assert TEXT.startswith(content)
        assert fault is (None if end in ends else Fault.TRUNCATED)


@given(
    st.lists(st.sampled_from(sorted(SUPPORTED)), max_size=NESTED_MAX),
    st.binary(max_size=3000) | st.binary(max_size=20).map(lambda data: data * 5000),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
@settings(deadline=None, max_examples=60)
def test_any_chain_decodes_to_what_was_encoded(
    codings: list[str], data: bytes, places: list[int]
) -> None:
    coded = encoded(codings, data)
    assert decoded(codings, cut(coded, places)) == (data, None, "")


def test_gzip_header_fields_are_read() -> None:
    deflated = gzip.compress(TEXT)[10:]
    extra = b"\x05\x00Ap\x01\x00\x00"
    header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03" + extra + b"name\0" + b"comment\0"
    crc = (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    assert decoded(["gzip"], bytewise(header + crc + deflated)) == (TEXT, None, "")
    wrong = bytes([crc[0] ^ 1, crc[1]])
    assert decoded(["gzip"], [header + wrong + deflated])[1] is Fault.INVALID


@pytest.mark.parametrize("codings", [["gzip"], ["deflate"], ["br"], ["zstd"], ["gzip", "br"]])
def test_a_body_of_no_bytes_is_no_fault(codings: list[str]) -> None:
    assert decoded(codings, []) == (b"", None, "")
    assert decoded(codings, [b"", b""]) == (b"", None, "")
    assert decoded(codings[-1:], [encoded(codings[-1:], b"")]) == (b"", None, "")


def test_without_codings_the_bytes_are_the_content() -> None:
    assert decoded([], [bytes(200_000)]) == (bytes(200_000), None, "")


# --- what is wrong

GZIP = gzip.compress(TEXT)
BAD_CRC = GZIP[:-8] + bytes([GZIP[-8] ^ 1]) + GZIP[-7:]
BAD_SIZE = GZIP[:-4] + bytes([GZIP[-4] ^ 0xFF]) + GZIP[-3:]
ZSTD = zstd.compress(TEXT, options={zstd.CompressionParameter.checksum_flag: 1})


def with_flags(flags: int, extra: bytes = b"") -> bytes:
    return GZIP[:3] + bytes([flags]) + GZIP[4:10] + extra + GZIP[10:]


def zstd_frame(descriptor: int, rest: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + rest


INVALID = [
    # the content is not coded, or otherwise
    ("gzip", TEXT),
    ("deflate", TEXT),
    ("zstd", TEXT),
    ("gzip", zlib.compress(TEXT)),
    ("gzip", RAW_TEXT),
    ("gzip", GZIP[:10] + zlib.compress(TEXT) + GZIP[-8:]),
    ("gzip", zstd.compress(TEXT)),
    ("deflate", GZIP),
    ("gzip", b"\n" + GZIP),
    ("gzip, gzip", GZIP),
    ("gzip, deflate", GZIP),
    ("gzip, deflate", zlib.compress(TEXT)),
    ("deflate, gzip", encoded(["gzip", "deflate"], TEXT)),
    ("deflate, deflate", zlib.compress(TEXT)),
    ("gzip, zstd", zstd.compress(TEXT)),
    # half of it is
    ("gzip", GZIP + TEXT),
    ("gzip", GZIP + b"x"),
    ("gzip", GZIP + b"\0\0x"),
    ("gzip", GZIP + bytes(8) + GZIP),
    ("deflate", zlib.compress(TEXT) + TEXT),
    ("deflate", zlib.compress(TEXT) + b"\0"),
    ("deflate", RAW_TEXT + b"\0"),
    ("deflate", b"\x78\x9c" + RAW_TEXT + zlib.compress(TEXT)),
    ("br", brotli.compress(TEXT) + b"\0"),
    ("zstd", zstd.compress(TEXT) + b"\0"),
    ("zstd", zstd.compress(TEXT) + TEXT),
    # headers
    ("gzip", b"\x1f\x8c" + GZIP[2:]),
    ("gzip", GZIP[:2] + b"\x88" + GZIP[3:]),
    ("gzip", with_flags(0x20)),
    ("gzip", with_flags(0x40)),
    ("gzip", with_flags(0x80)),
    ("gzip", with_flags(0x02, b"\0\0")),
    ("deflate", b"\x78\xbb" + zlib.compress(TEXT)[2:]),  # FDICT
    ("zstd", zstd_frame(0x08, b"\x00\x01\0\0")),  # reserved bit
    ("zstd", zstd_frame(0x01, b"\x00\x07\x01\0\0")),  # dictionary
    ("zstd", zstd_frame(0x00, b"\x00\x07\0\0")),  # reserved block type
    ("zstd", zstd_frame(0x00, b"\x69\x01\0\0")),  # window of 9 MiB
    ("zstd", zstd_frame(0xA0, (9 << 20).to_bytes(4, "little") + b"\x01\0\0")),
    # check sums and lengths
    ("gzip", BAD_CRC),
    ("gzip", BAD_SIZE),
    ("gzip", BAD_CRC + GZIP),
    ("deflate", zlib.compress(TEXT)[:-1] + b"\0"),
    ("zstd", ZSTD[:-1] + bytes([ZSTD[-1] ^ 1])),
    # zlib and raw at once: a stored block whose padding bits make a zlib header
    ("deflate", b"\x78" + stored(bytes(0xB29C), last=False)[1:] + stored(b"x", last=True)),
]


@pytest.mark.parametrize(("names", "data"), INVALID)
def test_lies_about_the_coding_are_faults(names: str, data: bytes) -> None:
    codings = codings_of([names.encode()])
    content, fault, detail = decoded(codings, [data])
    assert fault is Fault.INVALID
    assert detail
    assert decoded(codings, bytewise(data)) == (content, fault, detail) or "br" in codings


@pytest.mark.parametrize("data", [GZIP[:-8], with_flags(0x04, b"\x05\0")[:12], GZIP[:9], b"\x1f"])
def test_a_missing_check_sum_is_a_truncation(data: bytes) -> None:
    assert decoded(["gzip"], [data])[1] is Fault.TRUNCATED


def test_brotli_of_plain_text_is_a_fault() -> None:
    assert decoded(["br"], [TEXT])[1] in (Fault.INVALID, Fault.TRUNCATED)


def test_content_before_the_fault_is_shown_and_nothing_behind_it() -> None:
    decoder = Decoder(["gzip"], FREE)
    assert b"".join(decoder.feed(BAD_CRC + GZIP)) == TEXT
    assert decoder.fault is Fault.INVALID
    assert list(decoder.feed(GZIP)) == []
    assert list(decoder.finish()) == []
    assert decoder.fault is Fault.INVALID


def test_the_inner_coding_may_be_the_broken_one() -> None:
    coded = gzip.compress(BAD_CRC)
    content, fault, detail = decoded(["gzip", "gzip"], [coded])
    assert (content, fault) == (TEXT, Fault.INVALID)
    assert decoded(["gzip", "gzip"], bytewise(coded)) == (content, fault, detail)
    assert decoded(["gzip", "gzip"], [gzip.compress(GZIP[:-3])])[1] is Fault.TRUNCATED


# --- cuts and mutations

NESTED = ["zstd", "deflate", "gzip"]
NOISE = random.Random(4).randbytes(40_000)
TARGETS = [
    (["gzip"], GZIP + GZIP),
    (["deflate"], zlib.compress(TEXT)),
    (["deflate"], RAW_TEXT),
    (["zstd"], ZSTD + zstd.compress(b"x")),
    (["zstd"], zstd.compress(NOISE + TEXT)),
    (["zstd"], zstd.compress(bytes(300_000) + NOISE + bytes(300_000) + TEXT)),
    (NESTED, encoded(NESTED, TEXT)),
]


@given(
    st.sampled_from(TARGETS),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=3),
    st.lists(st.integers(0, 1 << 20), max_size=8),
    st.binary(max_size=3),
)
@settings(deadline=None, max_examples=250)
def test_whatever_the_cut_the_content_and_the_fault_are_the_same(
    target: tuple[list[str], bytes],
    mutations: list[tuple[int, int]],
    places: list[int],
    behind: bytes,
) -> None:
    codings, data = target
    mutated = bytearray(data)
    for place, value in mutations:
        mutated[place % len(data)] = value
    coded = bytes(mutated) + behind
    assert decoded(codings, cut(coded, places)) == decoded(codings, [coded])


@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=3),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
@settings(deadline=None, max_examples=100)
def test_brotli_has_the_same_fault_whatever_the_cut(
    mutations: list[tuple[int, int]], places: list[int]
) -> None:
    coded = bytearray(brotli.compress(NOISE[:2000] + TEXT, quality=4))
    for place, value in mutations:
        coded[place % len(coded)] = value
    whole, fault, _ = decoded(["br"], [bytes(coded)])
    content, other, _ = decoded(["br"], cut(bytes(coded), places))
    assert other is fault
    assert content.startswith(whole)  # the library drops what it decoded just before a fault
    assert fault or content == whole


@given(st.sampled_from(sorted(SUPPORTED)), st.binary(max_size=200))
def test_any_bytes_end_in_content_or_a_fault(coding: str, data: bytes) -> None:
    content, fault, detail = decoded([coding], [data])
    assert (fault is None) == (detail == "")
    assert fault is not None or not data or decoded([coding], bytewise(data))[0] == content


# --- bombs

LIMITS = CodingLimits(ratio=20, ratio_from=300_000, total=0)


def bomb(codings: Sequence[str], size: int) -> bytes:
    encoder = Encoder(codings)
    zeros = bytes(1 << 20)
    return b"".join(encoder.feed(zeros) for _ in range(size >> 20)) + encoder.finish()


@pytest.mark.parametrize(
    "codings", [["gzip"], ["deflate"], ["br"], ["zstd"], ["gzip"] * 5, ["br", "gzip"]]
)
def test_a_bomb_stops_within_the_limits_and_in_bounded_memory(codings: list[str]) -> None:
    coded = bomb(codings, 64 << 20)
    decoder = Decoder(codings, LIMITS)
    size = 0
    tracemalloc.start()
    for piece in decoder.feed(coded):
        size += len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder.fault is Fault.BOMB
    assert size <= 20 * (len(coded) + 16384) + 300_000
    assert peak < 2_000_000


def test_a_bomb_that_only_an_inner_level_shows_is_one() -> None:
    # 64 MiB of a gzip member's file name: the content is empty.
    name = b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"a" * (64 << 20)
    coded = gzip.compress(name, 1)
    assert decoded(["gzip", "gzip"], [coded], LIMITS)[:2] == (b"", Fault.BOMB)


@given(st.lists(st.integers(0, 1 << 20), max_size=8))
@settings(deadline=None, max_examples=25)
def test_a_bomb_ends_at_the_same_byte_whatever_the_cut(places: list[int]) -> None:
    coded = gzip.compress(NOISE) + gzip.compress(bytes(2_000_000)) + gzip.compress(NOISE)
    whole = decoded(["gzip"], [coded], LIMITS)
    assert whole[1] is Fault.BOMB
    assert decoded(["gzip"], cut(coded, places), LIMITS) == whole


def test_up_to_the_limits_any_ratio_is_fine() -> None:
    coded = gzip.compress(bytes(300_000))
    assert decoded(["gzip"], [coded], LIMITS) == (bytes(300_000), None, "")
    assert decoded(["gzip"], [gzip.compress(bytes(400_000))], LIMITS)[1] is Fault.BOMB


def test_the_total_counts_whatever_the_ratio() -> None:
    limits = CodingLimits(ratio=100, ratio_from=1 << 20, total=1000)
    assert decoded(["gzip"], [gzip.compress(NOISE[:1000])], limits) == (NOISE[:1000], None, "")
    content, fault, detail = decoded(["gzip"], [gzip.compress(NOISE[:1001])], limits)
    assert (content, fault) == (NOISE[:1000], Fault.BOMB)
    assert "1000" in detail
    assert decoded([], [NOISE], limits)[:2] == (NOISE[:1000], Fault.BOMB)


def test_a_stream_that_two_readers_would_read_otherwise_is_refused_at_once() -> None:
    ambiguous = b"\x78" + stored(bytes(0xB29C), last=False)[1:5]
    assert zlib.decompressobj(-15).decompress(ambiguous + b"seen by one only") != b""
    assert decoded(["deflate"], [ambiguous])[1] is Fault.INVALID


def test_many_empty_parts_are_a_bomb_and_many_small_ones_are_not() -> None:
    # Each costs the time of a lot of content; compressed once more they cost no bytes.
    for coding, empty, small in [
        ("gzip", gzip.compress(b""), gzip.compress(NOISE[:100])),
        ("zstd", zstd.compress(b""), zstd.compress(NOISE[:100])),
        ("zstd", b"\x50\x2a\x4d\x18\0\0\0\0", zstd.compress(NOISE[:100])),
    ]:
        whole = decoded([coding], [empty * 3000])
        assert whole[:2] == (b"", Fault.BOMB)
        assert decoded([coding], cut(empty * 3000, range(0, 9000, 17))) == whole
        assert decoded([coding], [small * 3000]) == (NOISE[:100] * 3000, None, "")


def test_empty_zstd_blocks_without_end_are_a_bomb():
    """They cost time and no bytes: a gzip of them would keep a decoder busy for minutes."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58"  # no content size, a window of 2 MiB
    decoder = Decoder(("zstd",), CodingLimits())
    assert b"".join(decoder.feed(frame + bytes(3) * 70_000)) == b""
    assert decoder.fault is Fault.BOMB


def test_a_zstd_stream_flushed_for_every_event_is_none():
    coder = zstd.ZstdCompressor()
    events = [b"data: %d\n\n" % number for number in range(80_000)]
    coded = b"".join(coder.compress(e, zstd.ZstdCompressor.FLUSH_BLOCK) for e in events)
    decoder = Decoder(("zstd",), CodingLimits())
    assert b"".join(decoder.feed(coded)) == b"".join(events)
    assert decoder.fault is None
