"""Redirect contexts of other people's drivers, and of any driver by a description. Pure.

A driver's context has the driver's own layout. Ours has a decoder of its own; the others are
described field by field, and settings may describe one more (`redirect.context_fields`):

    family=u16le@0  original_port=u16le@4  original_ipv4=ipv4@8  original_ipv6=ipv6@12

Each is NAME=TYPE@OFFSET. What a driver does not tell is unknown in the result.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.errors import RedirectError
from proxy.model import Endpoint, normalise_ip
from proxy.redirect.context import ContextFlag, RedirectContext, decode_context
from proxy.redirect.original_dst import SOCKADDR_IN, SOCKADDR_IN6

#: Where the bytes end that a field may reach.
MAX_BYTES = 4096
# A family's number: ours, Windows' (ws2def.h) and Linux' alike.
_FAMILIES = {4: 4, 2: 4, 6: 6, 23: 6, 10: 6}
_NUMBERS = {
    "u8": 1, "u16le": 2, "u16be": 2, "u32le": 4, "u32be": 4, "u64le": 8, "u64be": 8,
}  # fmt: skip
_SIZES = {"ipv4": 4, "ipv6": 16, "sockaddr": SOCKADDR_IN6.size}
_FIELD = re.compile(
    r"(?P<name>[a-z0-9_]+)=(?P<type>u8|(?:u16|u32|u64)(?:le|be)|ipv4|ipv6|sockaddr|utf16\((\d+)\))"
    r"@(?P<offset>\d+)"
)

Value = int | str | Endpoint
_Values = dict[str, Value | None]


class Group(enum.Enum):
    """What a field of that name holds."""

    NUMBER = "u8, u16le, u16be, u32le … u64be"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    SOCKADDR = "sockaddr"
    TEXT = "utf16(BYTES)"


#: Every name a field may have.
FIELD_NAMES = {
    "family": Group.NUMBER,
    "original": Group.SOCKADDR,
    "original_ipv4": Group.IPV4,
    "original_ipv6": Group.IPV6,
    "original_port": Group.NUMBER,
    "source": Group.SOCKADDR,
    "pid": Group.NUMBER,
    "process_start": Group.NUMBER,
    "logon_id": Group.NUMBER,
    "application": Group.TEXT,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One value at a fixed place."""

    name: str
    type: str
    offset: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Field:
        """From NAME=TYPE@OFFSET. Raises RedirectError with what was expected."""
        found = _FIELD.fullmatch(text)
        if found is None:
            raise RedirectError(
                f"{text!r} is not NAME=TYPE@OFFSET, such as original_port=u16be@4; types: "
                "u8, u16le, u16be, u32le, u32be, u64le, u64be, ipv4, ipv6, sockaddr, utf16(BYTES)"
            )
        name, kind, offset = found["name"], found["type"], int(found["offset"])
        size = int(found[3]) if found[3] else (_SIZES | _NUMBERS)[kind]
        if name not in FIELD_NAMES:
            raise RedirectError(f"{text!r}: the names are {', '.join(FIELD_NAMES)}")
        if _group(kind) is not FIELD_NAMES[name]:
            raise RedirectError(f"{text!r}: {name} has type {FIELD_NAMES[name].value}")
        if offset + size > MAX_BYTES:
            raise RedirectError(f"{text!r}: a context has {MAX_BYTES} bytes at most")
        return cls(name, kind, offset, size)

    def read(self, data: bytes) -> Value | None:
        """Its value; None for a socket address of an unknown family."""
        raw = data[self.offset : self.offset + self.size]
        match _group(self.type):
            case Group.NUMBER:
                return int.from_bytes(raw, "big" if self.type.endswith("be") else "little")
            case Group.TEXT:
                return raw.decode("utf-16-le", "replace").partition("\0")[0]
            case Group.SOCKADDR:
                return socket_address(raw)
            case _:
                return normalise_ip(str(ipaddress.ip_address(raw)))


def _group(kind: str) -> Group:
    if kind.startswith("utf16"):
        return Group.TEXT
    return Group(kind) if kind in _SIZES else Group.NUMBER


@dataclass(frozen=True, slots=True)
class Layout:
    """Fields of one driver's context. Checked when it is made: it must give a destination."""

    fields: tuple[Field, ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Layout:
        """From texts of NAME=TYPE@OFFSET. Raises RedirectError."""
        layout = cls(tuple(map(Field.parse, texts)))
        names = [field.name for field in layout.fields]
        for name in names:
            if names.count(name) > 1:
                raise RedirectError(f"{name} is there twice")
        layout._check_destination(set(names))
        return layout

    @property
    def size(self) -> int:
        """How many bytes a context must have at least."""
        return max(
            # A sockaddr_in is shorter than the sockaddr_in6 for which there is room.
            field.offset + (SOCKADDR_IN.size if field.type == "sockaddr" else field.size)
            for field in self.fields
        )

    def decode(self, data: bytes) -> RedirectContext:
        """A context. Raises RedirectError with what is wrong."""
        if len(data) < self.size:
            raise _wrong(f"{len(data)} bytes are fewer than the {self.size} of this layout")
        values = {field.name: field.read(data) for field in self.fields}
        source = values.get("source")  # that of a socket which was not bound yet says nothing
        application = str(values.get("application", ""))
        flags = ContextFlag.UTF16
        if "\\" in application:
            flags |= ContextFlag.FULL_PATH
        return RedirectContext(
            original=_original(values),
            source=source if isinstance(source, Endpoint) and source.port else None,
            pid=_number(values, "pid"),
            process_start=_number(values, "process_start"),
            uid=None,
            sid=b"",
            group_id=_number(values, "logon_id"),
            space=0,
            application=application,
            flags=flags,
        )

    def _check_destination(self, names: set[str]) -> None:
        addresses = names & {"original_ipv4", "original_ipv6"}
        if "original" in names:
            if addresses or "original_port" in names:
                raise RedirectError("original is address and port already")
        elif not addresses or "original_port" not in names:
            raise RedirectError(
                "the destination is missing: give original, or original_port and "
                "original_ipv4 or original_ipv6"
            )
        elif len(addresses) == 2 and "family" not in names:
            raise RedirectError("give family too: it says which of the two addresses counts")


def _original(values: _Values) -> Endpoint:
    if "original" in values:
        whole = values["original"]
        if not isinstance(whole, Endpoint):
            raise _wrong("the original address in it is neither IPv4 nor IPv6")
        return Endpoint(whole.host, _port(whole.port))
    address = "original_ipv4" if "original_ipv4" in values else "original_ipv6"
    if "family" in values:
        address = f"original_ipv{_FAMILIES.get(_number(values, 'family'))}"
        if address not in values:
            raise _wrong(f"family {values['family']} is none that this layout has an address for")
    return Endpoint(str(values[address]), _port(_number(values, "original_port")))


def _number(values: _Values, name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) else 0


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise _wrong(f"{number} is not a port")
    return number


def socket_address(raw: bytes) -> Endpoint | None:
    """A sockaddr_in or sockaddr_in6 of any system, whichever its family says; else None."""
    family = _FAMILIES.get(int.from_bytes(raw[:2], "little"))
    if family == 4 and len(raw) >= SOCKADDR_IN.size:
        _, port, address = SOCKADDR_IN.unpack_from(raw)
    elif family == 6 and len(raw) >= SOCKADDR_IN6.size:
        _, port, address = SOCKADDR_IN6.unpack_from(raw)
    else:
        return None
    host = normalise_ip(str(ipaddress.ip_address(address)))
    return Endpoint(host, int.from_bytes(port, "big"))


def _wrong(what: str) -> RedirectError:
    return RedirectError(f"redirect context: {what}")


Decoder = Callable[[bytes], RedirectContext]

# Microsoft's sample driver WFPSampler: SOCKADDR_STORAGE[2], the original remote address and the
# original local one, 128 bytes each (ClassifyFunctions_ProxyCallouts.cpp).
_WFPSAMPLER = Layout.parse(["original=sockaddr@0", "source=sockaddr@128"])
# Azure Guest Proxy Agent: five 32-bit numbers; address and port as they are on the wire.
_GUEST_PROXY_AGENT = Layout.parse(
    ["logon_id=u32le@0", "pid=u32le@4", "original_ipv4=ipv4@12", "original_port=u16be@16"]
)
# … and with a 64-bit logon id before it was shared with its Linux program.
_GUEST_PROXY_AGENT_OLD = Layout.parse(
    ["logon_id=u64le@0", "pid=u32le@8", "original_ipv4=ipv4@16", "original_port=u16be@20"]
)
# ProxyBridge's driver: the port in host order, the addresses as on the wire.
_PROXY_BRIDGE = Layout.parse(
    [
        "family=u16le@0",
        "original_port=u16le@4",
        "original_ipv4=ipv4@8",
        "original_ipv6=ipv6@12",
        "pid=u32le@28",
    ]
)


def _guest_proxy_agent(data: bytes) -> RedirectContext:
    """By its size, 20 or 24 bytes: it carries no version."""
    layouts = {20: _GUEST_PROXY_AGENT, 24: _GUEST_PROXY_AGENT_OLD}
    if len(data) not in layouts:
        raise _wrong(f"{len(data)} bytes; Guest Proxy Agent writes 20, or 24 in old versions")
    return layouts[len(data)].decode(data)


_DECODERS: dict[str, Decoder] = {
    "sluicegate": decode_context,
    "wfpsampler": _WFPSAMPLER.decode,
    "guest-proxy-agent": _guest_proxy_agent,
    "proxybridge": _PROXY_BRIDGE.decode,
}
CUSTOM = "custom"
LAYOUT_NAMES = (*_DECODERS, CUSTOM)


def decoder(name: str, fields: Iterable[str] = ()) -> Decoder:
    """The decoder of a layout by its name; `custom`: of these fields. Raises RedirectError."""
    described = tuple(fields)
    if name == CUSTOM:
        if not described:
            raise RedirectError("the layout custom needs its fields")
        return Layout.parse(described).decode
    if name not in _DECODERS:
        raise RedirectError(f"{name!r} is not one of {', '.join(LAYOUT_NAMES)}")
    if described:
        raise RedirectError(f"fields belong to the layout {CUSTOM}, not to {name}")
    return _DECODERS[name]
