"""`replace` at `stream`: raw bytes changed in flight, greetings among them, in any cuts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract import DialFailure, Drain, UpstreamFailed
from proxy.engine import effects as fx
from proxy.model import Direction, Layer, Protocol
from proxy.patterns import StreamPattern, literal, regex
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import Ruling
from proxy.records import Decided
from tests.support.invariance import (
    Elapse,
    Item,
    Outcome,
    assert_invariant,
    conversation,
    cuts_of,
    drive,
)
from tests.unit.detect.protocol_driver import FlowPolicy
from tests.unit.detect.test_detect_client_hello import openssl_hello
from tests.unit.detect.test_detect_engine import GET, OK, make_engine
from tests.unit.http.stage_driver import ruling

OUT, IN = Direction.OUTBOUND, Direction.INBOUND
GREETING = b"220 mail.acme.test ESMTP Postfix (Debian) ready\r\n"
EHLO = b"EHLO client.acme.test\r\n"
HELLO = openssl_hello("a.test", ())


def replacing(
    *items: tuple[StreamPattern, str],
    direction: str = "both",
    when: Callable[[Facts], bool] = lambda facts: True,
    fields: frozenset[str] = frozenset({"protocol"}),
) -> FlowPolicy:
    """A policy with one rule of the layer; `when` is its condition on what is known."""
    edit = ast.Replace(tuple(ast.Replacement(p, by) for p, by in items), direction)

    def decide(facts: Facts) -> Ruling | None:
        return ruling(Layer.STREAM, None, edit) if when(facts) else None

    return FlowPolicy(stream=decide, fields=fields)


HIDE = replacing((literal("Postfix (Debian)"), "ready"), (literal("acme"), "example"))


def run(policy: FlowPolicy, trace: list[Item], **more: Any) -> Outcome:
    return drive(lambda: make_engine(policy), trace, **more)


def hits(outcome: Outcome) -> list[tuple[str, str]]:
    return [(r.rule, r.detail) for r in outcome.records if isinstance(r, Decided)]


def test_a_greeting_is_edited_from_its_first_byte_while_the_client_is_silent() -> None:
    outcome = run(HIDE, conversation(("S", GREETING), ("C", EHLO), ("S", b"250 acme\r\n")))
    assert outcome.steps[0].inbound == b"220 mail.example.test ESMTP ready ready\r\n"
    assert outcome.steps[1].outbound == b"EHLO client.example.test\r\n"
    assert outcome.inbound == outcome.steps[0].inbound + b"250 example\r\n"
    assert hits(outcome) == [("r1", "")]


def test_a_greeting_is_told_even_if_no_client_ever_speaks() -> None:
    outcome = run(HIDE, conversation(("S", GREETING)))
    assert outcome.inbound == b"220 mail.example.test ESMTP ready ready\r\n"
    assert hits(outcome) == [("r1", "")]


@pytest.mark.parametrize("direction", ["outbound", "inbound", "both"])
def test_a_direction_that_is_not_named_passes_untouched(direction: str) -> None:
    policy = replacing((literal("acme"), "x"), direction=direction)
    outcome = run(policy, conversation(("C", b"SSH-acme\r\n"), ("S", b"SSH-acme\r\n")))
    changed = b"SSH-x\r\n", b"SSH-acme\r\n"
    assert outcome.outbound == changed[direction == "inbound"]
    assert outcome.inbound == changed[direction == "outbound"]


def test_a_held_end_goes_out_before_the_fin_and_the_other_direction_stays_open() -> None:
    policy = replacing((literal("secret"), "x"))
    trace = [
        fx.Data(OUT, b"FROB me a sec"),
        fx.Disconnect(OUT),
        fx.Data(IN, b"here: secret, sec"),
        fx.Disconnect(IN),
    ]
    outcome = run(policy, trace)
    assert outcome.steps[1].outbound == b"FROB me a sec"
    assert outcome.steps[1].finished == (True, False)
    assert outcome.steps[2].inbound == b"here: x, "
    assert outcome.inbound == b"here: x, sec"
    assert outcome.steps[3].finished == (True, True)


def test_only_a_live_prefix_is_held() -> None:
    policy = replacing((literal("secret"), "x"))
    begin = conversation(("C", b"SSH-2.0-a\r\n"))[:1]
    outcome = run(policy, [*begin, fx.Data(OUT, b"to secr"), fx.Data(OUT, b"ecy")])
    assert outcome.steps[1].outbound == b"SSH-2.0-a\r\nto "
    assert outcome.steps[2].outbound == b"SSH-2.0-a\r\nto secrecy"


def test_a_rule_on_the_protocol_does_not_edit_a_greeting_but_what_follows() -> None:
    policy = replacing(
        (literal("acme"), "x"), when=lambda facts: facts.flow.protocol is Protocol.SMTP
    )
    outcome = run(policy, conversation(("S", b"220 acme\r\n"), ("C", EHLO), ("S", b"250 acme\r\n")))
    assert outcome.inbound == b"220 acme\r\n250 x\r\n"
    assert hits(outcome) == [("r1", "")]


def test_a_rule_that_holds_for_every_protocol_behind_a_greeting_edits_it() -> None:
    policy = replacing(
        (literal("acme"), "x"), when=lambda facts: facts.flow.protocol is not Protocol.TLS
    )
    assert run(policy, conversation(("S", b"220 acme\r\n"))).inbound == b"220 x\r\n"


def test_a_rule_that_may_refuse_the_flow_does_not_keep_others_from_editing() -> None:
    edit = ast.Replace((ast.Replacement(literal("acme"), "x"),))

    def decide(facts: Facts) -> Ruling:
        if facts.flow.protocol is Protocol.SSH:
            return ruling(Layer.STREAM, ast.Block(), rule="no-ssh")
        return ruling(Layer.STREAM, None, edit)

    policy = FlowPolicy(stream=decide, fields=frozenset({"protocol"}))
    outcome = run(policy, conversation(("S", b"220 acme\r\n"), ("C", b"SSH-2.0-x\r\n")))
    assert outcome.inbound == b"220 x\r\n"
    assert outcome.end is not None
    assert hits(outcome) == [("r1", ""), ("no-ssh", "")]


def test_a_rule_that_joins_later_works_on_what_earlier_ones_leave() -> None:
    first = ast.Replace((ast.Replacement(literal("ab"), "c"),))
    then = ast.Replace((ast.Replacement(literal("cc"), "!"),))

    def decide(facts: Facts) -> Ruling:
        late = facts.flow.protocol is Protocol.SMTP
        return ruling(Layer.STREAM, None, *((first, then) if late else (first,)))

    policy = FlowPolicy(stream=decide, fields=frozenset({"protocol"}))
    trace = conversation(("S", b"220 abab a"), ("C", EHLO), ("S", b"bab.\r\n"))
    assert run(policy, trace).inbound == b"220 cc !.\r\n"


@pytest.mark.parametrize(
    ("trace", "protocol"),
    [
        (conversation(("C", GET), ("S", OK)), "http1"),
        (conversation(("C", HELLO), ("S", b"\x16\x03\x03\0\x02ok")), "tls"),
        (conversation(("C", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ("S", b"ok")), "http2"),
    ],
)
def test_it_does_not_apply_to_http_and_tls_and_the_record_says_so(
    trace: list[Item], protocol: str
) -> None:
    edited = run(replacing((regex("ok|G|S|."), "x")), trace)
    plain = run(FlowPolicy(), trace)
    assert (edited.outbound, edited.inbound) == (plain.outbound, plain.inbound)
    assert hits(edited) == [("r1", f"replace does not apply to {protocol}")]


def test_what_a_greeting_holds_is_not_lost_when_tls_follows() -> None:
    policy = replacing((literal("secret"), "x"))
    trace = conversation(("S", b"220 secret sec"), ("C", HELLO), ("S", b"ret"))
    outcome = run(policy, trace)
    assert outcome.steps[0].inbound == b"220 x "
    assert (outcome.outbound, outcome.inbound) == (HELLO, b"220 x secret")
    assert hits(outcome) == [("r1", "")]


def test_http_behind_a_greeting_is_refused_as_ever() -> None:
    outcome = run(HIDE, conversation(("S", GREETING), ("C", GET)))
    assert outcome.end is not None
    assert outcome.outbound == b""


def test_a_flow_that_is_not_recognised_in_time_is_edited() -> None:
    policy = replacing((literal("acme"), "x"))
    begin = conversation(("C", b"acme"))[:1]
    outcome = run(policy, [*begin, Elapse(11), *conversation(("C", b" acme"), ("S", b"acme"))])
    assert (outcome.outbound, outcome.inbound) == (b"x x", b"x")


def test_a_direction_without_edits_may_be_offloaded() -> None:
    policy = replacing((literal("acme"), "x"), direction="outbound")
    trace = conversation(("C", b"SSH-2.0-x\r\n"), ("S", b"acme" * 1000))
    outcome = run(policy, trace, offload=True)
    assert outcome.inbound == b"acme" * 1000
    spliced = {effect.direction for effect in outcome.effects if isinstance(effect, fx.Splice)}
    assert spliced == {IN}


def test_a_drain_and_a_lost_upstream_are_as_on_any_opaque_flow() -> None:
    policy = replacing((literal("acme"), "x"))
    begin = conversation(("C", b"SSH-2.0-x\r\n"))[:1]
    drained = run(policy, [*begin, Drain(), *conversation(("C", b"acme"), ("S", b"acme"))])
    assert (drained.outbound, drained.inbound) == (b"SSH-2.0-x\r\nx", b"x")
    assert run(policy, [*begin, UpstreamFailed(DialFailure.RESET)]).end is not None


def test_a_megabyte_each_way_is_edited_as_a_whole_would_be() -> None:
    rng = random.Random(7)
    up, down = (
        b"".join(rng.choices([b"card 4111-1111 ", b"4111-", b"filler\n", b"\0\xff"], k=130_000))
        for _ in range(2)
    )
    policy = replacing((regex(r"(\d{4})-\d{4}"), r"\1-XXXX"), (literal("filler"), ""))
    trace = conversation(("C", b"SSH-2.0-x\r\n" + up), ("S", down))
    outcome = assert_invariant(
        lambda: make_engine(policy), trace, range(0, len(up) + len(down), 60_000)
    )

    def whole(data: bytes) -> bytes:
        return re.sub(rb"(\d{4})-\d{4}|filler", lambda m: m[1] + b"-XXXX" if m[1] else b"", data)

    assert outcome.outbound == whole(b"SSH-2.0-x\r\n" + up)
    assert outcome.inbound == whole(down)


TRACES: dict[str, list[Item]] = {
    "greeting": conversation(("S", GREETING), ("C", EHLO), ("S", b"250 acme\r\n")),
    "client first": conversation(("C", b"SSH-acme\r\n"), ("S", b"acme" * 3 + b"ac")),
    "http": conversation(("C", GET), ("S", OK)),
    "tls behind a greeting": conversation(("S", b"220 acme ac"), ("C", HELLO), ("S", b"me")),
    "server ends first": [fx.Data(IN, b"acme Pos"), fx.Disconnect(IN), fx.Data(OUT, b"QUIT acm")],
    "half an answer": conversation(("S", b"HTT"), ("C", b"SSH-2.0-x\r\n"), ("S", b"P/ acme")),
    "slow": [*conversation(("C", b"acm"))[:1], Elapse(11), *conversation(("C", b"e"))],
}


@pytest.mark.parametrize("name", TRACES)
@given(data=st.data())
def test_cuts_change_nothing(name: str, data: st.DataObject) -> None:
    cuts = data.draw(cuts_of(TRACES[name]))
    assert_invariant(lambda: make_engine(HIDE), TRACES[name], cuts)
