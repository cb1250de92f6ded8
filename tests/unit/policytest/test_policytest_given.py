"""What is given is what happens: bodies, codings, framings, connections, time, conversations."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from proxy.model import Confidence, Endpoint
from proxy.policy.cases import CaseModel
from proxy.policy.cases_given import CODINGS
from proxy.policytest.given import Reply, Say, Script, script_of
from tests.unit.policytest.policytest_case import one


def script(given: dict[str, object]) -> Script:
    model = CaseModel.model_validate({"name": "n", "given": given, "expect": {"verdict": "permit"}})
    return script_of(model, lambda path: b"<file>")


def sent(given: dict[str, object]) -> bytes:
    turn = script(given).turns[0]
    assert isinstance(turn, Say)
    return turn.data


def answered(given: dict[str, object]) -> bytes:
    turn = script(given).turns[1]
    assert isinstance(turn, Reply)
    return turn.data


# --- bytes ---------------------------------------------------------------------------------


def test_a_request_is_what_a_client_sends() -> None:
    assert sent({"request": {"url": "http://a.test:8080/x?y", "headers": {"X-A": ["1", "2"]}}}) == (
        b"GET /x?y HTTP/1.1\r\nHost: a.test:8080\r\nX-A: 1\r\nX-A: 2\r\n\r\n"
    )


def test_a_url_without_a_path_asks_for_the_root() -> None:
    assert sent({"request": {"url": "http://a.test?q"}}).startswith(b"GET /?q HTTP/1.1\r\n")


def test_a_body_has_its_length() -> None:
    request = {"method": "POST", "body": {"text": "hällo"}}
    assert sent({"request": request}).endswith(b"\r\nContent-Length: 6\r\n\r\nh\xc3\xa4llo")


def test_a_post_without_a_body_says_so() -> None:
    assert sent({"request": {"method": "POST"}}).endswith(b"\r\nContent-Length: 0\r\n\r\n")


def test_bodies_come_from_base64_and_files() -> None:
    assert sent({"request": {"body": {"base64": "AAH/\n"}}}).endswith(b"\r\n\r\n\x00\x01\xff")
    assert sent({"request": {"body": {"file": "x.bin"}}}).endswith(b"\r\n\r\n<file>")


def test_a_long_body_is_written_short() -> None:
    body = {"text": "ab", "repeat": 3}
    assert sent({"request": {"body": body}}).endswith(b"\r\nContent-Length: 6\r\n\r\nababab")


def test_framing_fields_that_are_given_stay_alone() -> None:
    request = {"headers": {"content-length": ["3"], "Transfer-Encoding": ["chunked"]}}
    got = sent({"request": {**request, "body": "0\r\n\r\n"}})
    assert got.lower().count(b"content-length") == 1
    assert got.endswith(b"\r\n\r\n0\r\n\r\n")


def test_a_body_is_coded_and_the_header_says_it() -> None:
    head, _, body = answered({"response": {"body": "text", "encoding": "gzip"}}).partition(
        b"\r\n\r\n"
    )
    assert b"\r\nContent-Encoding: gzip" in head
    assert gzip.decompress(body) == b"text"


def test_the_answer_to_head_is_a_head() -> None:
    given = {"request": {"method": "HEAD"}, "response": {"body": "text"}}
    assert answered(given).endswith(b"\r\nContent-Length: 4\r\n\r\n")


def test_without_a_response_the_server_answers_200() -> None:
    assert answered({"request": {}}).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_what_the_client_got_is_read_in_every_coding_and_framing(
    tmp_path: Path, coding: str, framing: str
) -> None:
    given = f"{{response: {{body: hello, encoding: {coding}, framing: {framing}}}}}"
    result = one(tmp_path, given, "{verdict: permit, response: {body: hello}}")
    assert result.ok, result


def test_a_request_body_is_read_at_the_server(tmp_path: Path) -> None:
    given = "{request: {method: PUT, body: hello, encoding: [gzip, br], framing: chunked}}"
    result = one(tmp_path, given, "{request: {method: PUT, body: hello}}")
    assert result.ok, result


# --- the connection ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ({"request": {"url": "http://198.51.100.7:81/"}}, "198.51.100.7:81"),
        ({"request": {"url": "http://[2001:db8::7]/"}}, "[2001:db8::7]:80"),
        ({"request": {"url": "http://a.test:8080/"}}, "192.0.2.1:8080"),
        ({"tls": {"sni": "a.test"}}, "192.0.2.1:443"),
        ({"connection": {"dst": "10.0.0.1:9"}, "request": {}}, "10.0.0.1:9"),
    ],
)
def test_where_it_goes(given: dict[str, object], there: str) -> None:
    redirect = script(given).redirect
    assert redirect.original_dst == Endpoint.parse(there)
    assert redirect.dst_name is None


def test_a_named_destination_is_known_by_its_name(tmp_path: Path) -> None:
    result = one(tmp_path, '{connection: {dst: "db.test:5432"}}', "{rules: [named], tags: [db]}")
    assert result.ok, result


def test_a_principal_that_is_not_given_is_unknown() -> None:
    assert script({}).redirect.principal.confidence is Confidence.NONE
    known = script({"connection": {"principal": {"exe": "/bin/x"}}}).redirect.principal
    assert (known.exe, known.uid, known.confidence) == ("/bin/x", None, Confidence.EXACT)


def test_tags_that_are_given_count_and_are_not_told(tmp_path: Path) -> None:
    result = one(
        tmp_path, "{connection: {tags: [trusted]}}", "{rules: [seen-before], tags: [again]}"
    )
    assert result.ok, result


def test_the_clock_is_what_is_given(tmp_path: Path) -> None:
    late = one(tmp_path, '{request: {}, at: "2026-11-23T23:30"}', "{tags: [night]}")
    assert late.ok, late
    noon = one(tmp_path, "{request: {}}", "{tags: []}")
    assert noon.ok, noon


# --- conversations -------------------------------------------------------------------------


def test_turns_come_in_their_order(tmp_path: Path) -> None:
    given = '{stream: [{server: "220 x\\r\\n"}, {client: "EHLO y\\r\\n"}, {server: "250 x\\r\\n"}]}'
    expect = '{protocol: smtp, to_server: "EHLO y\\r\\n", to_client: "220 x\\r\\n250 x\\r\\n"}'
    result = one(tmp_path, given, expect)
    assert result.ok, result


def test_expected_bytes_may_be_in_part(tmp_path: Path) -> None:
    given = '{stream: [{client: "EHLO y\\r\\n"}]}'
    expect = "{to_server: {contains: EHLO, not_contains: QUIT}, to_client: ''}"
    result = one(tmp_path, given, expect)
    assert result.ok, result


def test_time_passes_in_a_wait(tmp_path: Path) -> None:
    """A head that does not come to its end within ten seconds is answered with 408."""
    given = '{stream: [{client: "GET / HTTP/1.1\\r\\n"}, {wait: 11}]}'
    result = one(tmp_path, given, "{verdict: fail, status: 408}")
    assert result.ok, result
    first, rest = '{client: "GET / HTTP/1.1\\r\\n"}', '{client: "Host: a.test\\r\\n\\r\\n"}'
    given = f"{{stream: [{first}, {{wait: 1}}, {rest}]}}"
    result = one(tmp_path, given, "{verdict: fail, request: {path: /}}")  # and no server answers
    assert result.ok, result


def test_the_server_answers_only_what_reached_it(tmp_path: Path) -> None:
    given = '{request: {url: "http://a.test/admin"}, response: {body: secret}}'
    result = one(tmp_path, given, "{response: {body_not_contains: secret}, status: 451}")
    assert result.ok, result


def test_slow_content_is_sniffed_in_the_end(tmp_path: Path) -> None:
    given = (
        '{stream: [{client: "GET / HTTP/1.1\\r\\nHost: a.test\\r\\n\\r\\n"},'
        ' {server: "HTTP/1.1 200 OK\\r\\nContent-Length: 9\\r\\n\\r\\nab"}, {server: "cdefghi"}]}'
    )
    result = one(tmp_path, given, "{verdict: permit, status: 200, response: {body: abcdefghi}}")
    assert result.ok, result
