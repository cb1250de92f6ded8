"""Content codings of whole bodies, for what a test gives and for what it sees (RFC 9110 8.4).

Apart from the proxy's own streaming coders on purpose: a test must not share their mistakes.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterable

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class NotDecodable(Exception):
    """What was to be decoded is not of that coding, or of none that is known."""


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _inflate(data: bytes) -> bytes:
    """RFC 1950, and the raw RFC 1951 that some call deflate."""
    try:
        return zlib.decompress(data)
    except zlib.error:
        return zlib.decompress(data, -zlib.MAX_WBITS)


_CODERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (_gzip, gzip.decompress),
    "x-gzip": (_gzip, gzip.decompress),
    "deflate": (zlib.compress, _inflate),
    "br": (brotli.compress, brotli.decompress),
    "zstd": (zstd.compress, zstd.decompress),
}


def encode(data: bytes, codings: Iterable[str]) -> bytes:
    """The data in these codings, the first applied first."""
    for coding in codings:
        data = _CODERS[coding][0](data)
    return data


def decode(data: bytes, codings: Iterable[str]) -> bytes:
    """Undo `encode`. Raises NotDecodable."""
    for coding in reversed([name for name in codings if name != "identity"]):
        if coding not in _CODERS:
            raise NotDecodable(f"unknown coding {coding}")
        try:
            data = _CODERS[coding][1](data)
        except (OSError, EOFError, zlib.error, brotli.error, zstd.ZstdError) as error:
            raise NotDecodable(f"not {coding}: {error}") from None
    return data
