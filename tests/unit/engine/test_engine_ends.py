"""Rules 5 and 9: FIN, RST, the loss of an upstream, another upstream, signals, the close."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.contract import (
    PERMIT_FIN,
    AllowConnection,
    Block,
    Defer,
    DialFailure,
    Drain,
    DropConnection,
    How,
    NeedMoreData,
    Overload,
    Permit,
    Replace,
    Signal,
    StreamData,
    TimerFired,
    UpstreamConnected,
    UpstreamFailed,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.model import Endpoint, Layer
from proxy.records import Decided, Discarded
from tests.support.scripted import IN, OUT, Bench, Scripted

ELSEWHERE = Endpoint("192.0.2.77", 80)
RESET = UpstreamFailed(DialFailure.RESET, "reset by the upstream")


def at_fin(verdict: Verdict):
    """A callout that lets everything pass and answers the FIN so."""

    def on_data(callout: Scripted, data: StreamData) -> Verdict:
        return verdict if data.disconnect else Permit(len(data.data))

    return on_data


def record(text: str) -> Decided:
    return Decided(Layer.STREAM, text, "r", "p", 1)


# --- FIN


def test_fin_is_indicated_after_all_data_and_goes_through_per_direction():
    bench = Bench().stage()
    assert bench.engine.feed(fx.Data(OUT, b"x"), 0.0) == [fx.Write(OUT, b"x")]
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == [fx.Finish(OUT)]
    assert bench.callouts["a"].seen[-1] == (OUT, b"", 1, 0, "nd")
    assert bench.engine.feed(fx.Data(IN, b"half-close works"), 0.0) == [
        fx.Write(IN, b"half-close works")
    ]
    assert bench.engine.feed(fx.Disconnect(IN), 0.0) == [
        fx.Finish(IN),
        fx.End(How.CLOSE, "both sides have finished"),
    ]
    assert bench.engine.ended


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (PERMIT_FIN, [fx.Finish(OUT)]),
        (Permit(9), [fx.Finish(OUT)]),
        (Replace(0, b"bye"), [fx.Write(OUT, b"bye"), fx.Finish(OUT)]),
        (Block(0), []),
        (Defer(), [fx.Pause(OUT)]),
        (AllowConnection(), [fx.Finish(OUT), fx.Splice(IN, None)]),
        (DropConnection(How.DROP), [fx.End(How.DROP, "dropped by a")]),
    ],
)
def test_what_may_be_answered_to_a_fin(verdict, expected):
    bench = Bench().stage(at_fin(verdict))
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == expected


@pytest.mark.parametrize("verdict", [NeedMoreData(), Block(1), Replace(1, b"x"), Permit(-1)])
def test_what_may_not_be_answered_to_a_fin(verdict):
    bench = Bench().stage(at_fin(verdict))
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0)[-1] == fx.End(How.RESET, "callout_exception")


def test_a_swallowed_fin_leaves_the_direction_open_below():
    bench = Bench().stage(
        at_fin(Block(0)), on_signal=lambda callout, signal: callout.flow.inject(IN, b"later")
    )
    bench.stage(name="b")
    assert bench.engine.feed(fx.Disconnect(IN), 0.0) == []
    assert bench.engine.feed(Drain(), 0.0) == [fx.Write(IN, b"later")]


def test_a_deferred_fin_goes_when_the_callout_proceeds():
    def gate(callout: Scripted, data: StreamData) -> Verdict:
        return PERMIT_FIN if callout.signals else Defer()

    bench = Bench().stage(gate, on_signal=lambda callout, signal: callout.flow.proceed(OUT))
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == [fx.Pause(OUT)]
    assert bench.engine.feed(Drain(), 0.0) == [fx.Finish(OUT), fx.Resume(OUT)]


def test_finish_comes_after_injected_bytes_and_the_verdict_and_discards_later_input():
    def last_word(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.inject(IN, b"[")
        callout.flow.finish(IN)
        return Permit(2)

    bench = Bench().stage(last_word).stage(name="b")
    effects = bench.engine.feed(fx.Data(IN, b"abcd"), 0.0)
    assert effects == [fx.Write(IN, b"[ab"), fx.Finish(IN)]
    assert bench.shown("b") == [b"[", b"ab", b""]
    assert bench.engine.feed(fx.Data(IN, b"more"), 0.0) == []
    assert bench.engine.feed(fx.Disconnect(IN), 0.0) == []
    assert len(bench.shown("a")) == 1
    assert bench.budget.used == 0


def test_injecting_after_the_fin_is_a_contract_error():
    bench = Bench().stage(on_signal=lambda callout, signal: callout.flow.inject(OUT, b"late"))
    bench.engine.feed(fx.Disconnect(OUT), 0.0)
    effects = bench.engine.feed(Drain(), 0.0)
    assert "after the end" in effects[0].record.detail
    assert effects[-1] == fx.End(How.RESET, "callout_exception")


# --- RST and the loss of the upstream


def test_a_reset_by_the_client_ends_the_flow_at_once():
    bench = Bench().stage(on_signal=lambda callout, signal: True)
    assert bench.engine.feed(fx.Abort(OUT), 0.0) == [fx.End(How.RESET, "reset by the client")]
    assert bench.callouts["a"].signals == []


@pytest.mark.parametrize(
    ("indication", "reason"),
    [
        (fx.Abort(IN), "upstream reset"),
        (UpstreamFailed(DialFailure.REFUSED, "no"), "upstream refused"),
    ],
)
def test_a_lost_upstream_that_nobody_claims_is_a_reset(indication, reason):
    bench = Bench().stage().stage(name="b")
    assert bench.engine.feed(indication, 0.0) == [fx.End(How.RESET, reason)]
    assert len(bench.callouts["a"].signals) == len(bench.callouts["b"].signals) == 1


def answer_502(callout: Scripted, signal: Signal) -> bool:
    if isinstance(signal, UpstreamFailed):
        callout.flow.inject(OUT, b"for nobody")
        callout.flow.inject(IN, b"502")
        callout.flow.finish(IN)
        return True
    return False


def test_a_claimed_loss_keeps_the_client_side_open():
    def hold(callout: Scripted, data: StreamData) -> Verdict:
        return NeedMoreData() if data.direction is IN else Permit(len(data.data))

    bench = Bench().stage(hold).stage(on_signal=answer_502, name="http").stage(name="below")
    bench.engine.feed(fx.Data(IN, b"part of a head"), 0.0)
    effects = bench.engine.feed(fx.Abort(IN), 0.0)
    assert effects == [fx.Write(IN, b"502"), fx.Finish(IN), fx.Finish(OUT)]
    assert bench.budget.used == 0
    assert bench.callouts["a"].signals == [RESET]
    assert bench.callouts["below"].signals == []  # the claim ends the offer
    assert bench.engine.feed(fx.Data(IN, b"a ghost"), 0.0) == []
    assert bench.shown("a") == [b"part of a head"]
    assert bench.engine.feed(fx.Data(OUT, b"next request"), 0.0) == []
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == [
        fx.End(How.CLOSE, "both sides have finished")
    ]


def test_another_upstream_begins_both_streams_anew():
    def http(callout: Scripted, data: StreamData) -> Verdict:
        if data.data == b"GET other":
            callout.flow.dial(ELSEWHERE)
        if data.disconnect and data.direction is IN:
            return Block(0)
        return Permit(len(data.data))

    def finish(callout: Scripted, signal: Signal) -> bool:
        if isinstance(signal, TimerFired):
            callout.flow.finish(OUT)
        return True

    bench = Bench().stage(name="above").stage(http, name="http", on_signal=finish)
    bench.stage(name="below")
    engine = bench.engine
    assert engine.feed(fx.Data(OUT, b"GET one"), 0.0) == [fx.Write(OUT, b"GET one")]
    assert engine.feed(fx.Disconnect(IN), 0.0) == []
    assert engine.feed(fx.Abort(IN), 0.0) == [fx.Finish(OUT)]
    assert engine.feed(fx.Data(OUT, b"GET other"), 0.0) == [
        fx.Dial(ELSEWHERE),
        fx.Write(OUT, b"GET other"),
    ]
    assert engine.feed(UpstreamConnected(), 0.0) == []
    assert engine.feed(fx.Data(IN, b"200"), 0.0) == [fx.Write(IN, b"200")]
    assert engine.feed(fx.Disconnect(OUT), 0.0) == [fx.Finish(OUT)]
    assert engine.feed(fx.Disconnect(IN), 0.0) == []
    assert bench.shown("below") == [b"GET one", b"GET other", b"200", b""]


def test_stale_bytes_of_the_old_upstream_do_not_reach_the_new_conversation():
    def holder(callout: Scripted, data: StreamData) -> Verdict:
        wait = data.data in (b"stale", b"unfinished")
        return NeedMoreData(100) if wait else Permit(len(data.data))

    bench = Bench().stage(holder, name="above")
    bench.stage(on_signal=lambda callout, signal: callout.flow.dial(ELSEWHERE), name="http")
    bench.stage(holder, name="below")
    bench.engine.feed(fx.Data(IN, b"stale"), 0.0)
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    effects = bench.engine.feed(Overload(), 0.0)
    assert effects == [fx.Emit(Discarded(IN, 5, "above")), fx.Dial(ELSEWHERE)]
    assert bench.engine.feed(fx.Data(IN, b"fresh"), 0.0) == [fx.Write(IN, b"fresh")]
    assert bench.callouts["http"].seen[-1] == (IN, b"fresh", 0, 5, "")
    assert bench.budget.used == 0


def test_dialling_while_judging_inbound_first_lets_the_verdicts_bytes_pass():
    def http(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.dial(ELSEWHERE)
        callout.flow.inject(OUT, b"GET")
        return Permit(4)

    bench = Bench().stage(http)
    effects = bench.engine.feed(fx.Data(IN, b"lastjunk"), 0.0)
    assert effects == [
        fx.Write(IN, b"last"),
        fx.Emit(Discarded(IN, 4, "a")),
        fx.Dial(ELSEWHERE),
        fx.Write(OUT, b"GET"),
    ]


def test_a_new_upstream_hears_that_reading_is_paused():
    bench = Bench().stage(lambda callout, data: Defer(), name="below", weight=-5)
    bench.stage(on_signal=lambda callout, signal: _dial_once(callout, signal), weight=5)
    assert bench.engine.feed(fx.Data(IN, b"x"), 0.0) == [fx.Pause(IN)]
    assert bench.engine.feed(Overload(), 0.0) == [fx.Dial(ELSEWHERE)]
    assert bench.engine.feed(UpstreamConnected(), 0.0) == [fx.Pause(IN)]


def _dial_once(callout: Scripted, signal: Signal) -> bool:
    if isinstance(signal, Overload):
        callout.flow.dial(ELSEWHERE)
    return False


# --- signals, timers, drops


@pytest.mark.parametrize("signal", [UpstreamConnected(), Drain(), Overload()])
def test_news_of_the_process_goes_to_every_stage_and_does_nothing_by_itself(signal):
    bench = Bench().stage(on_signal=lambda callout, one: True).stage(name="b")
    assert bench.engine.feed(signal, 0.0) == []
    assert bench.callouts["a"].signals == bench.callouts["b"].signals == [signal]
    assert not bench.engine.ended


def test_a_timer_comes_back_to_the_stage_that_set_it():
    def on_data(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.set_timer("late", 2.5)
        return Permit(1)

    bench = Bench().stage().stage(on_data, name="b")
    effects = bench.engine.feed(fx.Data(OUT, b"x"), 10.0)
    assert effects == [fx.SetTimer(1, "late", 2.5), fx.Write(OUT, b"x")]
    bench.engine.feed(fx.StageTimer(1, "late"), 12.5)
    assert bench.callouts["a"].signals == []
    assert bench.callouts["b"].signals == [TimerFired("late")]
    assert bench.callouts["b"].flow.now == 12.5
    assert bench.engine.feed(fx.StageTimer(9, "nobody's"), 12.5) == []


def test_a_timer_may_be_set_while_the_callout_is_made():
    bench = Bench().stage()
    plain = bench.registrations[0]

    def make(flow):
        flow.set_timer("begin", 1.0)
        return plain.make(flow)

    bench.registrations[0] = replace(plain, make=make)
    assert bench.engine.feed(UpstreamConnected(), 0.0) == [fx.SetTimer(0, "begin", 1.0)]


@pytest.mark.parametrize("how", list(How))
def test_a_callout_may_end_the_flow_by_verdict_or_by_signal(how):
    bench = Bench().stage(lambda callout, data: DropConnection(how))
    assert bench.engine.feed(fx.Data(OUT, b"x"), 0.0) == [fx.End(how, "dropped by a")]
    bench = Bench().stage(on_signal=lambda callout, signal: callout.flow.drop(how))
    assert bench.engine.feed(Drain(), 0.0) == [fx.End(how, "dropped by a")]


# --- the close


def test_closed_is_called_exactly_once_whoever_ended_the_flow():
    def final(callout: Scripted, reason: str) -> None:
        callout.flow.emit(record(reason))

    for end in (None, fx.Abort(OUT)):
        bench = Bench().stage(on_closed=final).stage(name="b")
        if end is not None:
            bench.engine.feed(end, 0.0)
        assert bench.engine.close("over", 0.0) == [fx.Emit(record("over"))]
        assert bench.engine.close("again", 0.0) == []
        assert bench.callouts["a"].closings == bench.callouts["b"].closings == ["over"]
        assert bench.engine.ended
        assert bench.engine.feed(fx.Data(OUT, b"x"), 0.0) == []


def test_closed_may_only_emit():
    def eager(callout: Scripted, reason: str) -> None:
        callout.flow.set_timer("never", 1.0)
        callout.flow.inject(IN, b"too late")
        callout.flow.emit(record("last"))

    bench = Bench().stage(on_closed=eager)
    assert bench.engine.close("over", 0.0) == [fx.Emit(record("last"))]


def test_a_handle_is_useless_outside_of_calls():
    bench = Bench().stage()
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    with pytest.raises(Exception, match="during classify"):
        bench.callouts["a"].flow.inject(OUT, b"y")


def test_records_come_in_order_with_the_writes():
    def log(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.emit(record(bytes(data.data[:1]).decode()))
        return Permit(1)

    bench = Bench().stage(log)
    assert bench.engine.feed(fx.Data(OUT, b"ab"), 0.0) == [
        fx.Emit(record("a")),
        fx.Write(OUT, b"a"),
        fx.Emit(record("b")),
        fx.Write(OUT, b"b"),
    ]


def test_small_adjacent_writes_are_one_and_large_ones_stay_apart():
    def per_kilobyte(callout: Scripted, data: StreamData) -> Verdict:
        return Permit(min(32768, len(data.data)))

    bench = Bench().stage(per_kilobyte)
    effects = bench.engine.feed(fx.Data(OUT, bytes(5 * 32768)), 0.0)
    assert [len(effect.data) for effect in effects] == [65536, 65536, 32768]
