"""Media types by first bytes: one sample of each, what the header may refine, and the bounds."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.content.sniff import SNIFF_BYTES, sniff


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    return buffer.getvalue()


def mp3_frames(second: bytes = b"\xff\xfb") -> bytes:
    """MPEG 1 layer III, 128 kbit/s at 44.1 kHz: frames of 417 bytes."""
    return b"\xff\xfb\x90\x00" + bytes(413) + second + b"\x90\x00" + bytes(413)


SAMPLES = [
    # markup
    ("text/html", b"<!DOCTYPE HTML>\n<html>"),
    ("text/html", b"\xef\xbb\xbf \n\t<HTML lang=en>"),
    ("text/html", b"<script >alert(1)"),
    ("text/html", b"<!-- hidden"),
    ("text/html", b"<p>"),
    ("text/plain", b"<para>"),
    ("text/plain", b"<html"),
    ("text/plain", b"text <html>"),
    ("text/xml", b"<?xml version='1.0'?><x/>"),
    # documents and images
    ("application/pdf", b"%PDF-1.7\n%\xe2"),
    ("application/postscript", b"%!PS-Adobe-3.0"),
    ("text/rtf", b"{\\rtf1\\ansi"),
    ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF"),
    ("image/gif", b"GIF89a\x01\0\x01\0"),
    ("image/webp", b"RIFF\x24\0\0\0WEBPVP8 "),
    ("image/bmp", b"BM\x36\0\0\0\0\0\0\0\x36\0"),
    ("text/plain", b"BMW is a maker of cars"),
    ("image/x-icon", b"\0\0\1\0\1\0"),
    ("image/avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"),
    ("image/heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    # audio and video
    ("video/mp4", b"\0\0\0\x18ftypisom\0\0\2\0isommp41"),
    ("video/quicktime", b"\0\0\0\x14ftypqt  \0\0\2\0qt  "),
    ("application/octet-stream", b"\0\0\0\x13ftypmp42\0\0\0\0"),
    ("video/webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm"),
    ("video/x-matroska", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska"),
    ("video/avi", b"RIFF\x24\0\0\0AVI LIST"),
    ("audio/wave", b"RIFF\x24\0\0\0WAVEfmt "),
    ("audio/mpeg", b"ID3\x04\0\0\0"),
    ("audio/mpeg", mp3_frames()),
    ("application/octet-stream", mp3_frames(b"\0\0")),
    ("audio/flac", b"fLaC\0\0\0\x22"),
    ("application/ogg", b"OggS\0\2"),
    ("audio/midi", b"MThd\0\0\0\6\0\1"),
    ("audio/aiff", b"FORM\0\0\0\0AIFFCOMM"),
    # fonts and archives
    ("font/woff2", b"wOF2\0\1\0\0"),
    ("font/ttf", b"\0\1\0\0\0\x0f"),
    ("application/gzip", gzip.compress(b"x")),
    ("application/zip", zipped()),
    ("application/x-rar-compressed", b"Rar!\x1a\x07\x01\0"),
    ("application/x-7z-compressed", b"7z\xbc\xaf\x27\x1c\0\4"),
    ("application/x-xz", b"\xfd7zXZ\0\0"),
    ("application/zstd", b"\x28\xb5\x2f\xfd\x24"),
    ("application/x-bzip2", b"BZh91AY&SY"),
    ("text/plain", b"BZh is short for Bzip"),
    # programs
    ("application/x-msdownload", b"MZ\x90\0\3\0\0\0"),
    ("text/plain", b"MZ is the Czech zone"),
    ("application/x-elf", b"\x7fELF\2\1\1\0"),
    ("application/x-mach-binary", b"\xcf\xfa\xed\xfe\7\0\0\1"),
    ("application/x-mach-binary", b"\xca\xfe\xba\xbe\0\0\0\2"),
    ("application/java-vm", b"\xca\xfe\xba\xbe\0\0\0\x34"),
    ("application/wasm", b"\0asm\1\0\0\0"),
    ("text/x-shellscript", b"#!/bin/sh\necho"),
    ("application/x-ole-storage", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0"),
    ("application/vnd.ms-cab-compressed", b"MSCF\0\0\0\0"),
    ("application/vnd.debian.binary-package", b"!<arch>\ndebian-binary"),
    ("application/x-ms-shortcut", b"L\0\0\0\1\x14\2\0\0"),
    # the rest
    ("text/plain", b"plain words \x1b[0m\xe4"),
    ("text/plain", b"\xff\xfep\0l\0"),
    ("application/octet-stream", b"words \x00 and more"),
    ("application/octet-stream", b"\x01"),
]


@pytest.mark.parametrize(("expected", "data"), SAMPLES)
def test_first_bytes_tell_the_type_whatever_is_declared(expected: str, data: bytes):
    assert sniff(data, "") == expected
    assert sniff(data, "image/svg") == expected


@pytest.mark.parametrize(
    ("declared", "data", "expected"),
    [
        ("application/json", b'{"a": 1}', "application/json"),
        ("text/css", b"a { b: c }", "text/css"),
        ("text/html", b"just words", "text/html"),
        ("application/json", b"MZ\x90\0", "application/x-msdownload"),
        ("text/plain", b"\x7fELF\2", "application/x-elf"),
        ("text/plain", b"<html>", "text/html"),
        ("text/plain", b"\0\1\2", "application/octet-stream"),
        ("image/svg+xml", b"<?xml version='1.0'?><svg/>", "image/svg+xml"),
        ("text/html", b"<?xml version='1.0'?><html/>", "text/xml"),
        ("application/epub+zip", zipped(), "application/epub+zip"),
        ("image/png", zipped(), "application/zip"),
        ("application/x-msi", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "application/x-msi"),
        ("video/mp4", b"words", "text/plain"),
    ],
)
def test_the_declared_type_only_refines(declared: str, data: bytes, expected: str):
    assert sniff(data, declared) == expected


def test_nothing_tells_nothing():
    assert sniff(b"", "text/html") is None


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=20))
def test_only_the_first_bytes_count(begin: bytes, rest: bytes):
    head = begin.ljust(SNIFF_BYTES, b" ")
    assert sniff(head + rest, "") == sniff(head, "")


@given(st.binary(max_size=64), st.sampled_from(["", "text/html", "application/zip", "a/b+xml"]))
def test_hostile_bytes_never_raise(data: bytes, declared: str):
    assert (sniff(data, declared) is None) == (data == b"")
