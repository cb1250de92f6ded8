"""The literal values of conditions and lists: what each kind of field accepts.

Each function returns the value as the compiler takes it, or raises `Unfit` with what was
expected. Texts of lists go through the same checks (`proxy.policy.listfiles`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from proxy.patterns import PatternError, literal
from proxy.policy.fields import FieldSpec, Kind
from proxy.policy.globs import is_glob
from proxy.policy.scalars import Scalar, kind_of
from proxy.policy.suggest import hint

MAX_TEXT = 8192
#: Numbers that a field can have; a value outside would never match.
RANGES = {
    "dst.port": (0, 65535),
    "original.port": (0, 65535),
    "client.port": (0, 65535),
    "ip_version": (4, 6),
    "status": (100, 599),
}
_LARGEST = 2**63 - 1


class Unfit(ValueError):
    """A value that does not fit: `args[0]` says what was expected, `hint` how to write it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


Value = str | int | bool | tuple[int, int]


def read_value(name: str, spec: FieldSpec, value: Scalar, source: str) -> Value:
    """One value of the field `name`; `source` is how the file spells it. Raises Unfit."""
    if value is None:
        raise Unfit("no value", "write one, a list, or {exists: true}")
    match spec.kind:
        case Kind.NUMBER:
            return _number(name, value)
        case Kind.IP:
            return read_network(source)
        case Kind.DOMAIN:
            return read_host_pattern(source)
        case Kind.ENUM:
            return _enum(source, spec.values)
        case Kind.TIME:
            return _time(source)
        case Kind.TEXT | Kind.TEXT_CI | Kind.PATH:
            return read_text(source)
        case Kind.BOOL:
            return _truth(name, value)
        case Kind.CONTENT:
            return _content(source)
        case Kind.HASH:
            return _sha256(source)


# --- numbers -------------------------------------------------------------------------------

_RANGE = re.compile(r"\s*([0-9]{1,18})\s*-\s*([0-9]{1,18})\s*")


def _number(name: str, value: Scalar) -> int | tuple[int, int]:
    if isinstance(value, str):
        return _range(name, value)
    return read_bound(name, value)


def read_bound(name: str, value: Scalar) -> int:
    """A whole number that the field can have."""
    low, high = RANGES.get(name, (0, _LARGEST))
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"{kind_of(value)} as {name}, expected a whole number")
    if not low <= value <= high:
        raise Unfit(f"{value} as {name}, expected {low} to {high}")
    return value


def _range(name: str, text: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text)
    if found is None:
        advice = f"{text[0]}00-{text[0]}99" if re.fullmatch("[1-5][xX]{2}", text) else ""
        raise Unfit(
            f"{kind_of(text)} as {name}, expected a whole number or a range as 8000-8080",
            f"write {advice}" if advice and name == "status" else "",
        )
    low, high = read_bound(name, int(found[1])), read_bound(name, int(found[2]))
    if low > high:
        raise Unfit(f"range {low}-{high} is empty", f"write {high}-{low}")
    return low, high


def _truth(name: str, value: Scalar) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"{kind_of(value)} as {name}, expected true or false")
    return value


# --- addresses and names -------------------------------------------------------------------


_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}(?:/(3[0-2]|[12]?[0-9]))?")


def read_network(text: str) -> str:
    """Canonical text of an address or CIDR block; host bits must be zero."""
    quick = _IPV4.fullmatch(text)  # `ipaddress` takes five times as long
    if quick is not None and _no_host_bits(quick):
        return text
    text = text.strip()
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise _not_a_network(text) from None
    return str(network) if "/" in text else str(network.network_address)


def _not_a_network(text: str) -> Unfit:
    try:
        block = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return Unfit(
            f"{kind_of(text)} is not an address or CIDR block",
            "as 10.20.0.0/16, 192.0.2.7 or 2001:db8::/32",
        )
    return Unfit(f"{text!r} has bits set beyond its prefix", f"the block is {block}")


def _no_host_bits(found: re.Match[str]) -> bool:
    a, b, c, d, prefix = found.groups()
    if prefix is None:
        return True
    number = int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
    return not number & (0xFFFFFFFF >> int(prefix))


_LABELS = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
    r"(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_HOST_GLOB = re.compile(r"[a-z0-9_*?-]+(?:\.[a-z0-9_*?-]+)*")


def read_domain(text: str) -> str:
    """A name or `*.name`, lower-case, without a final dot; also an IPv6 address."""
    name = text.lower().removesuffix(".")
    if _LABELS.fullmatch(name):
        return name
    if ":" in name and (address := _ipv6(name)) is not None:
        return address
    raise _not_a_host(text)


def read_host_pattern(text: str) -> str:
    """As read_domain, and globs."""
    name = text.lower().removesuffix(".")
    if is_glob(name.removeprefix("*.")) and len(name) <= 253 and _HOST_GLOB.fullmatch(name):
        return name
    return read_domain(text)


def _ipv6(text: str) -> str | None:
    try:
        return str(ipaddress.IPv6Address(text.strip("[]")))
    except ValueError:
        return None


def _not_a_host(text: str) -> Unfit:
    return Unfit(f"{kind_of(text)} is not a host name", _host_hint(text))


def _host_hint(text: str) -> str:
    if "://" in text or "/" in text:
        host = text.partition("://")[2] or text
        return f"a host alone: {re.split('[/?#]', host)[0]}"
    name, colon, port = text.rpartition(":")
    if colon and port.isdigit():
        return f"a host has no port: write host: {name} and dst.port: {port}"
    if not text.isascii():
        try:
            return f"write its ASCII form: {text.encode('idna').decode('ascii')}"
        except UnicodeError:
            return "write its ASCII form, xn--…"
    return "as example.com, *.example.com or api-?.example.com"


# --- texts ---------------------------------------------------------------------------------

_CLOCK = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]"
_TIME = re.compile(rf"({_CLOCK})\s*-\s*({_CLOCK}|24:00)")


def _time(text: str) -> str:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise Unfit(f"{kind_of(text)} is not a span of time", "as 22:00-06:00, local time")
    return f"{found[1]:0>5}-{found[2]:0>5}"


def _enum(text: str, values: tuple[str, ...]) -> str:
    if text.lower() not in values:
        raise Unfit(f"{kind_of(text)} is not one of its values", hint(text, values))
    return text.lower()


def read_text(text: str) -> str:
    """Any text that fits a line of the wire."""
    if not text:
        raise Unfit("an empty text", "to ask for absence write {exists: false}")
    if len(text) > MAX_TEXT:
        raise Unfit(f"a text of {len(text)} characters", f"at most {MAX_TEXT}")
    if any(char in text for char in "\r\n\0"):
        raise Unfit("a text with a line end or NUL", "no value of the wire holds one")
    return text


def _content(text: str) -> str:
    """A text to be found in content, line ends and all."""
    if not text:
        raise Unfit("an empty text", "it would be found in everything")
    if len(text) > MAX_TEXT:
        raise Unfit(f"a text of {len(text)} characters", f"at most {MAX_TEXT}")
    try:
        literal(text)
    except PatternError as error:
        raise Unfit(str(error), error.hint) from None
    return text


_DIGESTS = {32: "MD5", 40: "SHA-1", 64: "SHA-256", 96: "SHA-384", 128: "SHA-512"}
_SHA256 = 64
_HEX = re.compile("[0-9a-f]+")


def read_hash(text: str) -> str:
    """A digest in hexadecimal, lower-case."""
    digest = text.lower()
    if len(digest) not in _DIGESTS or not _HEX.fullmatch(digest):
        raise Unfit(f"{kind_of(text)} is not a digest", "hexadecimal MD5, SHA-1, SHA-256 …")
    return digest


def _sha256(text: str) -> str:
    digest = read_hash(text)
    if len(digest) != _SHA256:
        raise Unfit(f"a digest of {_DIGESTS[len(digest)]}", "SHA-256 has 64 digits")
    return digest


READ_ENTRY: dict[str, Callable[[str], str]] = {
    "domain": read_domain,
    "cidr": read_network,
    "string": read_text,
    "hash": read_hash,
}
