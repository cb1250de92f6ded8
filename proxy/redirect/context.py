"""The redirect context, layout v1: what our redirectors tell of a connection, the same bytes on
Linux and Windows. Pure.

The layout is published as deploy/redirector/redirect_context.h; a test compares the two.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass

from proxy.errors import RedirectError
from proxy.model import Endpoint, normalise_ip

MAGIC = 0x31434753  #: "SGC1"
VERSION = 1
MAX_SIZE = 4096  #: a context is never longer
UID_UNKNOWN = 0xFFFFFFFF
PROTOCOL_TCP = 6

#: Little-endian but for the two ports, which stay bytes in network order; no padding.
FIXED = struct.Struct("<IHHBBHI16s16s2s2sIQQQHHI")
_ADDRESS_BYTES = {4: 4, 6: 16}


class ContextFlag(enum.IntFlag):
    """`flags` of the layout."""

    UTF16 = 1  #: application is UTF-16LE
    FULL_PATH = 2  #: application is a full path, not a short name
    SOURCE_KNOWN = 4
    REDIRECTED = 8  #: somebody else had redirected the connection before


@dataclass(frozen=True, slots=True)
class RedirectContext:
    """One context. None and "" mean: the redirector could not tell."""

    original: Endpoint
    source: Endpoint | None
    pid: int
    process_start: int  #: Linux: nanoseconds since boot; Windows: FILETIME; 0 unknown
    uid: int | None
    sid: bytes  #: binary SID; empty on Linux
    group_id: int  #: Linux: cgroup v2 id; Windows: logon id
    space: int  #: Linux: cookie of the network namespace; Windows: compartment id
    application: str
    flags: ContextFlag


def decode_context(data: bytes) -> RedirectContext:
    """A context of layout v1; bytes beyond its own size are ignored. Raises RedirectError."""
    if len(data) < FIXED.size:
        raise _wrong(f"{len(data)} bytes are fewer than the {FIXED.size} of layout v{VERSION}")
    (
        magic, version, size, family, protocol, flags, pid, original, source, original_port,
        source_port, uid, start, group, space, sid_size, application_size, _reserved,
    ) = FIXED.unpack_from(data)  # fmt: skip
    _check_head(magic, version, family, protocol)
    _check_sizes(size, len(data), sid_size, application_size)
    known = ContextFlag(flags & 0xF)
    sid_end = FIXED.size + sid_size
    has_source = ContextFlag.SOURCE_KNOWN in known
    return RedirectContext(
        original=_endpoint(family, original, original_port),
        source=_endpoint(family, source, source_port) if has_source else None,
        pid=pid,
        process_start=start,
        uid=None if uid == UID_UNKNOWN else uid,
        sid=data[FIXED.size : sid_end],
        group_id=group,
        space=space,
        application=_text(data[sid_end : sid_end + application_size], known),
        flags=known,
    )


def _check_head(magic: int, version: int, family: int, protocol: int) -> None:
    if magic != MAGIC:
        raise _wrong(f"it begins with {magic:#010x}, not with {MAGIC:#010x}")
    if version != VERSION:
        raise _wrong(f"it has layout v{version}; this proxy knows v{VERSION}")
    if family not in _ADDRESS_BYTES:
        raise _wrong(f"family {family} is neither 4 nor 6")
    if protocol != PROTOCOL_TCP:
        raise _wrong(f"protocol {protocol} is not TCP ({PROTOCOL_TCP})")


def _check_sizes(size: int, got: int, sid_size: int, application_size: int) -> None:
    if size > MAX_SIZE:
        raise _wrong(f"its size of {size} bytes is more than {MAX_SIZE}")
    if size > got:
        raise _wrong(f"its size is {size} bytes, but only {got} arrived")
    if FIXED.size + sid_size + application_size != size:
        raise _wrong(
            f"its parts ({FIXED.size} fixed, {sid_size} of SID, {application_size} of "
            f"application) do not add up to its size of {size} bytes"
        )


def _endpoint(family: int, address: bytes, port: bytes) -> Endpoint:
    ip = ipaddress.ip_address(address[: _ADDRESS_BYTES[family]])
    return Endpoint(normalise_ip(str(ip)), int.from_bytes(port, "big"))


def _text(raw: bytes, flags: ContextFlag) -> str:
    """A name or path; what does not decode is kept visible, for a rule must not miss it."""
    if ContextFlag.UTF16 in flags:
        return raw.decode("utf-16-le", "replace")
    return raw.decode("utf-8", "backslashreplace")


def _wrong(what: str) -> RedirectError:
    return RedirectError(f"redirect context: {what}")
