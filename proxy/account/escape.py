"""Text from the wire made safe to write: printable, one line, bounded, and reversible.

What an attacker may choose (a Host, a User-Agent, a server name, a program's path) ends up in
terminals and in log viewers. Controls, invisible and bidirectional format characters, lone
surrogates and the backslash itself are written as backslash escapes, so that two different
inputs never look alike and no terminal sequence survives.
"""

from __future__ import annotations

ELLIPSIS = "…"


def printable(value: bytes | str, limit: int = 1024) -> str:
    """`value` as printable text of at most `limit` characters of input (then an ellipsis).

    Bytes are read as UTF-8. A byte that is not UTF-8 becomes `\\xNN` with NN >= 80, a control
    `\\xNN` below, any other unprintable character `\\uNNNN` or `\\UNNNNNNNN`.
    """
    cut = len(value) > limit
    if isinstance(value, bytes):
        # A cut in the middle of a character shows as escaped bytes before the ellipsis.
        text = value[:limit].decode("utf-8", "surrogateescape")
    else:
        text = value[:limit]
    if not text.isprintable() or "\\" in text:
        text = "".join(map(_escaped, text))
    return text + ELLIPSIS if cut else text


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: one byte that was not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
