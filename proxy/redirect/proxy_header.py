"""PROXY headers, versions 1 (a line) and 2 (binary): a pure, bounded parser.

Follows haproxy's proxy-protocol.txt, section 2. Strict, as it demands: what does not match
exactly ends the connection. The result does not depend on how the bytes were cut.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from proxy.errors import BadPreamble
from proxy.model import Endpoint, normalise_ip
from proxy.redirect.crc32c import crc32c

MAX_LINE = 107  #: version 1 with its CRLF
MAX_BLOCK = 4096  #: version 2 behind the fixed part; 65535 could be said, a TLS name has 255
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = struct.Struct(">12sBBH")
_TLV = struct.Struct(">BH")
_CRC32C = 0x03  # PP2_TYPE_CRC32C

_LINE = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")

_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSES = {_TCP4: struct.Struct(">4s4sHH"), _TCP6: struct.Struct(">16s16sHH")}
# Valid, and not TCP: treated as unspecified. What the addresses of the others take is skipped.
_OTHER = dict.fromkeys((0x00, 0x01, 0x02, 0x10, 0x20, 0x30), 0)
_OTHER |= {0x12: 12, 0x22: 36, 0x31: 216, 0x32: 216}


@dataclass(frozen=True, slots=True)
class Relayed:
    """What a header says, and the bytes behind it. No endpoints: the sender speaks for itself."""

    source: Endpoint | None
    destination: Endpoint | None
    leftover: bytes


class ProxyHeader:
    """feed() until it answers; it raises BadPreamble, and holds 16 + MAX_BLOCK bytes at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Has the peer said nothing at all?"""
        return not self._buffer

    def feed(self, data: bytes) -> Relayed | None:
        """Take more bytes; None: not yet."""
        buffer = self._buffer
        buffer += data
        if not buffer:
            return None
        if _SIGNATURE.startswith(buffer[: len(_SIGNATURE)]):
            return self._feed_block()
        if b"PROXY ".startswith(buffer[:6]):
            return self._feed_line()
        raise BadPreamble("the peer sends no PROXY header")

    def _feed_line(self) -> Relayed | None:
        buffer = self._buffer
        end = buffer.find(b"\n", 0, MAX_LINE)
        if end < 0:
            if len(buffer) >= MAX_LINE:
                raise BadPreamble(f"the PROXY line has no end within {MAX_LINE} bytes")
            return None
        return _parse_line(bytes(buffer[: end + 1]), bytes(buffer[end + 1 :]))

    def _feed_block(self) -> Relayed | None:
        buffer = self._buffer
        if len(buffer) < _FIXED.size:
            _check_versions(buffer)
            return None
        _, command, family, length = _FIXED.unpack_from(buffer)
        _check_versions(buffer)
        if length > MAX_BLOCK:
            raise BadPreamble(f"the PROXY header has {length} bytes (limit {MAX_BLOCK})")
        end = _FIXED.size + length
        if len(buffer) < end:
            return None
        return _parse_block(
            bytes(buffer[:end]), command & 0x0F, family, leftover=bytes(buffer[end:])
        )


def _parse_line(line: bytes, leftover: bytes) -> Relayed:
    if _UNKNOWN.fullmatch(line):
        return Relayed(None, None, leftover)
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadPreamble("the PROXY line is malformed")
    kind, source, destination, *ports = found.groups()
    address = ipaddress.IPv4Address if kind == b"TCP4" else ipaddress.IPv6Address
    try:
        hosts = [str(address(text.decode("ascii"))) for text in (source, destination)]
    except ValueError:
        raise BadPreamble(f"the PROXY line has no {kind.decode()} addresses") from None
    numbers = [int(port) for port in ports]
    if max(numbers) > 65535:
        raise BadPreamble("the PROXY line has no port within 0-65535")
    return _relayed(hosts, numbers, leftover)


def _check_versions(buffer: bytearray) -> None:
    """Refuse at the first wrong byte of version, command and family, however they come."""
    if len(buffer) > 12 and (buffer[12] >> 4 != 2 or buffer[12] & 0x0F not in (_LOCAL, _PROXY)):
        raise BadPreamble("the PROXY header has an unknown version or command")
    if len(buffer) > 13 and buffer[13] not in _ADDRESSES and buffer[13] not in _OTHER:
        raise BadPreamble("the PROXY header has an unknown family or protocol")


def _parse_block(block: bytes, command: int, family: int, leftover: bytes) -> Relayed:
    """A whole header of version 2, its first 16 bytes checked."""
    if command == _LOCAL:  # its family is ignored, and so is what it carries
        return Relayed(None, None, leftover)
    layout = _ADDRESSES.get(family)
    size = layout.size if layout is not None else _OTHER[family]
    if len(block) < _FIXED.size + size:
        raise BadPreamble("the PROXY header is too short for its addresses")
    if family & 0xF0 and family & 0x0F:  # of AF_UNSPEC or UNSPEC nothing is known
        _check_vectors(block, _FIXED.size + size)
    if layout is None:
        return Relayed(None, None, leftover)
    source, destination, *ports = layout.unpack_from(block, _FIXED.size)
    hosts = [str(ipaddress.ip_address(packed)) for packed in (source, destination)]
    return _relayed(hosts, ports, leftover)


def _check_vectors(block: bytes, place: int) -> None:
    """TLVs must fill the rest exactly; of them only the checksum is looked at."""
    while place < len(block):
        if place + _TLV.size > len(block):
            raise BadPreamble("the PROXY header ends inside a TLV")
        kind, length = _TLV.unpack_from(block, place)
        value, place = place + _TLV.size, place + _TLV.size + length
        if place > len(block):
            raise BadPreamble("the PROXY header ends inside a TLV")
        if kind == _CRC32C:
            _check_sum(block, value, length)


def _check_sum(block: bytes, place: int, length: int) -> None:
    # 2.2.3: the checksum of the header with this field zero; the receiver MUST verify.
    said = int.from_bytes(block[place : place + length], "big")
    zeroed = block[:place] + bytes(length) + block[place + length :]
    if length != 4 or crc32c(zeroed) != said:
        raise BadPreamble("the PROXY header's checksum is wrong")


def _relayed(hosts: list[str], ports: list[int], leftover: bytes) -> Relayed:
    source, destination = (
        Endpoint(normalise_ip(host), port) for host, port in zip(hosts, ports, strict=True)
    )
    address = destination.ip
    if destination.port == 0 or address is None or address.is_unspecified or address.is_multicast:
        raise BadPreamble("the PROXY header names no destination that can be dialled")
    return Relayed(source, destination, leftover)
