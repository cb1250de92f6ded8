"""What a body is by its first bytes, whatever its header says.

Signatures and order of mimesniff.spec.whatwg.org (6: patterns; 7.1: unknown types, without the
scriptable flag's exceptions), and beyond it the programs that a policy wants to know. At most
the first 1445 bytes count: the specification's resource header.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SNIFF_BYTES = 1445

_SPACES = b"\t\n\x0c\r "
# 3: binary data bytes.
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
# 7.1 step 1: each is followed by a tag-terminating byte, a blank or >.
_HTML = re.compile(
    rb"(?i)<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)"
    rb"[ >]|<!--"
)
_XML_TEXT = re.compile(r"(?:text|application)/xml|.+\+xml")
_TEXT_LIKE = re.compile(
    r"text/.+|.+\+(?:json|xml|yaml)"
    r"|application/(?:json|xml|javascript|ecmascript|x-javascript|x-www-form-urlencoded"
    r"|x-ndjson|yaml|toml|sql|graphql|rtf|xml-dtd|pem-certificate-chain)"
)
# Containers: what is in them is not at a fixed place, so the declared type may be finer.
_ZIP_BASED = re.compile(
    r"application/(?:vnd\.openxmlformats-officedocument\..+|vnd\.oasis\.opendocument\..+"
    r"|vnd\.ms-(?:excel|word|powerpoint)\..+\.macroenabled\.12|epub\+zip|java-archive"
    r"|vnd\.android\.package-archive|x-xpinstall)"
)
_OLE_BASED = re.compile(
    r"application/(?:msword|vnd\.ms-(?:excel|powerpoint|outlook|project)|vnd\.visio|x-msi)"
)


class _Signature(NamedTuple):
    """`rest` must be found at `at` once `start` has been found at 0."""

    start: bytes
    type: str
    at: int = 0
    rest: bytes = b""


_SIGNATURES = (
    # documents
    _Signature(b"%PDF-", "application/pdf"),
    _Signature(b"%!PS-Adobe-", "application/postscript"),
    _Signature(b"{\\rtf", "text/rtf"),
    # images (6.1)
    _Signature(b"\x00\x00\x01\x00", "image/x-icon"),
    _Signature(b"\x00\x00\x02\x00", "image/x-icon"),
    _Signature(b"BM", "image/bmp", 6, b"\x00\x00\x00\x00"),
    _Signature(b"GIF87a", "image/gif"),
    _Signature(b"GIF89a", "image/gif"),
    _Signature(b"RIFF", "image/webp", 8, b"WEBPVP"),
    _Signature(b"\x89PNG\r\n\x1a\n", "image/png"),
    _Signature(b"\xff\xd8\xff", "image/jpeg"),
    _Signature(b"II*\x00", "image/tiff"),
    _Signature(b"MM\x00*", "image/tiff"),
    # audio and video (6.2)
    _Signature(b"FORM", "audio/aiff", 8, b"AIFF"),
    _Signature(b"ID3", "audio/mpeg"),
    _Signature(b"OggS\x00", "application/ogg"),
    _Signature(b"MThd\x00\x00\x00\x06", "audio/midi"),
    _Signature(b"RIFF", "video/avi", 8, b"AVI "),
    _Signature(b"RIFF", "audio/wave", 8, b"WAVE"),
    _Signature(b"fLaC", "audio/flac"),
    # fonts (6.3)
    _Signature(b"\x00\x01\x00\x00", "font/ttf"),
    _Signature(b"OTTO", "font/otf"),
    _Signature(b"ttcf", "font/collection"),
    _Signature(b"wOFF", "font/woff"),
    _Signature(b"wOF2", "font/woff2"),
    # archives (6.4) and what came after them
    _Signature(b"\x1f\x8b\x08", "application/gzip"),
    _Signature(b"PK\x03\x04", "application/zip"),
    _Signature(b"PK\x05\x06", "application/zip"),
    _Signature(b"Rar!\x1a\x07", "application/x-rar-compressed"),
    _Signature(b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    _Signature(b"BZh", "application/x-bzip2", 4, b"1AY&SY"),
    _Signature(b"\xfd7zXZ\x00", "application/x-xz"),
    _Signature(b"\x28\xb5\x2f\xfd", "application/zstd"),
    _Signature(b"MSCF\x00\x00\x00\x00", "application/vnd.ms-cab-compressed"),
    _Signature(b"!<arch>\ndebian", "application/vnd.debian.binary-package"),
    _Signature(b"\xed\xab\xee\xdb", "application/x-rpm"),
    # programs
    _Signature(b"\x7fELF", "application/x-elf"),
    _Signature(b"\xfe\xed\xfa\xce", "application/x-mach-binary"),
    _Signature(b"\xfe\xed\xfa\xcf", "application/x-mach-binary"),
    _Signature(b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    _Signature(b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    _Signature(b"\x00asm\x01\x00\x00\x00", "application/wasm"),
    _Signature(b"dex\n03", "application/vnd.android.dex"),
    _Signature(b"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_FAT_OR_CLASS = b"\xca\xfe\xba\xbe"
_UNICODE_MARKS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")


def sniff(data: bytes, declared: str) -> str | None:
    """Media type of a body that begins with `data`; None: there is nothing to go by.

    `declared` is the type in the header, lower-case and without parameters; '' if absent. It
    only refines: a textual type, or a format kept in a zip or OLE container, that the bytes do
    not contradict, is returned as declared.
    """
    head = bytes(data[:SNIFF_BYTES])
    if not head:
        return None
    return _markup(head, declared) or _binary(head, declared) or _text(head, declared)


def _markup(head: bytes, declared: str) -> str | None:
    """HTML and XML, behind white space and a byte order mark."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACES)
    if begin.startswith(b"<?xml"):
        return declared if _XML_TEXT.fullmatch(declared) else "text/xml"
    return "text/html" if _HTML.match(begin) else None


def _binary(head: bytes, declared: str) -> str | None:
    for signature in _SIGNATURES:
        if head.startswith(signature.start) and head.startswith(signature.rest, signature.at):
            if signature.type == "application/zip" and _ZIP_BASED.fullmatch(declared):
                return declared
            return signature.type
    if head.startswith(b"MZ") and _BINARY.search(head):
        return "application/x-msdownload"  # two letters alone may begin a word
    if head.startswith(b"#!"):
        return "text/x-shellscript"
    if head.startswith(_OLE):
        return declared if _OLE_BASED.fullmatch(declared) else "application/x-ole-storage"
    if head.startswith(_FAT_OR_CLASS):
        return _fat_or_class(head)
    return _iso_media(head) or _other_media(head)


def _fat_or_class(head: bytes) -> str | None:
    """CAFEBABE: of a universal Mach-O the number of programs follows, of Java its version."""
    following = int.from_bytes(head[4:8], "big")
    return "application/x-mach-binary" if 0 < following < 40 else "application/java-vm"


def _iso_media(head: bytes) -> str | None:
    """6.2.1, the signature for MP4, with the brands of still images and QuickTime."""
    size = int.from_bytes(head[:4], "big")
    if len(head) < 12 or head[4:8] != b"ftyp" or size < 12 or size % 4:
        return None
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(size, len(head) - 3), 4))]
    for prefix, media in ((b"avi", "image/avif"), (b"hei", "image/heic"), (b"mp4", "video/mp4")):
        if any(brand.startswith(prefix) for brand in brands):
            return media
    return "video/quicktime" if brands[0] == b"qt  " else "video/mp4"


def _other_media(head: bytes) -> str | None:
    """6.2.2 and 6.2.3: WebM (or Matroska), and MP3 without ID3 by two frames in a row."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    first = _mp3_frame(head, 0)
    return "audio/mpeg" if first and _mp3_frame(head, first) else None


_MP3_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),  # MPEG 1, layer III
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),  # MPEG 2 and 2.5
)
_MP3_SAMPLES = (44100, 48000, 32000, 0)


def _mp3_frame(head: bytes, at: int) -> int | None:
    """Where the layer III frame at `at` ends; None: there is none."""
    frame = head[at : at + 4]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2 or frame[1] & 0x18 == 0x08:
        return None
    version = frame[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate = _MP3_RATES[version != 3][frame[2] >> 4] * 1000
    samples = _MP3_SAMPLES[frame[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    if not rate or not samples:
        return None
    return at + (144 if version == 3 else 72) * rate // samples + (frame[2] >> 1 & 1)


def _text(head: bytes, declared: str) -> str:
    """7.2: text, unless some byte cannot be in it."""
    if not head.startswith(_UNICODE_MARKS) and _BINARY.search(head):
        return "application/octet-stream"
    return declared if _TEXT_LIKE.fullmatch(declared) else "text/plain"
