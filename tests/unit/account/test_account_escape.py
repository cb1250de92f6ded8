"""Text from the wire is printable, bounded and reversible."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.account.escape import ELLIPSIS, printable


@pytest.mark.parametrize(
    ("wire", "written"),
    [
        (b"curl/8.5", "curl/8.5"),
        ("grüße.test".encode(), "grüße.test"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"a\r\nb\x00", "a\\x0d\\x0ab\\x00"),
        (b"back\\slash", "back\\\\slash"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_what_is_written(wire: bytes | str, written: str) -> None:
    assert printable(wire) == written


@given(st.binary(max_size=80) | st.text(max_size=80))
def test_output_is_one_printable_line_that_json_can_carry(wire: bytes | str) -> None:
    text = printable(wire)
    assert text.isprintable()
    text.encode("utf-8")


@given(st.binary(max_size=80))
def test_two_different_inputs_never_look_alike(wire: bytes) -> None:
    assert _unescape(printable(wire)) == wire


@given(st.binary(min_size=11, max_size=80))
def test_text_is_cut_with_a_mark(wire: bytes) -> None:
    assert printable(wire, 10).endswith(ELLIPSIS)
    assert len(printable(wire, 10)) <= 10 * 4 + 1


def _unescape(text: str) -> bytes:
    def back(match: re.Match[str]) -> str:
        body = match[1]
        if body == "\\":
            return body
        code = int(body[1:], 16)
        return chr(code + 0xDC00 if body[0] == "x" and code >= 0x80 else code)

    plain = re.sub(r"\\(\\|x..|u....|U........)", back, text)
    return plain.encode("utf-8", "surrogateescape")
