"""The JSON redactor, through `proxy.testing`: run `pytest` in this directory."""

from __future__ import annotations

import gzip
import json

import pytest
from json_redactor import JsonRedactor

from proxy.api import Interest
from proxy.testing import (
    Bench,
    check_http_callout,
    conversation,
    register_http,
    request,
    response,
    sample_flow,
)

ALL = Interest.REQUEST | Interest.REQUEST_BODY | Interest.RESPONSE | Interest.RESPONSE_BODY
OPTIONS = {"fields": ["password", "token"]}
REDACTOR = JsonRedactor(sample_flow(), OPTIONS)


@pytest.mark.parametrize(
    ("document", "redacted"),
    [
        ('{"password": "x", "a": 1.50}', '{"password": "***", "a": 1.50}'),
        ('{"Token": {"deep": [1, {"password": 2}]}, "b":2}', '{"Token": "***", "b":2}'),
        ('[{"password":null},{"password":[]}]', '[{"password":"***"},{"password":"***"}]'),
        (r'{"pass\u0077ord": "x"}', r'{"pass\u0077ord": "***"}'),
        ('{"password": "a", "password": "b"}', '{"password": "***", "password": "***"}'),
        (r'{"a": "\"token\": 1", "token": "}\""}', r'{"a": "\"token\": 1", "token": "***"}'),
        ('["password", "x"]', '["password", "x"]'),
        ('{"name": "password"}', '{"name": "password"}'),
        ('{"a": 1e400, "b": 12345678901234567890}', '{"a": 1e400, "b": 12345678901234567890}'),
        ('{"password": "x"', "null"),
        ("[" * 100_000, "null"),
        ("", ""),
    ],
)
def test_values_of_the_fields_are_masked_and_nothing_else_changes(
    document: str, redacted: str
) -> None:
    assert REDACTOR.redacted(document.encode()).decode() == redacted


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_no_way_around(encoding: str) -> None:
    content = REDACTOR.redacted('{"password": "x"}'.encode(encoding))
    assert json.loads(content) == {"password": "***"}


def exchange(sent: bytes, answer: bytes) -> tuple[bytes, bytes]:
    bench = Bench(http=[register_http(JsonRedactor, interest=ALL, options=OPTIONS)])
    outcome = bench.run(conversation(("C", sent), ("S", answer)))
    return outcome.outbound, outcome.inbound


def test_both_ways_with_the_length_right_and_the_coding_taken_off() -> None:
    secret = b'{"password": "secret"}'
    out, back = exchange(
        request(b"POST", secret, chunked=True),
        response(gzip.compress(secret), b'Content-Encoding: gzip\r\nETag: "1"\r\n'),
    )
    masked = b'{"password": "***"}'
    assert out.endswith(b"Content-Length: %d\r\n\r\n" % len(masked) + masked)
    assert back.endswith(b"Content-Length: %d\r\n\r\n" % len(masked) + masked)
    assert b"gzip" not in back
    assert b"ETag" not in back


def test_what_is_not_json_passes_untouched_and_at_once() -> None:
    answer = response(b'{"password": 1}', content_type=b"text/plain")
    assert exchange(request(b"GET"), answer) == (request(b"GET"), answer)


def test_the_law_and_hostile_bytes() -> None:
    report = check_http_callout(JsonRedactor, interest=ALL, options=OPTIONS)
    assert report.waits
    assert report.calls > 100


def test_without_fields_it_does_not_start() -> None:
    with pytest.raises(ValueError, match=r"options\.fields"):
        JsonRedactor(sample_flow(), {"fields": []})
