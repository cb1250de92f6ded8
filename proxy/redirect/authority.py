"""host:port as an explicit client writes it (RFC 3986 3.2, RFC 9112 3.2.3): strict, pure."""

from __future__ import annotations

import ipaddress
import re

from proxy.model import Endpoint, normalise_ip

# An IPv6 address in brackets (no zone, no IPvFuture), or a name or IPv4 address; then perhaps
# a colon and a port.
_AUTHORITY = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._\-]+))(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_\-]*[a-z0-9_])?")
_MAX_NAME = 253  # RFC 1035 2.3.4, as text without the final dot
_MAX_LABEL = 63
# The last label of a name is never a number (RFC 1123 2.1): resolvers would read 0x7f.1 or
# 2130706433 as an IPv4 address that no policy has seen written that way.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def parse_authority(text: bytes, default_port: int | None) -> Endpoint:
    """The endpoint; `default_port` None: a port must be there (CONNECT).

    Names come back in lower case without a final dot, addresses normalised. Raises ValueError
    with a message that holds nothing of `text`.
    """
    if b"@" in text:
        raise ValueError("user information in front of the host is refused")  # RFC 9110 4.2.4
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise ValueError("the target is not host:port (for IPv6: [address]:port)")
    literal, name, port = found.groups()
    host = _literal(literal) if literal is not None else _name(name.decode("ascii").lower())
    return Endpoint(host, _port(port, default_port))


def _port(text: bytes | None, default: int | None) -> int:
    # RFC 3986 3.2.3: an empty port after the colon is the scheme's default.
    if text:
        if 1 <= int(text) <= 65535:
            return int(text)
        raise ValueError("the port is not within 1-65535")
    if default is None:
        raise ValueError("the target needs a port: host:port")
    return default


def _literal(text: bytes) -> str:
    try:
        return normalise_ip(str(ipaddress.IPv6Address(text.decode("ascii"))))
    except ValueError:
        raise ValueError("the address in brackets is not an IPv6 address") from None


def _name(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass  # not dotted decimal: a name, then
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > _MAX_NAME or any(len(label) > _MAX_LABEL for label in labels):
        raise ValueError("the host name is too long")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host is not a name")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("the host is not a name and not an IPv4 address in dotted decimal")
    return host
