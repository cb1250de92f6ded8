"""Characters as the octets that stand for them: UTF-8 sequences, ranges, upper and lower case.

Patterns look at octets. A character beyond ASCII is its UTF-8 sequence (RFC 3629); a range of
characters is a choice between sequences of octet ranges, as any byte-wise regex engine makes
it. ASCII letters fold to ASCII letters only, other characters to others by simple case folding
(Unicode CaseFolding.txt, statuses C and S): K is not the Kelvin sign.
"""

from __future__ import annotations

from collections.abc import Iterator

Span = tuple[int, int]  #: first and last of a range, both included

_LAST_OF_LENGTH = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)
_SURROGATES = (0xD800, 0xDFFF)

#: Characters that fold together although str.upper and str.lower do not lead to each other.
_ORBITS = (
    "ÅåÅ", "ßẞ", "µΜμ", "ͅΙιι", "Ββϐ", "Εεϵ", "Θθϑϴ", "Κκϰ", "Ππϖ", "Ρρϱ", "Σςσ", "Φφϕ", "ΩωΩ",
    "Ввᲀ", "Ддᲁ", "Ооᲂ", "Ссᲃ", "Ттᲄᲅ", "Ъъᲆ", "Ѣѣᲇ", "ᲈꙊꙋ", "Ṡṡẛ",
)  # fmt: skip
_ORBIT = {char: frozenset(orbit) for orbit in _ORBITS for char in orbit}


def variants(char: str) -> frozenset[str]:
    """The characters that equal this one where case is ignored, itself among them."""
    if char.isascii():
        return frozenset((char.lower(), char.upper()))
    found = {char} | _ORBIT.get(char, frozenset())
    for near in (char.lower(), char.upper(), char.title()):
        if len(near) == 1 and not near.isascii():
            found |= {near} | _ORBIT.get(near, frozenset())
            found |= {again for again in (near.lower(), near.upper()) if len(again) == 1}
    return frozenset(other for other in found if not other.isascii())


def sequences(first: int, last: int) -> Iterator[tuple[Span, ...]]:
    """The UTF-8 of all code points first..last: each item is a span of octets per position."""
    low = first
    for end in _LAST_OF_LENGTH:
        if low > last:
            return
        if low <= end:
            yield from _around_surrogates(low, min(last, end))
            low = min(last, end) + 1


def _around_surrogates(first: int, last: int) -> Iterator[tuple[Span, ...]]:
    """RFC 3629 3: D800..DFFF have no UTF-8."""
    begin, end = _SURROGATES
    if first > end or last < begin:
        yield from _same_length(first, last)
        return
    if first < begin:
        yield from _same_length(first, begin - 1)
    if last > end:
        yield from _same_length(end + 1, last)


def _same_length(first: int, last: int) -> Iterator[tuple[Span, ...]]:
    """Cut where a trailing octet would not run through its whole range."""
    for trailing in range(1, len(chr(first).encode())):
        mask = (1 << 6 * trailing) - 1
        if first & ~mask == last & ~mask:
            continue
        if first & mask:
            yield from _same_length(first, first | mask)
            yield from _same_length((first | mask) + 1, last)
            return
        if last & mask != mask:
            yield from _same_length(first, (last & ~mask) - 1)
            yield from _same_length(last & ~mask, last)
            return
    yield tuple(zip(chr(first).encode(), chr(last).encode(), strict=True))
