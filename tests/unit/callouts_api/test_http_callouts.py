"""HTTP callouts in the real stage: what they are asked, and what their answers come to."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.api import (
    BlockMessage,
    Field,
    FlowInfo,
    Forward,
    HttpAnswer,
    Interest,
    Message,
    RespondWith,
)
from proxy.callouts.registration import HttpRegistration
from proxy.contract import DialFailure, Kind, Mode, UpstreamFailed
from proxy.heads import ResponseHead
from proxy.limits import Cause, ExceptionPolicies, OnException, StreamConfig
from proxy.policy.build import PolicyText, compile_all, load_all
from proxy.policy.ruling import Policy
from proxy.records import Decided, ExceptionApplied, ExchangeEnded
from proxy.testing import (
    Bench,
    Outcome,
    Questions,
    Trace,
    conversation,
    every_split,
    request,
    response,
    unchunked,
)

GET, OK = request(b"GET"), response(b"hello", content_type=b"text/plain")
JSON = b'{"a": 1}'


class Scripted:
    """Answers by functions; remembers what it was asked."""

    def __init__(self, **says: Callable[..., Any]) -> None:
        self.says = says
        self.asked: list[tuple[Any, ...]] = []

    def _answer(self, name: str, *arguments: Any) -> Any:
        self.asked.append((name, *arguments[1:]) if name in ("body", "data") else (name,))
        if name in self.says:
            return self.says[name](*arguments)
        return arguments[1] if name in ("body", "data") else Forward()

    def request(self, message: Message) -> Any:
        return self._answer("request", message)

    def response(self, message: Message) -> Any:
        return self._answer("response", message)

    def body(self, message: Message, content: bytes) -> Any:
        return self._answer("body", message, content)

    def data(self, message: Message, content: bytes, last: bool) -> Any:
        return self._answer("data", message, content, last)


class Waiting(Scripted):
    """The same out of band."""

    async def _later(self, name: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return self._answer(name, *arguments)

    async def request(self, message: Message) -> Any:
        return await self._later("request", message)

    async def response(self, message: Message) -> Any:
        return await self._later("response", message)

    async def body(self, message: Message, content: bytes) -> Any:
        return await self._later("body", message, content)

    async def data(self, message: Message, content: bytes, last: bool) -> Any:
        return await self._later("data", message, content, last)


BOTH = pytest.mark.parametrize("kind", [Scripted, Waiting])
ANY = Interest.REQUEST | Interest.RESPONSE | Interest.REQUEST_BODY | Interest.RESPONSE_BODY


def registered(callout: Scripted, interest: Interest = ANY, **more: Any) -> HttpRegistration:
    mode = Mode.OUT_OF_BAND if isinstance(callout, Waiting) else Mode.INLINE
    values: dict[str, Any] = {"name": "mine", "weight": 1, "kind": Kind.TERMINATING} | more
    return HttpRegistration(mode=mode, interest=interest, make=lambda flow: callout, **values)


def run(
    trace: Trace,
    *http: HttpRegistration,
    exceptions: ExceptionPolicies | None = None,
    policy: Policy | None = None,
) -> Outcome:
    config = StreamConfig(exceptions=exceptions or ExceptionPolicies())
    return Bench(http=http, config=config, policy=policy).run(trace)


def status(outcome: Outcome) -> bytes:
    return outcome.inbound.split(b" ", 2)[1]


def exchanges(outcome: Outcome) -> list[ExchangeEnded]:
    return [r for r in outcome.all_records if isinstance(r, ExchangeEnded)]


def faults(outcome: Outcome) -> list[tuple[Cause, OnException, str]]:
    return [
        (r.cause, r.action, r.detail)
        for r in outcome.all_records
        if isinstance(r, ExceptionApplied)
    ]


def with_field(head: Any, name: bytes, value: bytes) -> Any:
    return replace(head, fields=(*head.fields, Field(name, name.lower(), value)))


# --- heads


@BOTH
def test_a_callout_that_forwards_changes_nothing(kind: type[Scripted]) -> None:
    callout = kind()
    outcome = run(conversation(("C", GET), ("S", OK)), registered(callout))
    assert (outcome.outbound, outcome.inbound) == (GET, OK)
    assert callout.asked == [("request",), ("response",), ("body", b"hello")]
    assert exchanges(outcome)[0].edits == ()


@BOTH
def test_heads_are_changed_in_both_directions(kind: type[Scripted]) -> None:
    callout = kind(
        request=lambda m: Forward(replace(with_field(m.request, b"X-A", b"1"), target=b"/new?q=2")),
        response=lambda m: Forward(
            replace(with_field(m.response, b"X-B", m.request.target), status=203, reason=b"Fine")
        ),
    )
    heads = registered(callout, Interest.REQUEST | Interest.RESPONSE)
    outcome = run(conversation(("C", GET), ("S", OK)), heads)
    assert outcome.outbound == b"GET /new?q=2 HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\n"
    assert outcome.inbound.startswith(b"HTTP/1.1 203 Fine\r\n")
    assert b"\r\nX-B: /path?q=1\r\n" in outcome.inbound
    assert exchanges(outcome)[0].edits == ("callout",)


@BOTH
def test_framing_hop_by_hop_fields_and_host_stay_the_proxys(kind: type[Scripted]) -> None:
    def without(message: Message) -> HttpAnswer:
        fields = (Field(b"Content-Length", b"content-length", b"99"), Field(b"TE", b"te", b"x"))
        return Forward(replace(message.request, fields=fields, method=b"DELETE", version=b"1.0"))

    sent = request(b"POST", JSON)
    outcome = run(conversation(("C", sent), ("S", OK)), registered(kind(request=without)))
    assert outcome.outbound == (
        b"POST /path?q=1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 8\r\n\r\n" + JSON
    )


@BOTH
def test_block_and_respond_are_answered_without_the_server(kind: type[Scripted]) -> None:
    block = kind(request=lambda m: BlockMessage(451, "not <here>"))
    outcome = run(conversation(("C", GET)), registered(block))
    assert (outcome.outbound, status(outcome)) == (b"", b"451")
    assert b"not &lt;here&gt;" in outcome.inbound
    decided = [r for r in outcome.all_records if isinstance(r, Decided)]
    assert [(d.rule, d.verdict, d.exchange, d.detail) for d in decided] == [
        ("callout:mine", "block", 1, "not <here>")
    ]
    assert (exchanges(outcome)[0].outcome, exchanges(outcome)[0].rule) == (
        "blocked",
        "callout:mine",
    )

    fields = (("X-A", "1"), ("Content-Length", "9"))
    own = kind(request=lambda m: RespondWith(200, b"me", headers=fields))
    outcome = run(conversation(("C", GET + GET)), registered(own))
    one = (
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\nme"
    )
    assert (outcome.outbound, outcome.inbound) == (b"", one + one)


@BOTH
def test_a_response_can_be_refused_by_its_head(kind: type[Scripted]) -> None:
    callout = kind(response=lambda m: BlockMessage(403, "no"))
    outcome = run(conversation(("C", GET), ("S", OK)), registered(callout))
    assert status(outcome) == b"403"
    assert b"hello" not in outcome.inbound


def test_callouts_are_asked_by_weight_and_the_first_refusal_ends_it() -> None:
    first = Scripted(request=lambda m: Forward(with_field(m.request, b"X-A", b"1")))
    second = Waiting(request=lambda m: BlockMessage(reason=m.request.get(b"x-a").decode()))
    third = Scripted()
    outcome = run(
        conversation(("C", GET)),
        registered(third, weight=1),
        registered(first, weight=9),
        registered(second, weight=5),
    )
    assert b"<p>1</p>" in outcome.inbound
    assert third.asked == []


def test_an_inspection_changes_nothing_whatever_it_answers() -> None:
    callout = Scripted(
        request=lambda m: BlockMessage(),
        response=lambda m: RespondWith(500),
        body=lambda m, content: b"other",
    )
    outcome = run(conversation(("C", GET), ("S", OK)), registered(callout, kind=Kind.INSPECTION))
    assert (outcome.outbound, outcome.inbound) == (GET, OK)
    assert len(callout.asked) == 3


# --- what is no answer


@BOTH
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "ContractError: None is not Forward, BlockMessage or RespondWith"),
        (BlockMessage(200), "ContractError: BlockMessage with status 200"),
        (RespondWith(99), "ContractError: RespondWith with status 99"),
        (RespondWith(200, headers=(("A\r\nB", "c"),)), "is not the name of a header field"),
        (RespondWith(200, headers=(("A", "b\r\nC: d"),)), "with a value that cannot be sent"),
        (Forward(ResponseHead(b"1.1", ())), "ContractError: Forward(ResponseHead) for a Request"),
    ],
)
def test_a_wrong_answer_is_an_exception_of_the_callout(
    kind: type[Scripted], answer: Any, said: str
) -> None:
    callout = kind(request=lambda m: answer)
    outcome = run(conversation(("C", GET), ("S", OK)), registered(callout))
    assert (outcome.outbound, status(outcome)) == (b"", b"503")
    ((cause, action, detail),) = faults(outcome)
    assert (cause, action) == (Cause.CALLOUT_EXCEPTION, OnException.CLOSED)
    assert said in detail
    lenient = registered(kind(request=lambda m: answer), on_error=OnException.OPEN)
    outcome = run(conversation(("C", GET), ("S", OK)), lenient)
    assert (outcome.outbound, outcome.inbound) == (GET, OK)


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\0"])
def test_a_field_cannot_break_out_of_its_line(value: bytes) -> None:
    callout = Scripted(request=lambda m: Forward(with_field(m.request, b"X-A", value)))
    outcome = run(conversation(("C", GET), ("S", OK)), registered(callout))
    assert (outcome.outbound, status(outcome)) == (b"", b"503")


@BOTH
def test_an_exception_and_a_time_out(kind: type[Scripted]) -> None:
    def fails(message: Message) -> HttpAnswer:
        raise LookupError("no oracle")

    outcome = run(conversation(("C", GET)), registered(kind(request=fails)))
    assert status(outcome) == b"503"
    assert faults(outcome) == [
        (Cause.CALLOUT_EXCEPTION, OnException.CLOSED, "LookupError: no oracle")
    ]
    assert exchanges(outcome)[0].outcome == "refused"


def test_a_time_out_follows_its_own_row() -> None:
    late = lambda ask: (None, "no answer within 2 s")  # noqa: E731
    bench = Bench(http=[registered(Waiting())], answers=late)
    outcome = bench.run(conversation(("C", GET)))
    assert [cause for cause, *_ in faults(outcome)] == [Cause.CALLOUT_OVERRUN]
    assert status(outcome) == b"503"


def test_a_callout_that_cannot_be_made_is_told_when_it_is_first_asked() -> None:
    def make(flow: FlowInfo) -> Any:
        raise RuntimeError("no licence")

    broken = replace(registered(Scripted()), make=make)
    outcome = run(conversation(("C", GET)), broken)
    assert faults(outcome)[0][2] == "RuntimeError: no licence"


# --- bodies


@BOTH
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("coded", [False, True])
def test_a_whole_body_is_replaced(kind: type[Scripted], chunked: bool, coded: bool) -> None:
    content = gzip.compress(JSON, mtime=0) if coded else JSON
    fields = b"Content-Encoding: gzip\r\n" if coded else b""
    callout = kind(body=lambda m, content: content + b" ")
    outcome = run(
        conversation(
            ("C", request(b"POST", content, fields=fields, chunked=chunked)),
            ("S", response(content, fields, chunked=chunked)),
            ("C", GET),
            ("S", response(b"", status=b"204 No Content")),
        ),
        registered(callout),
    )
    assert [asked for asked in callout.asked if asked[0] == "body"] == [("body", JSON)] * 2
    sent, back = outcome.outbound, outcome.inbound
    assert sent.startswith(b"POST /path?q=1 HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 9\r\n\r\n" + JSON + b" GET " in sent
    assert b"\r\nContent-Length: 9\r\n\r\n" + JSON + b" HTTP/1.1 204" in back
    assert b"gzip" not in sent + back


@BOTH
@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("how", ["length", "chunked", "until_close"])
def test_pieces_go_through_as_they_come(kind: type[Scripted], how: str, coded: bool) -> None:
    text = b"a fairly long text " * 40
    content = gzip.compress(text, mtime=0) if coded else text
    fields = b"Content-Encoding: gzip\r\n" if coded else b""
    flags = {} if how == "length" else {how: True}
    callout = kind(data=lambda m, content, last: content.upper() + b"." * last)
    trace = conversation(("C", GET), ("S", response(content, fields, **flags)))
    trace = [*trace[:2], trace[3], trace[2]]
    for cuts in ([], [100, 150, 200, 300]):
        bench = Bench(http=[registered(callout, Interest.RESPONSE_DATA)])
        out = unchunked(bench.run(trace, cuts).inbound)
        assert out.partition(b"\r\n\r\n")[2] == text.upper() + b".<end>\r\n"
    assert b"gzip" not in out


def test_pieces_arrive_at_once() -> None:
    callout = Waiting(data=lambda m, content, last: content)
    bench = Bench(http=[registered(callout, Interest.RESPONSE_DATA)])
    stream = response(b"", content_type=b"text/event-stream", until_close=True)
    trace = conversation(("C", GET), ("S", stream + b"data: 1\n\n"), ("S", b"data: 2\n\n"))
    steps = bench.run(trace).steps
    assert b"data: 1" in steps[1].inbound
    assert b"data: 2" in steps[2].inbound


@BOTH
def test_policy_judges_what_the_callouts_made_of_a_body(kind: type[Scripted]) -> None:
    callout = kind(body=lambda m, content: content.replace(b"red", b"blue"))
    ours = registered(callout, Interest.RESPONSE_BODY)
    for word, code in (("blue", b"403"), ("red", b"200")):
        answer = response(b"a red house", content_type=b"text/plain")
        outcome = run(conversation(("C", GET), ("S", answer)), ours, policy=blocking(word))
        assert status(outcome) == code


def blocking(word: str) -> Policy:
    """A generation that blocks responses whose body has the word."""
    text = (
        "version: 1\npolicy: test\ndescription: Words.\nrules:\n"
        "  - id: word\n    layer: http_response_body\n"
        f"    when: {{body: {word}}}\n    then: {{block: true}}\n"
    )
    return compile_all(load_all([PolicyText("test.yaml", text.encode())], _no_file), 1)


def _no_file(name: str) -> str:
    raise FileNotFoundError(name)


@pytest.mark.parametrize("on_error", ["closed", "open"])
@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (response(b"x" * 101), Cause.BUFFER_LIMIT),
        (response(b"x" * 101, chunked=True), Cause.BUFFER_LIMIT),
        (response(gzip.compress(b"x" * 101), b"Content-Encoding: gzip\r\n"), Cause.BUFFER_LIMIT),
        (response(b"data: 1\n\n", content_type=b"text/event-stream"), Cause.BUFFER_LIMIT),
        (response(b"x", b"Content-Encoding: rot13\r\n"), Cause.UNDECODABLE),
        (response(b"x", b"Content-Range: bytes 0-0/9\r\n", status=b"206 P"), Cause.UNDECODABLE),
    ],
)
def test_a_body_that_cannot_be_shown(answer: bytes, cause: Cause, on_error: str) -> None:
    policy = OnException(on_error)
    callout = registered(Waiting(), Interest.RESPONSE_BODY, on_error=policy, body_bytes=100)
    table = ExceptionPolicies(undecodable=policy)
    outcome = run(conversation(("C", GET), ("S", answer)), callout, exceptions=table)
    assert [(c, a) for c, a, _ in faults(outcome)] == [(cause, policy)]
    if policy is OnException.OPEN:
        assert outcome.inbound == answer
    else:
        assert not outcome.inbound.startswith(b"HTTP/1.1 20")


def test_a_body_that_a_callout_skips_passes_whatever_it_is() -> None:
    callout = Scripted(response=lambda m: Forward(skip_body=True))
    answer = response(b"x" * 200_000)
    outcome = run(conversation(("C", GET), ("S", answer)), registered(callout))
    assert outcome.inbound == answer
    assert callout.asked == [("request",), ("response",)]


@pytest.mark.parametrize(
    "cut", [request(b"POST", JSON)[:-1], request(b"POST", JSON, chunked=True)[:-5]]
)
def test_a_request_cut_short_never_reaches_the_server(cut: bytes) -> None:
    outcome = run(conversation(("C", cut)), registered(Scripted(), Interest.REQUEST_BODY))
    assert outcome.outbound == b""
    assert exchanges(outcome)[0].outcome == "aborted"


def test_a_response_cut_short_is_answered_for() -> None:
    trace = conversation(("C", GET), ("S", OK[:-1]))
    trace = [*trace[:2], trace[3], trace[2]]
    outcome = run(trace, registered(Scripted(), Interest.RESPONSE_BODY))
    assert status(outcome) == b"502"


def test_ranges_and_odd_codings_are_not_asked_for() -> None:
    ask = request(b"GET", fields=b"Range: bytes=0-1\r\nAccept-Encoding: gzip, rot13\r\n")
    changing = run(conversation(("C", ask)), registered(Scripted(), Interest.RESPONSE_DATA))
    assert b"Range" not in changing.outbound
    assert b"rot13" not in changing.outbound
    looking = registered(Scripted(), Interest.RESPONSE_BODY, kind=Kind.INSPECTION)
    assert run(conversation(("C", ask)), looking).outbound == ask


# --- while a question is open


def unanswered(trace: Trace, first: int = 1) -> Outcome:
    """The first question never gets an answer."""
    with Questions() as ask:
        answers = lambda one: None if one.id == first else ask(one)  # noqa: E731
        return Bench(http=[registered(Waiting())], answers=answers).run(trace)


def test_a_server_that_answers_too_early_has_to_wait() -> None:
    outcome = unanswered(conversation(("C", GET), ("S", OK))[:2])
    assert (outcome.outbound, outcome.inbound) == (b"", b"")
    assert exchanges(outcome)[0].outcome == "aborted"


def test_an_upstream_that_fails_meanwhile_is_told() -> None:
    outcome = unanswered([*conversation(("C", GET))[:1], UpstreamFailed(DialFailure.REFUSED)])
    assert status(outcome) == b"502"
    assert len(exchanges(outcome)) == 1


def test_pipelined_requests_keep_their_order() -> None:
    seen: list[str] = []
    callout = Waiting(request=lambda m: seen.append(m.request.path) or Forward())  # type: ignore[func-returns-value]
    trace = conversation(
        ("C", request(b"GET", path=b"/1") + request(b"GET", path=b"/2")), ("S", OK), ("S", OK)
    )
    outcome = run(trace, registered(callout, Interest.REQUEST))
    assert seen == ["/1", "/2"]
    assert outcome.inbound == OK + OK
    for cuts in every_split(trace):
        assert Bench(http=[registered(callout)]).run(trace, cuts).inbound == OK + OK
