"""Every field and operator: what matches, what does not, what stays unknown."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import (
    Confidence,
    Direction,
    Endpoint,
    FlowInfo,
    Layer,
    Principal,
    Protocol,
    RedirectInfo,
)
from proxy.policy import ast
from proxy.policy.ast import Compare, Op
from proxy.policy.facts import Facts
from proxy.policy.fields import FIELDS
from proxy.policy.lists import ListBook
from proxy.policy.match import compile_test
from proxy.policy.scope import Scope

MARK = ast.Mark("p.yaml", 1, 1)
NOON = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC, a Tuesday


def fields(*lines: tuple[str, str | bytes]) -> tuple[Field, ...]:
    made = []
    for name, value in lines:
        raw = value if isinstance(value, bytes) else value.encode()
        made.append(Field(name.encode(), name.lower().encode(), raw))
    return tuple(made)


REQUEST = RequestHead(
    b"1.1",
    fields(
        ("Host", "www.Example.com:8080"),
        ("User-Agent", "Curl/8.0"),
        ("Accept", "text/html"),
        ("Accept", "*/*"),
        ("X-Empty", ""),
        ("X-Name", "Jürgen"),
        ("Cookie", 'sid=abc; theme="dark"; flag='),
        ("Cookie", "sid=second; b=x=y"),
        ("Content-Type", "Application/JSON; charset=utf-8"),
        ("Content-Length", "42"),
    ),
    method=b"POST",
    target=b"/a/b%20c.exe?q=1&r=%41",
)
RESPONSE = ResponseHead(
    b"1.1",
    fields(("Content-Type", "text/html"), ("Server", "nginx"), ("Set-Cookie", "a=1")),
    status=404,
)
PRINCIPAL = Principal(
    pid=77, exe="/usr/bin/curl", uid=1000, user="jürgen", confidence=Confidence.EXACT
)
FLOW = FlowInfo(
    "1",
    RedirectInfo(
        "nft", Endpoint("10.20.3.4", 8080), Endpoint("2001:db8::7", 50000), "Up.Test", PRINCIPAL
    ),
    0.0,
    Protocol.TLS,
    "Mail.Example.org",
    ("h2", "http/1.1"),
    ["old"],
)


def value_of(
    field: str,
    compares: dict[Op, Any],
    arg: str | None = None,
    layer: Layer = Layer.HTTP_REQUEST,
    lists: ListBook | None = None,
    **facts: Any,
) -> bool | None:
    test = ast.Test(field, arg, tuple(Compare(op, v) for op, v in compares.items()), MARK)
    predicate = compile_test(test, FIELDS[field], lists or ListBook(()), every=False)
    known: dict[str, Any] = {"flow": FLOW, "wall": NOON, "request": REQUEST, "response": RESPONSE}
    return predicate(Scope(layer, Facts(**known | facts)))


IS = [
    ("dst.ip", None, ("10.20.0.0/16",), True),
    ("dst.ip", None, ("10.20.3.4",), True),
    ("dst.ip", None, ("::ffff:10.20.0.0/112",), True),
    ("dst.ip", None, ("10.21.0.0/16", "2001:db8::/32"), False),
    ("client.ip", None, ("2001:db8::/32",), True),
    ("client.ip", None, ("0.0.0.0/0",), False),
    ("dst.port", None, (25, 8080), True),
    ("dst.port", None, ((8000, 9000), 1), True),
    ("dst.port", None, ((8081, 9000),), False),
    ("client.port", None, (50000,), True),
    ("dst.host", None, ("up.test",), True),
    ("provider", None, ("nft",), True),
    ("principal.pid", None, (77,), True),
    ("principal.exe", None, ("*/curl",), True),
    ("principal.exe", None, ("*/CURL",), False),
    ("principal.uid", None, (0,), False),
    ("principal.user", None, ("jürgen",), True),
    ("principal.cgroup", None, ("/x",), None),
    ("tag", None, ("old",), True),
    ("tag", None, ("new",), False),
    ("direction", None, ("outbound",), True),
    ("protocol", None, ("tls", "ssh"), True),
    ("sni", None, ("*.example.org",), True),
    ("sni", None, ("example.org",), False),
    ("alpn", None, ("h2",), True),
    ("alpn", None, ("h3",), False),
    ("host", None, ("www.example.com",), True),
    ("host", None, ("WWW.EXAMPLE.COM.",), True),
    ("host", None, ("*.example.com",), True),
    ("host", None, ("*.www.example.com",), False),
    ("host", None, ("example.com",), False),
    ("host", None, ("www.*.com",), True),
    ("host", None, ("*",), True),
    ("method", None, ("POST",), True),
    ("method", None, ("post",), False),
    ("path", None, ("/a/*.exe",), True),
    ("path", None, ("/a/b c.exe",), True),
    ("path", None, ("/A/*",), False),
    ("query", None, ("*r=A",), True),
    ("url", None, ("http://www.example.com/a/*",), True),
    ("header", "user-agent", ("curl/*",), True),
    ("header", "USER-AGENT", ("CURL/8.?",), True),
    ("header", "accept", ("*/*",), True),
    ("header", "accept", ("text/html, ?/?",), True),
    ("header", "x-empty", ("",), True),
    ("header", "x-name", ("jürgen",), True),
    ("header", "absent", ("*",), False),
    ("request.header", "user-agent", ("*curl*",), True),
    ("cookie", "sid", ("abc",), True),
    ("cookie", "sid", ("second",), True),
    ("cookie", "theme", ("dark",), True),
    ("cookie", "b", ("x=y",), True),
    ("cookie", "SID", ("*",), False),
    ("content_type", None, ("application/json",), True),
    ("content_length", None, (42,), True),
]


@pytest.mark.parametrize(("field", "arg", "values", "expected"), IS)
def test_is(field: str, arg: str | None, values: tuple[Any, ...], expected: bool | None) -> None:
    assert value_of(field, {Op.IS: values}, arg) is expected


MANY_HOSTS = tuple(f"h{i}.test" for i in range(20)) + tuple(f"*.s{i}.test" for i in range(20))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("www.example.com",), True),
        (("*.example.com",), True),
        (("example.com",), False),
        (("*.www.example.com",), False),
        (("www.*",), True),
        (("ftp.*",), False),
    ],
)
def test_many_names_mean_the_same_as_few(values: tuple[str, ...], expected: bool) -> None:
    assert value_of("host", {Op.IS: values}) is expected
    assert value_of("host", {Op.IS: MANY_HOSTS + values}) is expected


AT_RESPONSE = [
    ("status", None, ((400, 499),), True),
    ("status", None, (200,), False),
    ("direction", None, ("inbound",), True),
    ("header", "server", ("NGINX",), True),
    ("header", "user-agent", ("*",), False),
    ("request.header", "user-agent", ("*",), True),
    ("response.header", "server", ("nginx",), True),
    ("content_type", None, ("text/*",), True),
    ("content_length", None, ((0, 10**9),), False),
    ("host", None, ("www.example.com",), True),
]


@pytest.mark.parametrize(("field", "arg", "values", "expected"), AT_RESPONSE)
def test_is_at_the_response(
    field: str, arg: str | None, values: tuple[Any, ...], expected: bool
) -> None:
    assert value_of(field, {Op.IS: values}, arg, Layer.HTTP_RESPONSE) is expected


OPERATORS = [
    ("content_length", {Op.GT: 41}, True),
    ("content_length", {Op.GT: 42}, False),
    ("content_length", {Op.GE: 42, Op.LT: 43}, True),
    ("content_length", {Op.GE: 42, Op.LT: 42}, False),
    ("content_length", {Op.LE: 41}, False),
    ("path", {Op.REGEX: r"\.exe$"}, True),
    ("path", {Op.REGEX: r"^/A/"}, False),
    ("url", {Op.REGEX: r"example\.com/a/"}, True),
    ("host", {Op.REGEX: r"^WWW\."}, True),
    ("path", {Op.EXISTS: True}, True),
    ("path", {Op.EXISTS: False}, False),
    ("dst.host", {Op.EXISTS: True, Op.IS: ("up.test",)}, True),
    ("dst.host", {Op.EXISTS: False, Op.IS: ("up.test",)}, False),
    ("principal.cgroup", {Op.EXISTS: True}, None),
    ("principal.cgroup", {Op.EXISTS: False}, None),
]


@pytest.mark.parametrize(("field", "compares", "expected"), OPERATORS)
def test_operators(field: str, compares: dict[Op, Any], expected: bool | None) -> None:
    assert value_of(field, compares) is expected


def test_regex_on_a_header_folds_case_and_sees_octets() -> None:
    assert value_of("header", {Op.REGEX: "^CURL"}, "user-agent") is True
    assert value_of("header", {Op.REGEX: "jürg.n"}, "x-name") is True


@pytest.mark.parametrize("op", [Op.IS, Op.REGEX])
def test_absent_is_false(op: Op) -> None:
    value: Any = ("*",) if op is Op.IS else ".*"
    assert value_of("header", {op: value}, "nope") is False
    assert value_of("header", {Op.EXISTS: False}, "nope") is True
    assert value_of("path", {op: value}, request=None) is False
    assert value_of("dst.host", {op: value}, flow=_unnamed()) is False


def _unnamed() -> FlowInfo:
    redirect = RedirectInfo("static", Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 1))
    return FlowInfo("2", redirect, 0.0)


@pytest.mark.parametrize("name", ["pid", "exe", "uid", "user", "cgroup", "container"])
def test_a_principal_that_nobody_told_is_unknown(name: str) -> None:
    assert value_of(f"principal.{name}", {Op.EXISTS: True}, flow=_unnamed()) is None
    told = Principal(pid=1, exe="x", uid=1, user="x", cgroup="x", container="x")
    redirect = RedirectInfo(
        "static", Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 1), principal=told
    )
    flow = FlowInfo("3", redirect, 0.0)
    assert value_of(f"principal.{name}", {Op.EXISTS: True}, flow=flow) is None


def test_facts_that_are_unknown_stay_unknown() -> None:
    sniffed: dict[str, Any] = {"layer": Layer.HTTP_RESPONSE}
    html = {Op.IS: ("text/html",)}
    assert value_of("content_type.sniffed", html, **sniffed) is False
    gone = frozenset({"content_type.sniffed"})
    assert value_of("content_type.sniffed", html, unknown=gone, **sniffed) is None
    assert value_of("content_type.sniffed", html, sniffed="Text/HTML", **sniffed) is True
    assert value_of("header", {Op.IS: ("x",)}, "via", unknown=frozenset({"header.via"})) is None
    assert value_of("host", {Op.EXISTS: False}, unknown=frozenset({"host"})) is None


def test_a_destination_still_to_be_resolved_has_a_name_and_an_unknown_address() -> None:
    redirect = RedirectInfo("explicit", Endpoint("App.test.", 80), Endpoint("10.0.0.2", 1))
    flow = FlowInfo("4", redirect, 0.0)
    assert value_of("dst.ip", {Op.IS: ("0.0.0.0/0",)}, flow=flow) is None
    assert value_of("dst.host", {Op.IS: ("app.test",)}, flow=flow) is True


@pytest.mark.parametrize("length", ["abc", "-1", "1" * 5000, "1_0", "٣"])
def test_a_length_that_is_no_number_is_unknown(length: str) -> None:
    head = RequestHead(b"1.1", fields(("Content-Length", length)), method=b"POST", target=b"/")
    assert value_of("content_length", {Op.GT: 10}, request=head) is None


def test_two_content_types_both_count() -> None:
    head = ResponseHead(
        b"1.1", fields(("Content-Type", "text/plain"), ("Content-Type", "text/html")), status=200
    )
    found = value_of(
        "content_type", {Op.IS: ("text/html",)}, layer=Layer.HTTP_RESPONSE, response=head
    )
    assert found is True


def test_direction_comes_from_the_facts_where_they_say_it() -> None:
    inbound = {Op.IS: ("inbound",)}
    assert value_of("direction", inbound, layer=Layer.STREAM_DISCARD) is False
    found = value_of("direction", inbound, layer=Layer.STREAM_DISCARD, direction=Direction.INBOUND)
    assert found is True


# --- time ----------------------------------------------------------------------------------


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """UTC+5:30: NOON is Wednesday 03:43 there."""
    if not hasattr(time, "tzset"):
        pytest.skip("the local zone cannot be set on this system")
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("kolkata")
@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("03:00-04:00", True),
        ("03:43-03:44", True),
        ("03:44-04:00", False),
        ("03:00-03:43", False),  # the end is exclusive
        ("22:00-06:00", True),  # wraps midnight
        ("22:00-03:43", False),
        ("00:00-24:00", True),
        ("00:00-00:00", True),
    ],
)
def test_time_of_day_is_local(span: str, expected: bool) -> None:
    assert value_of("time", {Op.IS: (span,)}) is expected


@pytest.mark.usefixtures("kolkata")
def test_weekday_is_local() -> None:
    assert value_of("weekday", {Op.IS: ("wed",)}) is True
    assert value_of("weekday", {Op.IS: ("tue", "thu")}) is False


# --- lists ---------------------------------------------------------------------------------

BOOK = ListBook(
    (
        ast.ListDef("ads", ast.ListType.DOMAIN, ("Example.com", "*.only-below.test"), MARK),
        ast.ListDef("nets", ast.ListType.CIDR, ("10.20.0.0/16", "2001:db8::/32"), MARK),
        ast.ListDef("agents", ast.ListType.STRING, ("Curl/8.0",), MARK),
        ast.ListDef("users", ast.ListType.STRING, ("jürgen",), MARK),
    )
)


@pytest.mark.parametrize(
    ("field", "arg", "name", "expected"),
    [
        ("host", None, "ads", True),
        ("sni", None, "ads", False),
        ("dst.ip", None, "nets", True),
        ("client.ip", None, "nets", True),
        ("header", "user-agent", "agents", True),
        ("principal.user", None, "users", True),
        ("principal.cgroup", None, "users", None),
        ("method", None, "agents", False),
    ],
)
def test_in_a_list(field: str, arg: str | None, name: str, expected: bool | None) -> None:
    assert value_of(field, {Op.IN: name}, arg, lists=BOOK) is expected


# --- what cannot be asked ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "compares", "says"),
    [
        ("dst.port", {Op.REGEX: "2."}, "regex needs text"),
        ("dst.port", {Op.IS: ("25",)}, "whole number"),
        ("dst.port", {Op.IS: (True,)}, "whole number"),
        ("path", {Op.GT: 3}, "needs a number"),
        ("path", {Op.REGEX: "(a"}, "missing )"),
        ("path", {Op.REGEX: "(?:(?:a{1000}){1000})"}, "repetition"),
        ("dst.ip", {Op.IS: ("10.0.0.300",)}, "10.0.0.300"),
        ("time", {Op.IS: ("25:00-26:00",)}, "HH:MM"),
        ("time", {Op.IS: ("noon",)}, "HH:MM"),
        ("host", {Op.IN: "nowhere"}, "no list named"),
        ("host", {Op.IN: "nets"}, "cidr"),
        ("host", {Op.IS: ()}, "matches nothing"),
        ("host", {}, "compared with nothing"),
    ],
)
def test_refused(field: str, compares: dict[Op, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        value_of(field, compares, lists=BOOK)
