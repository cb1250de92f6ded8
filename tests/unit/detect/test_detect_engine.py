"""The protocol stage in the real engine: every trace, in any cuts, comes to the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.callouts.context import CalloutContext
from proxy.callouts.protocol import ProtocolStage
from proxy.contract import DialFailure, Drain, FlowHandle, UpstreamFailed
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.engine.engine import Engine
from proxy.engine.registration import Kind, Mode, Registration
from proxy.limits import Limits, StreamConfig
from proxy.model import Direction, Endpoint, FlowInfo, Protocol, RedirectInfo
from proxy.records import Detected
from tests.support.invariance import (
    Elapse,
    Item,
    Outcome,
    assert_invariant,
    conversation,
    cuts_of,
    drive,
    every_cut,
)
from tests.unit.detect.protocol_driver import WALL, FlowPolicy
from tests.unit.detect.test_detect_client_hello import openssl_hello

OUT, IN = Direction.OUTBOUND, Direction.INBOUND
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HELLO = openssl_hello("a.test", ("h2",))
GREETING = b"220 hi\r\n"
FAILED = UpstreamFailed(DialFailure.REFUSED)
GUARDED = FlowPolicy(protocols=frozenset({Protocol.HTTP1}))


def make_engine(policy: FlowPolicy | None = None, limits: Limits | None = None) -> Engine:
    redirect = RedirectInfo("static", Endpoint("192.0.2.1", 80), Endpoint("192.0.2.9", 9))
    chosen, config = policy or FlowPolicy(), StreamConfig(limits or Limits())

    def stage(flow: FlowHandle) -> ProtocolStage:
        return ProtocolStage(CalloutContext(flow, config, lambda: chosen, lambda: WALL))

    registration = Registration("protocol", 1, Kind.TERMINATING, Mode.INLINE, stage)
    info, budget = FlowInfo("f1", redirect, 0.0), Budget(config.limits.process_buffer)
    return Engine(info, [registration], config, budget, lambda: 0.0)


def detected(outcome: Outcome) -> list[Protocol]:
    return [r.protocol for r in outcome.records if isinstance(r, Detected)]


TRACES: dict[str, list[Item]] = {
    "http": conversation(("C", GET), ("S", OK), ("C", GET), ("S", OK)),
    "pipelined": conversation(("C", GET + GET), ("S", OK + OK)),
    "early answer": conversation(("S", OK), ("C", GET)),
    "greeting": conversation(("S", GREETING), ("C", b"EHLO a\r\n"), ("S", b"250 a\r\n")),
    "greeting, then http": conversation(("S", GREETING), ("C", GET)),
    "tls": conversation(("C", HELLO + b"\x17\x03\x03"), ("S", b"\x16\x03\x03\0\x01")),
    "starttls": conversation(("S", GREETING), ("C", HELLO)),
    "half an answer": conversation(("S", b"HTT"), ("C", b"SSH-2.0-x\r\n"), ("S", b"P/")),
    "slow": [
        *conversation(("C", b"FROB"))[:1],
        Elapse(11),
        *conversation(("C", b" x"), ("S", b"y")),
    ],
    "slow hello": [*conversation(("C", HELLO[:60]))[:1], Elapse(11), *conversation(("C", b"x"))],
    "failed": [FAILED, *conversation(("C", GET))],
    "failed tls": [*conversation(("C", HELLO[:60]))[:1], FAILED, *conversation(("C", HELLO[60:]))],
    "drain": [*conversation(("C", GET[:5]))[:1], Drain(), *conversation(("C", GET[5:]), ("S", OK))],
    "silence": conversation(),
}


@pytest.mark.parametrize("name", TRACES)
@given(data=st.data())
def test_cuts_change_nothing(name: str, data: st.DataObject):
    cuts = data.draw(cuts_of(TRACES[name]))
    for policy in (FlowPolicy(), GUARDED):
        assert_invariant(lambda policy=policy: make_engine(policy), TRACES[name], cuts)


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP", b"\r\nSSH-2.0", b"\x16\x03\x01\x00\x01\x02", b"PRI * H"]
)
def test_every_cut_of_short_beginnings(begin: bytes):
    trace = [fx.Data(OUT, begin), fx.Data(IN, b"HT"), fx.Disconnect(OUT), fx.Disconnect(IN)]
    whole = drive(make_engine, trace)
    for cuts in every_cut(trace):
        assert_invariant(make_engine, trace, cuts, whole=whole)


def test_what_was_held_passes_when_time_is_up_and_nothing_forbids_it():
    outcome = drive(make_engine, TRACES["slow"][:2])
    assert (outcome.outbound, outcome.end) == (b"FROB", None)
    assert detected(outcome) == [Protocol.UNKNOWN]
    assert drive(make_engine, TRACES["slow hello"][:2]).outbound == HELLO[:60]


def test_a_server_that_speaks_first_is_heard_at_once_and_half_close_works():
    outcome = drive(make_engine, TRACES["greeting"])
    assert outcome.steps[0].inbound == GREETING
    assert (outcome.outbound, outcome.inbound) == (b"EHLO a\r\n", GREETING + b"250 a\r\n")
    assert outcome.steps[3].finished == (True, False)
    assert outcome.steps[4].finished == (True, True)


def test_an_early_answer_is_delivered_once_there_is_a_request():
    outcome = drive(make_engine, TRACES["early answer"])
    assert outcome.steps[0].inbound == b""
    assert (outcome.outbound, outcome.inbound) == (GET, OK)


def test_recognised_flows_of_other_protocols_may_be_offloaded_whole():
    outcome = drive(make_engine, TRACES["tls"])
    assert {(e.direction, e.n) for e in outcome.effects if isinstance(e, fx.Splice)} == {
        (OUT, None),
        (IN, None),
    }
