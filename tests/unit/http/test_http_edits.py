"""Edits of heads: what each does, and what none may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.callouts.http.edits import PROTECTED, edit_headers, rewrite_url
from proxy.callouts.http.parse import parse_request
from proxy.callouts.http.writer import make_field, write_fields, write_request
from proxy.heads import RequestHead
from proxy.policy import ast


def head(*fields: tuple[bytes, bytes], target: bytes = b"/a?b=c") -> RequestHead:
    made = tuple(make_field(name, value) for name, value in fields)
    return RequestHead(b"1.1", made, method=b"GET", target=target)


def edited(edit: ast.Headers, *fields: tuple[bytes, bytes]) -> bytes:
    return write_fields(edit_headers(head(*fields), edit).fields)


def test_remove_by_name_and_by_prefix_whatever_the_case():
    fields = [(b"X-One", b"1"), (b"x-two", b"2"), (b"Server", b"s"), (b"Y", b"y")]
    assert edited(ast.Headers(remove=("x-*", "SERVER")), *fields) == b"Y: y\r\n"


def test_set_takes_the_first_ones_place_and_the_others_go():
    fields = [(b"A", b"1"), (b"x-b", b"2"), (b"C", b"3"), (b"X-B", b"4")]
    assert edited(ast.Headers(set=(("X-B", "new"),)), *fields) == b"A: 1\r\nx-b: new\r\nC: 3\r\n"


def test_set_adds_what_is_not_there_and_add_adds_always():
    edit = ast.Headers(set=(("N", "1"),), add=(("A", "2"),))
    assert edited(edit, (b"A", b"1")) == b"A: 1\r\nN: 1\r\nA: 2\r\n"


def test_rename_keeps_place_and_value():
    fields = [(b"old", b"1"), (b"B", b"2")]
    assert edited(ast.Headers(rename=(("Old", "New"),)), *fields) == b"New: 1\r\nB: 2\r\n"


def test_replace_by_regex_with_groups():
    change = ast.HeaderReplace("Cookie", r"(sid)=[^;]+", r"\1=gone")
    out = edited(ast.Headers(replace=(change,)), (b"cookie", b"a=b; sid=secret; c=d"))
    assert out == b"cookie: a=b; sid=gone; c=d\r\n"


@pytest.mark.parametrize("by", [r"\9", r"\g<none>", "\\"])
def test_a_rewrite_that_cannot_be_done_changes_nothing(by: str):
    edit = ast.Headers(replace=(ast.HeaderReplace("A", "(b)", by),))
    assert edited(edit, (b"A", b"abc")) == b"A: abc\r\n"


def test_a_regex_sees_octets():
    edit = ast.Headers(replace=(ast.HeaderReplace("A", "ü", "u"),))
    assert edited(edit, (b"A", b"\xff\xc3\xbc")) == b"A: \xffu\r\n"


def test_the_order_is_remove_rename_replace_set_add():
    edit = ast.Headers(
        remove=("A",),
        rename=(("B", "A"),),
        replace=(ast.HeaderReplace("A", "b", "x"),),
        set=(("C", "set"),),
        add=(("A", "added"),),
    )
    assert edited(edit, (b"A", b"a"), (b"B", b"b")) == b"A: x\r\nC: set\r\nA: added\r\n"


@pytest.mark.parametrize("name", sorted(PROTECTED))
def test_framing_and_hop_by_hop_fields_are_out_of_reach(name: bytes):
    text = name.decode()
    edit = ast.Headers(
        remove=(text, "*"),
        rename=((text, "X"), ("Y", text)),
        replace=(ast.HeaderReplace(text, ".*", "x"),),
        set=((text, "x"),),
        add=((text, "x"),),
    )
    assert edited(edit, (name, b"kept")) == name + b": kept\r\n"


def test_host_may_change_but_not_go():
    edit = ast.Headers(remove=("Host", "*"), set=(("Host", "b.test"),))
    assert edited(edit, (b"Host", b"a.test")) == b"Host: b.test\r\n"


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_edit_can_write_a_line_end(value: str, by: str):
    """A policy's text becomes one value, whatever it holds."""
    edit = ast.Headers(set=(("X-Set", value),), add=(("X-Add", by),))
    raw = write_request(edit_headers(head((b"Host", b"a"), (b"X-Set", b"1")), edit))
    parsed = parse_request(raw, 100)
    assert parsed.findings == ()
    assert parsed.head is not None
    assert [field.key for field in parsed.head.fields] == [b"host", b"x-set", b"x-add"]


@pytest.mark.parametrize(
    ("edit", "target"),
    [
        (ast.RewriteUrl(path="/x"), b"/x?b=c"),
        (ast.RewriteUrl(query=""), b"/a"),
        (ast.RewriteUrl(path="x", query="y"), b"/x?y"),
        (ast.RewriteUrl(regex="b=(.)", by=r"\1\1"), b"/a?cc"),
        (ast.RewriteUrl(regex="zzz", by="q"), b"/a?b=c"),
        (ast.RewriteUrl(path="/a b\r\nX: #ü"), b"/a%20b%0D%0AX:%20%23%C3%BC?b=c"),
    ],
)
def test_url_rewriting(edit: ast.RewriteUrl, target: bytes):
    assert rewrite_url(head(), edit).target == target


def test_an_absolute_form_keeps_its_authority():
    old = RequestHead(
        b"1.1", (), method=b"GET", target=b"http://a.test:81/x?y", authority=b"a.test:81"
    )
    assert rewrite_url(old, ast.RewriteUrl(path="/z")).target == b"http://a.test:81/z?y"


def test_asterisk_form_is_left_alone():
    assert rewrite_url(head(target=b"*"), ast.RewriteUrl(path="/z")).target == b"*"
