"""Sets with fast membership: domains, CIDR blocks, texts.

Built once per generation, immutable afterwards. 100,000 entries cost a fraction of a second
to build and about a microsecond to ask.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from proxy.model import IPAddress
from proxy.policy import ast


def domain(text: str) -> str:
    """A domain as it is compared: lower-case octets, no trailing dot. IDNA is left as given."""
    return octets(text).lower().rstrip(".")


def octets(text: str) -> str:
    """Text as an octet string: each character is one octet of its UTF-8 form.

    Wire values are octet strings already (decoded by latin-1); this brings text from policy
    files and from the system to the same form.
    """
    if text.isascii():
        return text
    try:
        raw = text.encode("utf-8", "surrogateescape")  # undoes os.fsdecode
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogatepass")  # half a UTF-16 pair, as in NT paths
    return raw.decode("latin-1")


def fold(text: str) -> str:
    """An octet string without case, ASCII only, as the wire compares header values."""
    return octets(text).encode("latin-1").lower().decode("latin-1")


class Ancestors:
    """The names above a domain that may be keys, nearest first, bounded by the longest key.

    A host of 60,000 one-letter labels must not cost 60,000 slices of it, so names longer than
    every key are skipped by their length.
    """

    __slots__ = ("_longest",)

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def of(self, name: str) -> list[str]:
        at = name.find(".", max(0, len(name) - self._longest - 1))
        names = []
        while at >= 0:
            names.append(name[at + 1 :])
            at = name.find(".", at + 1)
        return names


class DomainSet:
    """Entries match themselves and their subdomains, `*.x` the subdomains of x only.

    With `exact` a plain entry matches itself alone.
    """

    __slots__ = ("_above", "_ancestors", "_below", "_names")

    def __init__(self, entries: Iterable[str], *, exact: bool = False) -> None:
        names, below = set(), set()
        for entry in map(domain, entries):
            if entry.startswith("*."):
                below.add(entry[2:])
            else:
                names.add(entry)
        self._names = frozenset(names)
        self._above = frozenset(below if exact else names | below)
        self._ancestors = Ancestors(max(map(len, self._above), default=0))

    def __contains__(self, name: str) -> bool:
        """`name` as `domain` makes it."""
        if name in self._names:
            return True
        above = self._above
        return bool(above) and any(parent in above for parent in self._ancestors.of(name))


class CidrSet:
    """Addresses and blocks, merged into disjoint ranges that are searched by bisection.

    Raises ValueError for an entry that is not an address or CIDR block.
    """

    __slots__ = ("_ranges",)

    def __init__(self, entries: Iterable[object]) -> None:
        spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for entry in entries:
            version, first, last = _span(str(entry))
            spans[version].append((first, last))
        self._ranges = {version: _merged(found) for version, found in spans.items()}

    def __contains__(self, address: IPAddress) -> bool:
        firsts, lasts = self._ranges[address.version]
        number = int(address)
        at = bisect_right(firsts, number) - 1
        return at >= 0 and number <= lasts[at]


_MAPPED = 0xFFFF << 32  # ::ffff:0:0/96, RFC 4291 2.5.5.2


def _span(entry: str) -> tuple[int, int, int]:
    """Version, first and last address; IPv4-mapped blocks become IPv4, as addresses do."""
    network = ipaddress.ip_network(entry, strict=False)
    first = int(network.network_address)
    last = int(network.broadcast_address)
    if network.version == 6 and first >> 32 == 0xFFFF:
        return 4, first - _MAPPED, last - _MAPPED
    return network.version, first, last


def _merged(spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    firsts: list[int] = []
    lasts: list[int] = []
    for first, last in sorted(spans):
        if lasts and first <= lasts[-1] + 1:
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts


@lru_cache(maxsize=4096)
def parse_address(text: str) -> IPAddress | None:
    """The address that the text is, or None. Cached: flows meet the same ones again."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class ListBook:
    """The lists of one policy file. Members are built on first use, once for all tests."""

    def __init__(self, definitions: Iterable[ast.ListDef]) -> None:
        self._definitions = {definition.name: definition for definition in definitions}
        self._built: dict[tuple[str, bool], Callable[[Any], bool]] = {}

    def entries(self, name: str) -> tuple[str, ...]:
        """What the list holds, as written."""
        return self._definitions[name].values

    def type_of(self, name: str) -> ast.ListType:
        """Raises ValueError for a name that no list has."""
        if name not in self._definitions:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise ValueError(f"there is no list named {name!r} (this file has: {known})")
        return self._definitions[name].type

    def check(self, name: str, *, folded: bool = False) -> Callable[[Any], bool]:
        """Whether a value is in the list; `folded` for fields that compare without case."""
        key = (name, folded)
        if key not in self._built:
            self._built[key] = _build(self._definitions[name], folded)
        return self._built[key]


def _build(definition: ast.ListDef, folded: bool) -> Callable[[Any], bool]:
    match definition.type:
        case ast.ListType.DOMAIN:
            return DomainSet(definition.values).__contains__
        case ast.ListType.CIDR:
            return CidrSet(definition.values).__contains__
        case ast.ListType.STRING:
            return frozenset(map(fold if folded else octets, definition.values)).__contains__
        case ast.ListType.HASH:
            return frozenset(map(fold, definition.values)).__contains__
