"""Every named irregularity of HTTP/1.1: something triggers it, and it does not get through.

The table below has one row per id; a test holds it against `proxy.anomalies`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from proxy.anomalies import ANOMALIES
from proxy.limits import Cause, ExceptionPolicies, Limits, OnException
from proxy.records import ExceptionApplied
from tests.unit.http.stage_driver import Conversation, FakePolicy, in_bytes, in_cuts

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.test\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LIMITS = Limits(head_bytes=2048, head_fields=20, chunk_line_bytes=64, trailer_bytes=256)


@dataclass(frozen=True)
class Case:
    """What is said, and what of it may pass when nothing is repaired.

    `fin`: the one who speaks last ends its stream. `repaired`: what passes when policy says
    repair; None where the id cannot be repaired.
    """

    id: str
    client: bytes
    server: bytes = b""
    passes: bytes = b""  #: leading part of the faulty stream that passes before the fault
    fin: bool = False
    repaired: bytes | None = None


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a.test") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""])


def answer(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join([start, *lines, b"", body])


REQUESTS = [
    Case("http1.request_line", b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    Case("http1.request_line", b"GET /\r\n\r\n"),
    Case("http1.request_line", b"G(T / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    Case("http1.request_line", b"\r\n" * 5 + GET),
    Case("http1.version", head(start=b"GET / HTTP/2.0")),
    Case("http1.version", head(start=b"GET / http/1.1")),
    Case("http1.version_minor", head(start=b"GET / HTTP/1.2"), repaired=GET),
    Case("http1.target_form", head(start=b"GET a.test HTTP/1.1")),
    Case("http1.target_form", head(start=b"GET * HTTP/1.1")),
    Case("http1.target_form", head(start=b"GET ftp://a.test/ HTTP/1.1")),
    Case("http1.target_form", head(start=b"GET http:///x HTTP/1.1")),
    Case("http1.target_form", head(start=b"CONNECT a.test HTTP/1.1")),
    Case("http1.target_char", head(start=b"GET /#x HTTP/1.1")),
    Case("http1.target_char", head(start=b"GET /\xc3\xbc HTTP/1.1")),
    Case("http1.target_char", head(start=b'GET /"x" HTTP/1.1')),
    Case("http1.target_userinfo", head(start=b"GET http://u:p@a.test/ HTTP/1.1")),
    Case(
        "http1.connect",
        head(start=b"CONNECT a.test:443 HTTP/1.1", host=b"Host: a.test:443"),
        repaired=b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
    ),
    Case("http1.host_missing", head(host=b"")),
    Case("http1.host_multiple", head(b"Host: b.test")),
    Case("http1.host_multiple", head(b"host: a.test")),
    Case("http1.host_invalid", head(host=b"Host: a b")),
    Case("http1.host_invalid", head(host=b"Host:")),
    Case("http1.host_invalid", head(host=b"Host: u@a.test")),
    Case("http1.host_invalid", head(host=b"Host: a.test:99999")),
    Case("http1.host_invalid", head(host=b"Host: a..test")),
    Case("http1.host_invalid", head(host=b"Host: a.test/x")),
    Case(
        "http1.authority_mismatch",
        head(start=b"GET http://b.test/ HTTP/1.1"),
        repaired=b"GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
    ),
    Case("http1.bare_lf", GET.replace(b"\r\n", b"\n"), repaired=GET),
    Case("http1.bare_lf", b"GET / HTTP/1.1\nHost: a.test\r\n\r\n", repaired=GET),
    Case("http1.bare_cr", head(b"X: a\rb")),
    Case("http1.bare_cr", b"GET / HTTP/1.1\r \r\nHost: a.test\r\n\r\n"),
    Case("http1.nul", head(b"X: a\0b"), repaired=head(b"X: a b")),
    Case("http1.nul", head(b"Content-Length: 1\0")),
    Case("http1.value_ctl", head(b"X: a\x01b")),
    Case("http1.value_ctl", head(b"X: a\x7fb")),
    Case("http1.obs_fold", head(b"X: a", b"\t b"), repaired=head(b"X: a b")),
    Case("http1.leading_blank", b"GET / HTTP/1.1\r\n Host: a.test\r\n\r\n"),
    Case("http1.space_before_colon", head(b"X : a")),
    Case("http1.space_before_colon", head(b"Transfer-Encoding\t: chunked")),
    Case("http1.field_line", head(b"nonsense")),
    Case("http1.field_name", head(b"X(: a")),
    Case("http1.field_name", head(b": a")),
    Case("http1.head_too_large", head(b"X: " + b"a" * 3000)),
    Case("http1.target_too_long", head(start=b"GET /" + b"a" * 3000 + b" HTTP/1.1")),
    Case("http1.too_many_fields", head(*[b"X: a"] * 20)),
    Case(
        "http1.te_and_cl",
        head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        repaired=head(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ),
    Case(
        "http1.te_http10",
        head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0") + b"0\r\n\r\n",
    ),
    Case("http1.te_unknown", head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    Case("http1.te_invalid", head(b"Transfer-Encoding: chunked, identity")),
    Case("http1.te_invalid", head(b"Transfer-Encoding: chunked, chunked")),
    Case("http1.te_invalid", head(b"Transfer-Encoding: xchunked")),
    Case("http1.te_invalid", head(b"Transfer-Encoding:")),
    Case("http1.te_invalid", head(b"Transfer-Encoding: ,chunked")),
    Case("http1.te_unknown", head(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked")),
    Case("http1.cl_invalid", head(b"Content-Length: +1")),
    Case("http1.cl_invalid", head(b"Content-Length: 1", b"Content-Length: 2")),
    Case("http1.cl_invalid", head(b"Content-Length: 0x1")),
    Case("http1.cl_invalid", head(b"Content-Length:")),
    Case("http1.cl_too_large", head(b"Content-Length: " + b"9" * 19)),
    Case(
        "http1.cl_duplicate",
        head(b"Content-Length: 1, 1") + b"x",
        repaired=head(b"Content-Length: 1") + b"x",
    ),
    Case(
        "http1.cl_duplicate",
        head(b"Content-Length: 1", b"A: b", b"Content-Length: 1") + b"x",
        repaired=head(b"Content-Length: 1", b"A: b") + b"x",
    ),
    Case(
        "http1.cl_leading_zero",
        head(b"Content-Length: 010") + b"0123456789",
        repaired=head(b"Content-Length: 10") + b"0123456789",
    ),
    Case("http1.framing_alias", head(b"Transfer_Encoding: chunked"), repaired=GET),
    Case("http1.framing_alias", head(b"content_length: 5"), repaired=GET),
    Case("http1.chunk_size", CHUNKED + b"x\r\n", passes=CHUNKED),
    Case("http1.chunk_size", CHUNKED + b"\r\n", passes=CHUNKED),
    Case("http1.chunk_size", CHUNKED + b"0x1\r\n", passes=CHUNKED),
    Case("http1.chunk_size", CHUNKED + b"1" + b"0" * 15 + b"\r\n", passes=CHUNKED),
    Case("http1.chunk_line_too_long", CHUNKED + b"1;" + b"a" * 64, passes=CHUNKED),
    Case("http1.chunk_crlf", CHUNKED + b"1\nx", passes=CHUNKED),
    Case("http1.chunk_crlf", CHUNKED + b"1\r\nxy\r\n", passes=CHUNKED + b"1\r\nx"),
    Case("http1.chunk_crlf", CHUNKED + b"1;\rq\r\n", passes=CHUNKED),
    Case("http1.chunk_crlf", CHUNKED + b"0\r\n\n", passes=CHUNKED + b"0\r\n"),
    Case(
        "http1.chunk_ext",
        CHUNKED + b'1;a="b";c \r\nx\r\n0\r\n\r\n',
        passes=CHUNKED,
        repaired=CHUNKED + b"1\r\nx\r\n0\r\n\r\n",
    ),
    Case("http1.chunk_ext_invalid", CHUNKED + b"1;a=(\r\n", passes=CHUNKED),
    Case("http1.trailer_field", CHUNKED + b"0\r\nX : a\r\n\r\n", passes=CHUNKED + b"0\r\n"),
    Case("http1.trailer_field", CHUNKED + b"0\r\nX: a\n\r\n", passes=CHUNKED + b"0\r\n"),
    Case(
        "http1.trailer_forbidden",
        CHUNKED + b"0\r\nA: b\r\nContent-Length: 5\r\nC: d\r\n\r\n",
        passes=CHUNKED + b"0\r\n",
        repaired=CHUNKED + b"0\r\nA: b\r\nC: d\r\n\r\n",
    ),
    Case(
        "http1.trailer_too_large",
        CHUNKED + b"0\r\nX: " + b"a" * 300,
        passes=CHUNKED + b"0\r\n",
    ),
    Case("http1.truncated_head", GET[:-4], fin=True),
    Case(
        "http1.upgrade_h2c",
        head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAM"),
        repaired=GET,
    ),
    Case(
        "http1.upgrade_h2c",
        head(b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
        repaired=head(b"Upgrade: websocket", b"Connection: upgrade"),
    ),
]

RESPONSES = [
    Case("http1.status_line", GET, b"\r\n" + OK),
    Case("http1.status_line", GET, b"ICY 200 OK\r\n\r\n"),
    Case("http1.status_line", GET, b"HTTP/1.1 20 OK\r\n\r\n"),
    Case("http1.version", GET, b"HTTP/3.0 200 OK\r\n\r\n"),
    Case("http1.status_code", GET, b"HTTP/1.1 600 OK\r\n\r\n"),
    Case("http1.value_ctl", GET, b"HTTP/1.1 200 O\x01K\r\n\r\n"),
    Case("http1.bare_lf", GET, OK.replace(b"\r\n", b"\n"), repaired=OK),
    Case(
        "http1.te_and_cl",
        GET,
        answer(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        repaired=answer(b"Transfer-Encoding: chunked", b"Connection: close", body=b"0\r\n\r\n"),
    ),
    Case("http1.space_before_colon", GET, answer(b"X : y")),
    Case("http1.too_many_fields", GET, answer(*[b"X: a"] * 21)),
    Case("http1.head_too_large", GET, answer(b"X: " + b"a" * 3000)),
    Case(
        "http1.chunk_size",
        GET,
        answer(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\nz\r\n"),
        passes=answer(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n"),
    ),
    Case(
        "http1.unasked_101",
        GET,
        answer(b"Upgrade: a", b"Connection: upgrade", start=b"HTTP/1.1 101 S"),
    ),
    Case(
        "http1.unasked_101",
        head(b"Upgrade: b", b"Connection: upgrade"),
        answer(b"Upgrade: a", b"Connection: upgrade", start=b"HTTP/1.1 101 S"),
    ),
    Case(
        "http1.too_many_interim",
        GET,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 101,
        passes=b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
    ),
    Case(
        "http1.body_on_bodiless",
        GET,
        answer(b"Content-Length: 5", start=b"HTTP/1.1 204 No Content"),
        repaired=answer(start=b"HTTP/1.1 204 No Content"),
    ),
    Case("http1.extra_bytes", GET, OK + b"HTTP/1.1 200 OK\r\n", passes=OK),
    Case("http1.extra_bytes", POST + b"Content-Length: 9\r\n\r\n", OK + b"x", passes=OK),
    Case("http1.server_spoke_first", b"", b"220 hello\r\n"),
]
CASES = REQUESTS + RESPONSES


def name(case: Case) -> str:
    return f"{case.id}-{CASES.index(case)}"


def play(case: Case, policy: FakePolicy, pieces=lambda data: [data], **options) -> Conversation:
    talk = Conversation(policy, limits=LIMITS, **options)
    talk.client(*pieces(case.client)) if case.client else None
    talk.server(*pieces(case.server)) if case.server else None
    return talk.client_fin() if case.fin else talk


def test_every_id_has_a_case():
    assert {case.id for case in CASES} == {id_ for id_ in ANOMALIES if id_.startswith("http1.")}


@pytest.mark.parametrize("case", REQUESTS, ids=name)
def test_a_faulty_request_is_refused_and_does_not_reach_the_server(case: Case):
    talk = play(case, FakePolicy(refuse=frozenset({case.id})))
    status = ANOMALIES[case.id].client_status
    assert (case.id, "refuse") in talk.anomalies
    assert talk.to_server == case.passes
    assert talk.to_client.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in talk.to_client
    assert talk.fin == [True, True]
    (record,) = talk.exchanges
    assert (record.outcome, record.status) == ("refused", status)
    assert ExceptionApplied(Cause.PARSE_ERROR, OnException.CLOSED, "http", case.id) in talk.records


@pytest.mark.parametrize("case", RESPONSES, ids=name)
def test_a_faulty_response_does_not_reach_the_client(case: Case):
    talk = play(case, FakePolicy(refuse=frozenset({case.id})))
    assert (case.id, "refuse") in talk.anomalies
    delivered = talk.to_client.removeprefix(case.passes)
    interim = case.passes.startswith(b"HTTP/1.1 1")
    if (case.passes and not interim) or not case.client:
        assert delivered == b""
    else:
        assert delivered.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert talk.fin == [True, True] or talk.ended is not None


@pytest.mark.parametrize("case", [c for c in CASES if c.repaired is not None], ids=name)
def test_what_is_repaired_passes_in_canonical_form(case: Case):
    talk = play(case, FakePolicy(repair=frozenset({case.id})))
    passed = talk.to_client if case.server else talk.to_server
    assert passed == case.repaired
    assert {action for _, action in talk.anomalies} == {"repair"}


@pytest.mark.parametrize("case", [c for c in CASES if c.repaired is None], ids=name)
def test_what_no_rfc_settles_is_refused_even_if_policy_says_repair(case: Case):
    talk = play(case, FakePolicy(repair=frozenset(ANOMALIES)))
    assert (case.id, "refuse") in talk.anomalies


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_same_in_any_cuts(case: Case):
    for repair in (frozenset(), frozenset(ANOMALIES)):
        policy = FakePolicy(repair=repair)
        whole = play(case, policy)
        for pieces in (in_bytes, lambda data: in_cuts(data, 1), lambda data: in_cuts(data, 2)):
            again = play(case, policy, pieces)
            assert again.out == whole.out
            assert again.records == whole.records
            assert (again.fin, again.ended) == (whole.fin, whole.ended)


@pytest.mark.parametrize("case", REQUESTS, ids=name)
def test_parse_error_open_lets_the_flow_go_raw(case: Case):
    policy = FakePolicy(refuse=frozenset({case.id}))
    talk = play(case, policy, exceptions=ExceptionPolicies(parse_error=OnException.OPEN))
    assert (case.id, "open") in talk.anomalies
    assert talk.to_server.lstrip(b"\r\n") == case.client.lstrip(b"\r\n")
    assert ExceptionApplied(Cause.PARSE_ERROR, OnException.OPEN, "http", case.id) in talk.records
