"""CRC32c, the Castagnoli polynomial, reflected (RFC 3720 12.1, RFC 4960 appendix B). Pure."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_row, range(256)))


def crc32c(data: bytes) -> int:
    """The checksum of `data`: a few thousand bytes at most, there is no hurry here."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
