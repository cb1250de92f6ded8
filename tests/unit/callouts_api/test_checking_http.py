"""`check_http_callout` finds what is wrong with an HTTP callout, and nothing where all is right."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.api import BlockMessage, Forward, HttpAnswer, Interest, Message
from proxy.model import FlowInfo
from proxy.policy.build import PolicyText, compile_all, load_all
from proxy.testing import check_http_callout, unchunked

HEADS = Interest.REQUEST | Interest.RESPONSE
BODIES = Interest.REQUEST_BODY | Interest.RESPONSE_BODY
PIECES = Interest.REQUEST_DATA | Interest.RESPONSE_DATA
POLICY = b"""version: 1
policy: test
description: Edits and blocks of bodies.
rules:
  - {id: edit, layer: http_response, then: {replace_body: {find: ada, with: eve}}}
  - {id: block, layer: http_response_body, when: {body: "SECRET"}, then: {block: true}}
"""


class Right:
    """Changes heads and contents, whatever the cut."""

    def __init__(self, flow: FlowInfo, options: Mapping[str, Any]) -> None:
        self.calls = 0

    def request(self, message: Message) -> HttpAnswer:
        return BlockMessage() if message.request.path == "/two" else Forward()

    def response(self, message: Message) -> HttpAnswer:
        return Forward()

    def body(self, message: Message, content: bytes) -> bytes:
        return content.replace(b"user", b"name")

    def data(self, message: Message, content: bytes, last: bool) -> bytes:
        return content.upper()


class RightAndSlow(Right):
    async def request(self, message: Message) -> HttpAnswer:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().request(message)

    async def response(self, message: Message) -> HttpAnswer:  # type: ignore[override]
        return super().response(message)

    async def body(self, message: Message, content: bytes) -> bytes:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().body(message, content)

    async def data(  # type: ignore[override]
        self, message: Message, content: bytes, last: bool
    ) -> bytes:
        return super().data(message, content, last)


class CountsPieces(Right):
    def data(self, message: Message, content: bytes, last: bool) -> bytes:
        self.calls += 1
        return b"%d" % self.calls


class WantsUtf8(Right):
    def data(self, message: Message, content: bytes, last: bool) -> bytes:
        return content.decode("utf-8").upper().encode("utf-8")


class SaysText(Right):
    def body(self, message: Message, content: bytes) -> Any:
        return content.decode("latin-1")


class NeedsTheResponse(Right):
    def request(self, message: Message) -> HttpAnswer:
        assert message.response is not None, "there is none yet"
        return Forward()


@pytest.mark.parametrize("make", [Right, RightAndSlow])
@pytest.mark.parametrize("interest", [HEADS, BODIES, PIECES, HEADS | BODIES | PIECES])
def test_a_right_one_passes_with_policy_at_work_behind_it(
    make: type[Right], interest: Interest
) -> None:
    policy = compile_all(load_all([PolicyText("test.yaml", POLICY)], _no_file), 1)
    report = check_http_callout(make, interest=interest, policy=policy, fuzz=30, seed=3)
    assert report.waits is (make is RightAndSlow)
    assert report.calls > 30


def _no_file(name: str) -> bytes:
    raise FileNotFoundError(name)


@pytest.mark.parametrize(
    ("make", "interest", "said"),
    [
        (CountsPieces, PIECES, "the result depends on the cut: "),
        (WantsUtf8, PIECES, "checked: callout_exception: UnicodeDecodeError"),
        (SaysText, BODIES, "ContractError: str in the place of content; expected bytes"),
        (NeedsTheResponse, HEADS, "callout_exception: AssertionError: there is none yet"),
    ],
)
def test_a_mistake_is_found_with_the_trace_that_shows_it(
    make: type[Right], interest: Interest, said: str
) -> None:
    with pytest.raises(AssertionError) as caught:
        check_http_callout(make, interest=interest)
    assert said in str(caught.value)
    assert "\ntrace = [\n    Data(Direction." in str(caught.value)


def test_chunk_boundaries_are_no_difference_and_contents_are() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    one, two = head + b"4\r\nabcd\r\n0\r\n\r\n", head + b"1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n"
    assert unchunked(one) == unchunked(two)
    assert unchunked(one) != unchunked(head + b"4\r\nabcx\r\n0\r\n\r\n")
    assert unchunked(one) != unchunked(head + b"4\r\nabcd\r\n")  # not ended
