"""Text is searched and edited as the characters that it means, in whatever encoding it is."""

from __future__ import annotations

import gzip

import pytest

from proxy.contract import How
from tests.unit.http.stage_driver import Conversation, in_bytes, in_cuts
from tests.unit.http.test_http_content import GET, policy, read

REDACT = policy(
    """
  - id: redact
    layer: http_response
    then:
      replace_body:
        - {literal: secret, by: "[gone]"}
"""
)
REDACT_WORD = policy(
    """
  - id: redact
    layer: http_response
    then:
      replace_body:
        - {literal: größe, by: länge}
"""
)
FORBID = policy(
    """
  - id: forbid
    layer: http_response_body
    when: {body: [secret, größe]}
    then: {block: true}
"""
)
CHARSETS = ["utf-8", "utf-16-le", "utf-16-be", "windows-1252", "iso-8859-15"]
LABELS = {"utf-16-le": "utf-16le", "utf-16-be": "utf-16be"}


def page(text: str, charset: str, way: str) -> bytes:
    data = text.encode(charset)
    content_type = "text/html"
    if way == "header":
        content_type += f"; charset={LABELS.get(charset, charset)}"
    elif way == "mark":
        data = "\ufeff".encode(charset) + data
    else:
        data = f'<meta charset="{charset}">'.encode() + data
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def cases() -> list[tuple[str, str]]:
    found = [(charset, "header") for charset in CHARSETS]
    found += [("windows-1252", "meta"), ("iso-8859-15", "meta")]
    return [*found, ("utf-8", "mark"), ("utf-16-le", "mark"), ("utf-16-be", "mark")]


@pytest.mark.parametrize(("charset", "way"), cases())
@pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes, lambda d: in_cuts(d, 7)])
class TestCharsets:
    def test_words_beyond_ascii_are_replaced(self, charset: str, way: str, pieces):
        wire = page("<p>die größe, größer</p>" * 60, charset, way)
        talk = Conversation(REDACT_WORD).client(GET).server(*pieces(wire))
        text = read(talk.to_client)[1].decode(charset)
        assert "größe" not in text
        assert text.count("länge") == 120

    def test_ascii_words_are_replaced(self, charset: str, way: str, pieces):
        wire = page("<p>a secret größe</p>", charset, way)
        talk = Conversation(REDACT).client(GET).server(*pieces(wire))
        text = read(talk.to_client)[1].decode(charset)
        assert text.endswith("<p>a [gone] größe</p>")

    @pytest.mark.parametrize("word", ["secret", "größe"])
    def test_what_is_forbidden_is_seen(self, charset: str, way: str, pieces, word: str):
        wire = page("<p>fine</p>" * 150 + word, charset, way)
        talk = Conversation(FORBID).client(GET).server(*pieces(wire))
        assert talk.ended is How.RESET
        assert word.encode(charset) not in talk.to_client


def test_a_false_declaration_hides_nothing():
    """A client that reads bytes where UTF-16 was declared finds nothing either."""
    data = b"a secret in ascii"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-16le\r\n"
    wire = head + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
    talk = Conversation(FORBID).client(GET).server(*in_bytes(wire))
    assert talk.ended is How.RESET
    assert b"secret" not in talk.to_client


def test_coded_text_in_utf_16():
    data = gzip.compress("a secret größe".encode("utf-16"))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\n"
    wire = head + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
    talk = Conversation(REDACT).client(GET).server(*in_bytes(wire))
    assert gzip.decompress(read(talk.to_client)[1]).decode("utf-16") == "a [gone] größe"
    assert Conversation(FORBID).client(GET).server(wire).ended is How.RESET


def test_binary_content_is_bytes():
    data = "größe".encode() + bytes(range(256))
    wire = b"HTTP/1.1 200 OK\r\nContent-Type: image/x\r\nContent-Length: %d\r\n\r\n" % len(data)
    talk = Conversation(REDACT_WORD).client(GET).server(wire + data)
    assert read(talk.to_client)[1] == "länge".encode() + bytes(range(256))
