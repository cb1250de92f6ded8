"""The tree of a pattern over octets: how long its matches are, its RE2 text, its live prefixes.

A *live prefix* is a proper prefix of something that the pattern matches. Where the bytes that
are here end in one, a match may still come about with what follows; where they do not, all
that matches is already known. For P(x), the proper prefixes of x's words:

    P(octet) = empty        P(x|y) = P(x) | P(y)
    P(xy) = P(x) | x P(y)   P(x{n,m}) = x{0,m-1} P(x)

Sequences are halved and not nested from the left, for RE2 bounds the depth of a regex: size
n log n, depth log n. A word boundary at the end of the bytes cannot be told yet, so there it
counts as live, too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Octets:
    """One octet out of a set, as a mask of 256 bits; never empty."""

    mask: int


@dataclass(frozen=True, slots=True)
class Boundary:
    r"""\b, or \B if `negated`: looks at one octet on either side."""

    negated: bool = False


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; no parts: the empty string."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of these, earlier ones preferred."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    part: Node
    low: int
    high: int  #: at least 1
    lazy: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A capturing group; they are numbered in the order of their opening brackets."""

    part: Node


Node = Octets | Boundary | Seq | Alt | Repeat | Group
EMPTY = Seq(())


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of the shortest and longest match, and `states` of an automaton that finds it."""

    shortest: int
    longest: int
    states: int
    groups: int = 0
    boundary: bool = False


def one(octet: int) -> Octets:
    return Octets(1 << octet)


def text(data: bytes) -> Node:
    """These octets in a row."""
    return one(data[0]) if len(data) == 1 else Seq(tuple(map(one, data)))


def measure(node: Node) -> Size:
    match node:
        case Octets():
            return Size(1, 1, 1)
        case Boundary():
            return Size(0, 0, 1, boundary=True)
        case Group(part):
            size = measure(part)
            return Size(size.shortest, size.longest, size.states, size.groups + 1, size.boundary)
        case Repeat(part, low, high):
            size = measure(part)
            return Size(
                size.shortest * low,
                size.longest * high,
                size.states * high + 1,
                size.groups,
                size.boundary,
            )
        case Seq(parts):
            return _sum([measure(part) for part in parts])
        case Alt(parts):
            sizes = [measure(part) for part in parts]
            total = _sum(sizes)
            shortest = min(size.shortest for size in sizes)
            longest = max(size.longest for size in sizes)
            return Size(shortest, longest, total.states + 1, total.groups, total.boundary)


def _sum(sizes: list[Size]) -> Size:
    return Size(
        sum(size.shortest for size in sizes),
        sum(size.longest for size in sizes),
        sum(size.states for size in sizes),
        sum(size.groups for size in sizes),
        any(size.boundary for size in sizes),
    )


def render(node: Node, *, capture: bool) -> str:
    """RE2 text (ASCII) of the same meaning; with `capture` its groups capture."""
    match node:
        case Octets(mask):
            return _octets(mask)
        case Boundary(negated):
            return r"\B" if negated else r"\b"
        case Group(part):
            return f"({'' if capture else '?:'}{render(part, capture=capture)})"
        case Repeat(part, low, high, lazy):
            count = "?" if (low, high) == (0, 1) else f"{{{low},{high}}}"
            return f"{_atom(part, capture)}{count}{'?' if lazy else ''}"
        case Seq(parts):
            return "".join(
                _atom(part, capture) if isinstance(part, Alt) else render(part, capture=capture)
                for part in parts
            )
        case Alt(parts):
            return "|".join(render(part, capture=capture) for part in parts)


def live_prefix(node: Node) -> Node | None:
    """P(node); None where there is none, as of the empty string."""
    match node:
        case Octets() | Boundary():
            return EMPTY
        case Group(part):
            return live_prefix(part)
        case Repeat(part, _, high):
            inner = live_prefix(part)
            if inner is None or high == 1:
                return inner
            return Seq((Repeat(part, 0, high - 1), inner))
        case Seq(parts):
            return _live_sequence(parts)
        case Alt(parts):
            return _either([live_prefix(part) for part in parts])


def _live_sequence(parts: tuple[Node, ...]) -> Node | None:
    if len(parts) <= 1:
        return live_prefix(parts[0]) if parts else None
    half = len(parts) // 2
    head, tail = parts[:half], _live_sequence(parts[half:])
    later = None if tail is None else Seq((*head, tail))
    return _either([_live_sequence(head), later])


def _either(choices: list[Node | None]) -> Node | None:
    parts = [choice for choice in choices if choice is not None]
    if len(parts) <= 1:
        return parts[0] if parts else None
    return Alt(tuple(parts))


def _atom(node: Node, capture: bool) -> str:
    inner = render(node, capture=capture)
    return inner if isinstance(node, Octets | Group) else f"(?:{inner})"


def _octets(mask: int) -> str:
    spans = list(spans_of(mask))
    if len(spans) == 1 and spans[0][0] == spans[0][1]:
        return _octet(spans[0][0])
    inner = "".join(
        _octet(first) if first == last else f"{_octet(first)}-{_octet(last)}"
        for first, last in spans
    )
    return f"[{inner}]"


def _octet(octet: int) -> str:
    char = chr(octet)
    return char if octet < 0x80 and char.isalnum() else f"\\x{octet:02x}"


def spans_of(mask: int) -> list[tuple[int, int]]:
    """The runs of set bits, first and last."""
    spans = []
    at = 0
    while mask >> at:
        first = at + (((mask >> at) & -(mask >> at)).bit_length() - 1)
        run = mask >> first
        last = first + ((~run & (run + 1)).bit_length() - 2)
        spans.append((first, last))
        at = last + 1
    return spans
