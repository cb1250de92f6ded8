r"""Read a regular expression: the subset of RE2's syntax whose matches are bounded.

Literals, `.` (any octet), classes with ranges and negation, \d \w \s \D \W \S, [:alpha:] and
its kin, \xHH (one octet), \n \t \r \f \v \a, \b and \B, groups (numbered, named, (?:...)),
(?i) and (?i:...), alternation, and the quantifiers ? {n} {n,m} with their lazy forms. What is
accepted means what RE2 makes of it over Latin-1 with dot_nl (github.com/google/re2/wiki/Syntax),
where a character beyond ASCII stands for its UTF-8 octets as if they were grouped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxy.patterns import tree
from proxy.patterns.errors import PatternError
from proxy.patterns.octets import ALL, CONTROLS, LOWER, PERL, POSIX, UPPER, mask_of
from proxy.patterns.text import sequences, variants

REPEAT_LIMIT = 1000  #: RE2's kMaxRepeat, for one quantifier and for nested ones together
DEPTH_LIMIT = 100  #: brackets within brackets
RANGE_LIMIT = 4096  #: characters of one non-ASCII range that case is ignored in

_COUNT = re.compile(r"\{([0-9]{1,9})(?:(,)([0-9]{1,9})?)?\}", re.ASCII)
_HEX = re.compile(r"x([0-9a-fA-F]{2})")
_POSIX_CLASS = re.compile(r"\[:(\^?)(\w+):\]", re.ASCII)
_NAMED = re.compile(r"\(\?P?<(\w+)>", re.ASCII)
_FLAGS = re.compile(r"\(\?([a-zA-Z-]*)([:)])")

_BOUND_HINT = "give an upper bound such as {0,64}"
_ANCHOR_HINT = "a stream has no lines to anchor at; name the text around it, or use \\b"


def parse(text: str) -> tree.Node:
    """The tree of a regular expression. Raises PatternError."""
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over the characters; `_at` is the place of the next one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._fold = False
        self._names: set[str] = set()

    def parse(self) -> tree.Node:
        node = self._alternation()
        if self._at < len(self._text):
            raise PatternError("a closing bracket ) has no opening one", r"write \) for itself")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise PatternError("the pattern ends too early")
        self._at += 1
        return char

    def _took(self, expected: re.Pattern[str]) -> re.Match[str] | None:
        found = expected.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    # --- structure

    def _alternation(self) -> tree.Node:
        choices = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            choices.append(self._sequence())
        return choices[0] if len(choices) == 1 else tree.Alt(tuple(choices))

    def _sequence(self) -> tree.Node:
        parts: list[tree.Node] = []
        while self._peek() not in ("", "|", ")"):
            atom = self._atom()
            if atom is not None:
                parts.append(self._quantified(atom))
        return parts[0] if len(parts) == 1 else tree.Seq(tuple(parts))

    def _quantified(self, atom: tree.Node) -> tree.Node:
        counts = self._counts()
        if counts is None:
            return atom
        if isinstance(atom, tree.Boundary):
            raise PatternError("a word boundary cannot be repeated")
        lazy = self._peek() == "?"
        self._at += lazy
        if self._peek() == "?" or self._counts() is not None:
            raise PatternError("a quantifier follows another one", "put brackets between: (?:x?)?")
        return tree.Repeat(atom, *counts, lazy=lazy)

    def _counts(self) -> tuple[int, int] | None:
        char = self._peek()
        if char in ("*", "+"):
            raise PatternError(f"{char} has no upper bound", _BOUND_HINT)
        if char == "?":
            self._at += 1
            return 0, 1
        if char != "{":
            return None
        found = self._took(_COUNT)
        if found is None:
            raise PatternError("{ does not begin {n} or {n,m}", r"write \{ for the character")
        low, comma, high = found[1], found[2], found[3]
        if comma and high is None:
            raise PatternError(f"{found[0]} has no upper bound", _BOUND_HINT)
        return _checked(int(low), int(high) if comma else int(low), found[0])

    # --- atoms

    def _atom(self) -> tree.Node | None:
        """The next one; None for what only sets flags."""
        char = self._take()
        match char:
            case "(":
                self._at -= 1
                return self._group()
            case "[":
                return self._class()
            case ".":
                return tree.Octets(ALL)
            case "\\":
                return self._escape()
            case "^" | "$":
                raise PatternError(f"{char} anchors, and a stream has no lines", _ANCHOR_HINT)
            case "*" | "+" | "?":
                raise PatternError(f"there is nothing for {char} to repeat", f"write \\{char}")
            case "{":
                raise PatternError("there is nothing for { to repeat", r"write \{")
        return self._character(char)

    def _character(self, char: str) -> tree.Node:
        return any_of(variants(char) if self._fold else (char,))

    def _group(self) -> tree.Node | None:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise PatternError(f"brackets are nested deeper than {DEPTH_LIMIT}")
        fold = self._fold
        captures, only_flags = self._opening()
        if only_flags:
            self._depth -= 1
            return None
        node = self._alternation()
        if self._peek() != ")":
            raise PatternError("an opening bracket ( is not closed", r"write \( for itself")
        self._at += 1
        self._depth -= 1
        self._fold = fold
        return tree.Group(node) if captures else node

    def _opening(self) -> tuple[bool, bool]:
        """Whether the group captures, and whether it only sets flags."""
        if not self._text.startswith("(?", self._at):
            self._at += 1
            return True, False
        named = self._took(_NAMED)
        if named:
            if named[1] in self._names:
                raise PatternError(f"two groups are named {named[1]}")
            self._names.add(named[1])
            return True, False
        flags = self._took(_FLAGS)
        if flags is None or flags[0] == "(?)":
            hint = "a stream cannot be looked at around a match; match the surroundings, too"
            raise PatternError("(?= (?! (?<= and the like are not possible", hint)
        self._set_flags(flags[1])
        return False, flags[2] == ")"

    def _set_flags(self, flags: str) -> None:
        on, minus, off = flags.partition("-")
        if not set(on) <= set("is") or not set(off) <= {"i"} or (minus and not off):
            raise PatternError(f"the flags (?{flags}) are not known", "only i (ignore case)")
        if "i" in on:
            self._fold = True
        if "i" in off:
            self._fold = False

    def _escape(self) -> tree.Node:
        char = self._peek()
        if char in PERL and char:
            self._at += 1
            return tree.Octets(PERL[char])
        if char in ("b", "B"):
            self._at += 1
            return tree.Boundary(negated=char == "B")
        mask = 1 << self._escaped_octet()
        return tree.Octets(self._folded(mask))

    def _escaped_octet(self) -> int:
        """What follows a backslash and stands for one octet."""
        octet = self._took(_HEX)
        if octet:
            return int(octet[1], 16)
        char = self._take()
        if char in CONTROLS:
            return CONTROLS[char]
        if char.isascii() and not char.isalnum():
            return ord(char)
        raise _bad_escape(char)

    # --- classes

    def _class(self) -> tree.Node:
        negated = self._peek() == "^"
        self._at += negated
        mask, wide = 0, []
        first = True
        while first or self._peek() != "]":
            first = False
            octets, chars = self._class_item()
            mask |= octets
            if chars is not None:
                wide.append(chars)
        self._at += 1
        if self._fold:
            mask = self._folded(mask)
        if negated:
            return _negated(mask, bool(wide))
        return self._joined(mask, wide)

    def _class_item(self) -> tuple[int, tuple[int, int] | None]:
        """A mask of octets, and code points beyond ASCII, first and last."""
        posix = self._took(_POSIX_CLASS)
        if posix:
            mask = POSIX.get(posix[2])
            if mask is None:
                raise PatternError(f"[:{posix[2]}:] is not known")
            return (ALL & ~mask if posix[1] else mask), None
        if self._peek() == "\\" and self._text[self._at + 1 : self._at + 2] in PERL:
            self._at += 2
            return PERL[self._text[self._at - 1]], None
        low, low_octet = self._endpoint()
        high, high_octet = low, low_octet
        if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            high, high_octet = self._endpoint()
        if low > high:
            raise PatternError(f"a range in [...] runs backwards: {chr(low)}-{chr(high)}")
        if max(low, high) < 0x80 or (low_octet and high_octet) or _joins(low, high_octet, high):
            return mask_of(range(low, high + 1)), None
        if (low_octet and low >= 0x80) or high_octet:
            raise PatternError("a range in [...] runs from an octet \\xHH to a character")
        ascii_part = mask_of(range(low, 0x80)) if low < 0x80 else 0
        return ascii_part, (max(low, 0x80), high)

    def _endpoint(self) -> tuple[int, bool]:
        """A code point, or an octet (True)."""
        char = self._take()
        if char == "\\":
            return self._escaped_octet(), True
        return ord(char), False

    def _joined(self, mask: int, wide: list[tuple[int, int]]) -> tree.Node:
        choices: list[tree.Node] = [tree.Octets(mask)] if mask else []
        for first, last in wide:
            choices += self._characters(first, last)
        return choices[0] if len(choices) == 1 else tree.Alt(tuple(choices))

    def _characters(self, first: int, last: int) -> list[tree.Node]:
        if not self._fold:
            return [_spans(spans) for spans in sequences(first, last)]
        if last - first >= RANGE_LIMIT:
            raise PatternError("a range of characters is too wide to ignore case in it")
        chars: set[str] = set()
        for code in range(first, last + 1):
            if not 0xD800 <= code <= 0xDFFF:
                chars |= variants(chr(code))
        return [any_of(chars)]

    def _folded(self, mask: int) -> int:
        """The octets of both cases. Above ASCII that would be a guess at a charset."""
        if not self._fold:
            return mask
        low, high = mask & mask_of(range(0x80)), mask >> 0x80 << 0x80
        if high not in (0, ALL >> 0x80 << 0x80):
            hint = "turn (?i) off for it: (?-i:\\xHH)"
            raise PatternError("octets above \\x7f have no upper and lower case", hint)
        return low | high | (low & UPPER) << 32 | (low & LOWER) >> 32


def any_of(chars: Iterable[str]) -> tree.Node:
    """One of these characters; those of one octet become one set."""
    mask, choices = 0, []
    for char in sorted(chars):
        data = encoded(char)
        if len(data) == 1:
            mask |= 1 << data[0]
        else:
            choices.append(tree.text(data))
    if mask:
        choices.insert(0, tree.Octets(mask))
    return choices[0] if len(choices) == 1 else tree.Alt(tuple(choices))


def encoded(text: str) -> bytes:
    """UTF-8. Raises PatternError for what has none."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise PatternError("a lone surrogate is not a character") from None


def _spans(spans: tuple[tuple[int, int], ...]) -> tree.Node:
    return tree.Seq(tuple(tree.Octets(mask_of(range(first, last + 1))) for first, last in spans))


def _joins(low: int, high_octet: bool, high: int) -> bool:
    """`[a-\\xff]`: from an ASCII character on, an octet goes on as an octet."""
    return high_octet and low < 0x80


def _negated(mask: int, wide: bool) -> tree.Node:
    if wide:
        hint = "[^...] is one octet; name ASCII characters, or octets as \\xHH"
        raise PatternError("a negated class cannot hold characters beyond ASCII", hint)
    if not ALL & ~mask:
        raise PatternError("a negated class matches nothing")
    return tree.Octets(ALL & ~mask)


def _checked(low: int, high: int, shown: str) -> tuple[int, int]:
    if high > REPEAT_LIMIT:
        raise PatternError(f"{shown} repeats too often", f"at most {REPEAT_LIMIT} times")
    if high == 0:
        raise PatternError(f"{shown} repeats nothing", "leave it out")
    if low > high:
        raise PatternError(f"{shown} ends before it begins")
    return low, high


def _bad_escape(char: str) -> PatternError:
    if char in "123456789":
        return PatternError(f"\\{char} refers back to a group, which RE2 cannot do")
    if char in "AzZ":
        return PatternError(f"\\{char} anchors, and a stream has no text to begin", _ANCHOR_HINT)
    if char in "pPX":
        hint = "name the characters: [ä-ü], or octets: [\\x80-\\xff]"
        return PatternError(f"\\{char} (classes of Unicode) is not possible on octets", hint)
    if char == "x":
        hint = "two hex digits are one octet: \\xe9; a character is written as itself"
        return PatternError("\\x is not followed by two hex digits", hint)
    return PatternError(f"\\{char} is not known", f"for the character itself write {char}")


def limits_of(node: tree.Node, product: int = 1) -> None:
    """Refuse nested quantifiers that RE2 would not expand. Raises PatternError."""
    match node:
        case tree.Repeat(part, _, high):
            product *= high
            if product > REPEAT_LIMIT:
                message = f"nested quantifiers repeat more than {REPEAT_LIMIT} times together"
                raise PatternError(message, "lower their upper bounds")
            limits_of(part, product)
        case tree.Seq(parts) | tree.Alt(parts):
            for part in parts:
                limits_of(part, product)
        case tree.Group(part):
            limits_of(part, product)
