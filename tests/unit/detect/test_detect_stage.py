"""The protocol stage: what each side gets while a flow is being recognised, and afterwards."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract import DialFailure, Drain, How, Overload, UpstreamConnected, UpstreamFailed
from proxy.limits import ExceptionPolicies, Limits, OnException
from proxy.model import Layer, Protocol
from proxy.policy import ast
from proxy.records import Decided
from tests.unit.detect.protocol_driver import Flow, FlowPolicy
from tests.unit.detect.test_detect_client_hello import hello, openssl_hello, records, sni
from tests.unit.http.stage_driver import in_bytes, ruling

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SSH = b"SSH-2.0-client\r\n"
POSTGRES = bytes.fromhex("0000000804d2162f")
TEXT = b"x" * 20
HELLO = openssl_hello("a.test", ("h2",))
BAD_HELLO = records(hello(sni((0, b"a\x00b"))))
GUARDED = FlowPolicy(protocols=frozenset({Protocol.HTTP1}))
REFUSED = UpstreamFailed(DialFailure.REFUSED)
SMALL = Limits(detect_bytes=16)
OPEN = ExceptionPolicies(
    parse_error=OnException.OPEN,
    undecided=OnException.OPEN,
    uninspectable=OnException.OPEN,
    overload=OnException.OPEN,
    buffer_limit=OnException.OPEN,
)


def blocking(layer: Layer, how: str = "reset", **policy) -> FlowPolicy:
    field = {Layer.STREAM: "stream", Layer.TLS_CLIENT_HELLO: "hello"}[layer]
    made = ruling(layer, ast.Block(how=how))
    return FlowPolicy(**{field: lambda facts: made}, **policy)


class TestRecognised:
    def test_http_goes_to_the_http_stage_from_its_first_byte(self):
        flow = Flow().client(GET).server(OK)
        assert (flow.to_server, flow.to_client) == (GET, OK)
        assert flow.detected == [flow.info.protocol] == [Protocol.HTTP1]
        assert [exchange.outcome for exchange in flow.exchanges] == ["forwarded"]

    @pytest.mark.parametrize(
        ("data", "protocol"),
        [
            (SSH, Protocol.SSH),
            (b"EHLO a.test\r\n", Protocol.SMTP),
            (POSTGRES, Protocol.OPAQUE),
            (PREFACE, Protocol.HTTP2),
            (HELLO, Protocol.TLS),
        ],
    )
    def test_everything_else_passes_unchanged_and_is_named(self, data: bytes, protocol: Protocol):
        flow = Flow().client(data).server(b"answer").client(b"more").server_fin()
        assert flow.allowed
        assert (flow.to_server, flow.to_client) == (data + b"more", b"answer")
        assert flow.detected == [flow.info.protocol] == [protocol]
        assert flow.timers == {}

    def test_nothing_is_sent_on_before_it_is_clear_what_it_is(self):
        flow = Flow().client(b"GE", b"T")
        assert flow.to_server == b""
        assert flow.client(b" / HTTP/1.1\r\nHost: a.test\r\n\r\n").to_server == GET

    def test_the_server_name_and_alpn_are_in_the_record(self):
        flow = Flow().client(HELLO)
        assert (flow.records[0].sni, flow.records[0].alpn) == ("a.test", ("h2",))
        assert (flow.info.sni, flow.info.alpn) == ("a.test", ("h2",))

    def test_a_client_that_closes_in_silence_passes(self):
        flow = Flow().client_fin().server(b"bye").server_fin()
        assert flow.detected == [Protocol.OPAQUE]
        assert (flow.to_client, flow.fin) == (b"bye", [True, True])

    def test_a_client_that_closes_early_is_judged_by_what_it_sent(self):
        flow = Flow().client(b"GET").client_fin()
        assert (flow.detected, flow.to_server, flow.fin[0]) == ([Protocol.OPAQUE], b"GET", True)


class TestConnectionRules:
    @pytest.mark.parametrize("data", [GET, SSH, POSTGRES, PREFACE, HELLO])
    @pytest.mark.parametrize(("how", "ended"), [("reset", How.RESET), ("drop", How.DROP)])
    def test_a_block_ends_the_flow_before_a_byte_leaves(self, data: bytes, how: str, ended: How):
        flow = Flow(blocking(Layer.STREAM, how)).client(data)
        assert (flow.ended, flow.to_server, flow.exchanges) == (ended, b"", [])
        assert [r.rule for r in flow.records if isinstance(r, Decided)] == ["r1"]

    def test_rules_see_the_protocol_and_what_tls_said(self):
        policy = FlowPolicy(stream=lambda facts: None, hello=lambda facts: None)
        Flow(policy).client(HELLO)
        assert [(f.flow.protocol, f.flow.sni, f.flow.alpn) for f in policy.asked] == [
            (Protocol.TLS, "a.test", ("h2",))
        ] * 2

    def test_a_client_hello_rule_blocks_tls_only(self):
        policy = blocking(Layer.TLS_CLIENT_HELLO)
        assert Flow(policy).client(HELLO).ended is How.RESET
        assert Flow(policy).client(POSTGRES).allowed

    def test_tags_stay_with_the_flow(self):
        tagged = replace(ruling(Layer.STREAM), tags=("t1",))
        assert Flow(FlowPolicy(stream=lambda facts: tagged)).client(SSH).info.tags == ["t1"]


class TestUninspectable:
    def test_http2_is_refused_where_http_rules_would_be_evaded(self):
        flow = Flow(GUARDED).client(PREFACE)
        assert (flow.ended, flow.to_server) == (How.RESET, b"")
        assert flow.exceptions == [("uninspectable", "closed")]

    def test_the_exception_table_may_let_it_pass(self):
        flow = Flow(GUARDED, exceptions=OPEN).client(PREFACE)
        assert (flow.allowed, flow.exceptions) == (True, [("uninspectable", "open")])

    def test_rules_of_tls_do_not_close_http2(self):
        assert Flow(FlowPolicy(protocols=frozenset({Protocol.TLS}))).client(PREFACE).allowed


class TestUndecided:
    @pytest.mark.parametrize("by_time", [False, True])
    def test_it_is_refused_where_rules_would_be_evaded(self, by_time: bool):
        flow = Flow(GUARDED, limits=Limits() if by_time else SMALL).client(TEXT).wait(10)
        assert (flow.ended, flow.to_server) == (How.RESET, b"")
        assert (flow.detected, flow.exceptions) == ([Protocol.UNKNOWN], [("undecided", "closed")])

    @pytest.mark.parametrize("by_time", [False, True])
    @pytest.mark.parametrize("policy", [GUARDED, FlowPolicy()])
    def test_else_it_passes_as_unknown(self, by_time: bool, policy: FlowPolicy):
        exceptions = OPEN if policy is GUARDED else None
        limits = Limits() if by_time else SMALL
        flow = Flow(policy, limits=limits, exceptions=exceptions).client(TEXT).wait(10)
        flow.server(b"answer").client(b"more")
        assert (flow.to_server, flow.to_client) == (TEXT + b"more", b"answer")
        assert (flow.detected, flow.exceptions) == ([Protocol.UNKNOWN], [("undecided", "open")])

    @pytest.mark.parametrize("by_time", [False, True])
    def test_connection_rules_still_apply_to_it(self, by_time: bool):
        limits = Limits() if by_time else SMALL
        flow = Flow(blocking(Layer.STREAM, "drop"), limits=limits).client(TEXT).wait(10)
        assert (flow.ended, flow.to_server) == (How.DROP, b"")

    def test_time_counts_from_the_first_byte_and_silence_never_decides(self):
        flow = Flow(GUARDED).wait(1000).client(b"G").wait(9).client(b"E").wait(0.9)
        assert (flow.ended, flow.detected) == (None, [])
        assert flow.wait(0.2).ended is How.RESET


class TestServerFirst:
    def test_the_server_may_speak_first(self):
        flow = Flow().server(b"SSH-2.0-server\r\n")
        assert flow.to_client == b"SSH-2.0-server\r\n"
        flow.client(SSH)
        assert (flow.detected, flow.to_server) == ([Protocol.SSH], SSH)

    def test_its_greeting_does_not_classify_the_client(self):
        flow = Flow(GUARDED).server(b"SSH-2.0-server\r\n").client(GET)
        assert (flow.ended, flow.to_server) == (How.RESET, b"")
        assert flow.anomalies == [("http1.server_spoke_first", "refuse")]

    def test_tls_may_begin_after_a_dialogue(self):
        flow = Flow().server(b"220 ready\r\n").client(HELLO)
        assert (flow.detected, flow.to_server) == ([Protocol.TLS], HELLO)

    def test_an_early_http_answer_waits_for_the_request(self):
        flow = Flow().server(OK[:3], OK[3:])
        assert flow.to_client == b""
        flow.client(GET)
        assert (flow.to_client, flow.anomalies) == (OK, [])

    def test_an_early_http_answer_reaches_a_client_of_another_protocol(self):
        assert Flow().server(OK).client(SSH).to_client == OK
        assert Flow().server(b"HT").client(HELLO).to_client == b"HT"
        assert Flow().server(OK).client_fin().server_fin().to_client == OK

    def test_what_only_begins_like_it_passes(self):
        assert Flow().server(b"HT").server(b"TX").to_client == b"HTTX"
        assert Flow().server(b"HT").server_fin().to_client == b"HT"

    def test_a_server_that_has_gone_answers_no_request(self):
        flow = Flow().server_fin()
        assert flow.fin[1]
        assert flow.client(GET).ended is How.RESET


class TestUpstreamFails:
    def test_an_http_client_gets_an_answer(self):
        flow = Flow().signal(REFUSED).client(GET)
        assert flow.claimed == [True]
        assert flow.to_client.startswith(b"HTTP/1.1 502 ")

    @pytest.mark.parametrize("data", [SSH, PREFACE, HELLO, POSTGRES])
    def test_others_are_reset_and_named(self, data: bytes):
        flow = Flow().signal(REFUSED).client(data)
        assert flow.ended is How.RESET
        assert flow.detected == [flow.info.protocol]

    def test_tls_in_pieces_is_read_to_its_end_first(self):
        flow = Flow().client(HELLO[:50]).signal(REFUSED).client(HELLO[50:])
        assert (flow.claimed, flow.ended, flow.info.sni) == ([True], How.RESET, "a.test")

    def test_a_silent_client_is_reset_after_a_while(self):
        flow = Flow().signal(REFUSED).wait(9.9)
        assert flow.ended is None
        assert flow.wait(0.2).ended is How.RESET

    def test_an_undecided_client_is_reset_even_where_it_might_pass(self):
        assert Flow().client(TEXT).signal(REFUSED).wait(10).ended is How.RESET

    def test_a_server_that_has_spoken_is_not_excused(self):
        flow = Flow().server(b"220 hi\r\n").signal(UpstreamFailed(DialFailure.RESET))
        assert flow.claimed == [False]

    def test_an_upstream_that_comes_is_nobody_s_affair(self):
        assert Flow().signal(UpstreamConnected()).claimed == [False]


class TestDrainAndOverload:
    def test_a_silent_client_is_closed_on_drain(self):
        assert Flow().signal(Drain()).ended is How.CLOSE

    def test_a_request_that_has_begun_is_served_on_drain(self):
        flow = Flow().client(b"GET").signal(Drain()).client(GET[3:]).wait(0).server(OK)
        assert flow.to_server.startswith(b"GET / HTTP/1.1\r\n")
        assert flow.to_client.endswith(b"ok")
        assert flow.fin[1] or flow.ended is How.CLOSE

    @pytest.mark.parametrize("data", [b"", b"G", HELLO[:9]])
    def test_overload_sheds_what_is_not_recognised_yet(self, data: bytes):
        flow = Flow().client(data).signal(Overload())
        assert (flow.ended, flow.exceptions) == (How.RESET, [("overload", "closed")])

    def test_unless_the_table_says_otherwise(self):
        flow = Flow(exceptions=OPEN).signal(Overload()).client(GET)
        assert (flow.to_server, flow.exceptions) == (GET, [("overload", "open")])

    def test_a_half_read_hello_is_closed_on_drain(self):
        assert Flow().client(HELLO[:9]).signal(Drain()).ended is How.CLOSE


class TestTls:
    def test_a_bad_hello_is_refused_by_name(self):
        flow = Flow().client(BAD_HELLO)
        assert (flow.ended, flow.to_server) == (How.RESET, b"")
        assert flow.anomalies == [("tls.bad_client_hello", "refuse")]
        assert flow.exceptions == [("parse_error", "closed")]
        assert flow.detected == [Protocol.TLS]

    def test_a_hello_that_ends_early_is_bad(self):
        assert Flow().client(HELLO[:50]).client_fin().anomalies == [
            ("tls.bad_client_hello", "refuse")
        ]

    def test_a_hello_above_the_limit_is_refused_by_name(self):
        flow = Flow(limits=Limits(client_hello_bytes=100)).client(HELLO)
        assert flow.ended is How.RESET
        assert flow.anomalies == [("tls.client_hello_too_large", "refuse")]
        assert flow.exceptions == [("buffer_limit", "closed")]

    def test_let_through_unread_its_name_is_unknown_to_rules(self):
        policy = FlowPolicy(hello=lambda facts: None)
        flow = Flow(policy, exceptions=OPEN).client(BAD_HELLO)
        assert (flow.allowed, flow.to_server) == (True, BAD_HELLO)
        assert flow.anomalies == [("tls.bad_client_hello", "open")]
        assert policy.asked[0].unknown == {"sni", "alpn"}

    def test_a_hello_that_never_ends_is_undecided(self):
        assert Flow(GUARDED).client(HELLO[:50]).wait(10).ended is How.RESET
        flow = Flow().client(HELLO[:50]).wait(10).client(HELLO[50:])
        assert (flow.to_server, flow.exceptions) == (HELLO, [("undecided", "open")])

    def test_a_flow_that_ends_inside_the_hello_was_tls_all_the_same(self):
        assert Flow().client(HELLO[:50]).hang_up().detected == [Protocol.TLS]
        assert Flow().client(HELLO).hang_up().detected == [Protocol.TLS]

    def test_the_server_may_answer_before_the_hello_is_whole(self):
        flow = Flow().client(HELLO[:50]).server(b"\x15\x03\x01\x00\x02\x02\x28").server_fin()
        assert (len(flow.to_client), flow.fin[1]) == (7, True)


# --- the invariance law

TRACES = [
    [("C", GET), ("S", OK), ("C", GET), ("S", OK)],
    [("S", OK), ("C", GET)],
    [("S", b"220 hi\r\n"), ("C", GET)],
    [("S", b"220 hi\r\n"), ("C", HELLO), ("S", b"\x16\x03")],
    [("S", b"HTT"), ("C", SSH), ("S", b"more")],
    [("C", b"\r\nGE"), ("S", b"HTTX"), ("C", b"T / HTTP/1.1\r\n\r\n")],
    [("C", PREFACE + b"\0\0\0"), ("S", b"\0")],
    [("C", BAD_HELLO)],
    [("C", records(hello(sni((0, b"b.test"))), 3)), ("S", b"x")],
    [("C", TEXT), ("S", b"HTTP/1.0 200 OK\r\n\r\n")],
    [("C", POSTGRES), ("S", b"N"), ("C", HELLO)],
]
ENDS = {"C": Flow.client_fin, "S": Flow.server_fin}


def play(trace: list[tuple[str, bytes]], cut, last: str, **options) -> tuple[object, ...]:
    flow = Flow(**options)
    for number, (who, data) in enumerate(trace):
        (flow.client if who == "C" else flow.server)(*cut(number, data))
    flow.wait(20)
    ENDS[last](flow)
    return flow.hang_up("end").seen()


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("last", "CS")
@pytest.mark.parametrize("policy", [FlowPolicy(), GUARDED])
@pytest.mark.parametrize("limits", [Limits(), SMALL, Limits(client_hello_bytes=64)])
def test_cuts_change_nothing(trace, last: str, policy: FlowPolicy, limits: Limits):
    options = {"policy": policy, "limits": limits}
    whole = play(trace, lambda number, data: [data], last, **options)
    assert play(trace, lambda number, data: in_bytes(data), last, **options) == whole
    for place in range(1, max(len(data) for _, data in trace), 7):
        assert play(trace, partial(in_two, place), last, **options) == whole


def in_two(place: int, number: int, data: bytes) -> list[bytes]:
    return [data[:place], data[place:]]


@given(st.data())
def test_random_cuts_of_random_pieces_change_nothing(data: st.DataObject):
    pieces = st.sampled_from([GET[:9], GET, OK, SSH, PREFACE, HELLO, b"HTTP/", b"\r\n", POSTGRES])
    trace = data.draw(st.lists(st.tuples(st.sampled_from("CS"), pieces), max_size=4))
    cuts = data.draw(st.lists(st.integers(1, 300), max_size=8).map(sorted))
    limits = data.draw(st.sampled_from([Limits(), SMALL]))

    def cut(number: int, whole: bytes) -> list[bytes]:
        edges = [0, *(at for at in cuts if at < len(whole)), len(whole)]
        return [whole[a:b] for a, b in itertools.pairwise(edges)]

    expected = play(trace, lambda number, whole: [whole], "C", limits=limits)
    assert play(trace, cut, "C", limits=limits) == expected
