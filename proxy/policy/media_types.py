"""The media type of a file by its name: one fixed table, the same on every machine.

Registered at iana.org/assignments/media-types; `text/javascript` by RFC 9239.
"""

from __future__ import annotations

PLAIN_TEXT = "text/plain; charset=utf-8"
UNKNOWN = "application/octet-stream"

_TYPES = {
    "7z": "application/x-7z-compressed",
    "aac": "audio/aac",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "br": "application/x-brotli",
    "bz2": "application/x-bzip2",
    "cer": "application/pkix-cert",
    "crl": "application/pkix-crl",
    "crt": "application/x-x509-ca-cert",
    "css": "text/css",
    "csv": "text/csv",
    "deb": "application/vnd.debian.binary-package",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/vnd.microsoft.icon",
    "ics": "text/calendar",
    "jar": "application/java-archive",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "jsonld": "application/ld+json",
    "log": "text/plain",
    "m4a": "audio/mp4",
    "map": "application/json",
    "md": "text/markdown",
    "mjs": "text/javascript",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "otf": "font/otf",
    "pac": "application/x-ns-proxy-autoconfig",
    "pdf": "application/pdf",
    "pem": "application/x-pem-file",
    "png": "image/png",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rpm": "application/x-rpm",
    "rss": "application/rss+xml",
    "sig": "application/pgp-signature",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tgz": "application/gzip",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "ttf": "font/ttf",
    "txt": "text/plain",
    "vtt": "text/vtt",
    "wasm": "application/wasm",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff": "font/woff",
    "woff2": "font/woff2",
    "xhtml": "application/xhtml+xml",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "xz": "application/x-xz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
    "zst": "application/zstd",
}


def media_type(name: str, data: bytes) -> str:
    """The type of a file; text that is UTF-8 says so."""
    suffix = name.rpartition("/")[2].rpartition(".")[2].lower()
    kind = _TYPES.get(suffix, UNKNOWN)
    return with_charset(kind) if kind.startswith("text/") and _is_utf8(data) else kind


def with_charset(content_type: str) -> str:
    """For text that is written in UTF-8: says so, unless another charset is named already."""
    kind, _, parameters = content_type.lower().partition(";")
    if not kind.startswith("text/") or "charset=" in parameters:
        return content_type
    return f"{content_type}; charset=utf-8"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
