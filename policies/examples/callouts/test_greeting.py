"""The greeting changer, through `proxy.testing`: run `pytest` in this directory."""

from __future__ import annotations

from typing import cast

import pytest
from greeting import Greeting

from proxy.api import FlowHandle
from proxy.testing import Bench, check_stream_callout, conversation, register

TALK = (
    ("S", b"220 mail.example ESMTP Exim 4.94.2\r\n"),
    ("C", b"EHLO a\r\n"),
    ("S", b"250 ok\r\n"),
)


def changed(*talk: tuple[str, bytes], **options: str) -> bytes:
    bench = Bench(register(Greeting, options=options))
    return bench.run(conversation(*talk)).inbound


def test_the_text_of_the_first_line_is_ours_and_the_rest_passes() -> None:
    assert changed(*TALK) == b"220 ready\r\n250 ok\r\n"
    assert changed(("S", b"220-one\r\n220 two\r\n"), text="hi") == b"220-hi\r\n220 two\r\n"


@pytest.mark.parametrize(
    "first", [b"SSH-2.0-OpenSSH_9.2\r\n", b"220", b"2200 no\r\n", b"220 " + b"x" * 3000 + b"\r\n"]
)
def test_what_is_no_greeting_passes_as_it_is(first: bytes) -> None:
    assert changed(("S", first), ("C", b"hello\r\n")) == first


def test_a_client_that_speaks_first_is_not_in_such_a_protocol() -> None:
    talk = ("C", b"GET / HTTP/1.1\r\n\r\n"), ("S", b"220 not a greeting\r\n")
    assert changed(*talk) == b"220 not a greeting\r\n"


def test_the_law_hostile_bytes_and_budgets() -> None:
    report = check_stream_callout(
        Greeting, [conversation(*TALK), conversation(("S", b"220-a\n220 b\n"), ("C", b"x"))]
    )
    assert report.most_held <= 4096
    assert report.runs > 200


def test_a_text_that_would_break_the_protocol_is_refused_at_start() -> None:
    with pytest.raises(ValueError, match=r"options\.text"):
        Greeting(cast(FlowHandle, None), {"text": "a\r\n250 b"})
