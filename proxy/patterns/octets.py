"""Sets of octets as masks of 256 bits, and the ones that have a name in RE2's syntax."""

from __future__ import annotations

from collections.abc import Iterable

ALL = (1 << 256) - 1


def mask_of(octets: Iterable[int]) -> int:
    """A bit for each."""
    mask = 0
    for octet in octets:
        mask |= 1 << octet
    return mask


DIGITS = mask_of(range(0x30, 0x3A))
UPPER = mask_of(range(0x41, 0x5B))
LOWER = mask_of(range(0x61, 0x7B))
WORD = DIGITS | UPPER | LOWER | mask_of(b"_")
SPACE = mask_of(b"\t\n\f\r ")  # RE2's \s: without \v
PERL = {
    "d": DIGITS,
    "w": WORD,
    "s": SPACE,
    "D": ALL & ~DIGITS,
    "W": ALL & ~WORD,
    "S": ALL & ~SPACE,
}
POSIX = {
    "alnum": DIGITS | UPPER | LOWER,
    "alpha": UPPER | LOWER,
    "ascii": mask_of(range(0x80)),
    "blank": mask_of(b"\t "),
    "cntrl": mask_of([*range(0x20), 0x7F]),
    "digit": DIGITS,
    "graph": mask_of(range(0x21, 0x7F)),
    "lower": LOWER,
    "print": mask_of(range(0x20, 0x7F)),
    "punct": mask_of(range(0x21, 0x7F)) & ~(DIGITS | UPPER | LOWER),
    "space": SPACE | mask_of(b"\v"),
    "upper": UPPER,
    "word": WORD,
    "xdigit": DIGITS | mask_of(b"abcdefABCDEF"),
}
CONTROLS = {"n": 0x0A, "t": 0x09, "r": 0x0D, "f": 0x0C, "v": 0x0B, "a": 0x07}
