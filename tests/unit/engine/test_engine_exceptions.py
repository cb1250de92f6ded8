"""Rules 7, 8 and 10: inspection-only and out-of-band stages, and the exception table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.contract import (
    Answer,
    Block,
    Defer,
    Drain,
    DropConnection,
    How,
    NeedMoreData,
    Permit,
    Replace,
    Signal,
    StreamData,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.engine.lane import ASK_WINDOW
from proxy.engine.registration import Kind, Mode
from proxy.limits import Cause, ExceptionPolicies, Limits, OnException, StreamConfig
from proxy.records import ExceptionApplied, Uninspected
from tests.support.scripted import IN, OUT, Bench, Scripted

LOOK = Kind.INSPECTION
ASKS = Mode.OUT_OF_BAND


# --- the exception table: every cause of the engine's own, with both actions


def raises(callout: Scripted, data: StreamData) -> Verdict:
    if data.data == b"2":
        raise KeyError("broken")
    return Permit(len(data.data))


def breaks_contract(callout: Scripted, data: StreamData) -> Verdict:
    return Permit(0) if data.data == b"2" else Permit(len(data.data))


def holds(callout: Scripted, data: StreamData) -> Verdict:
    return NeedMoreData()


def too_slow(callout: Scripted, data: StreamData) -> Verdict:
    if data.data == b"2":
        callout.clock.now += 9.0  # type: ignore[attr-defined]
    return Permit(len(data.data))


def unanswered(callout: Scripted, data: StreamData) -> Verdict:
    if data.data == b"2":
        callout.flow.ask("who?", 1.0)
        return Defer()
    return Permit(len(data.data))


@pytest.mark.parametrize("action", list(OnException))
@pytest.mark.parametrize(
    ("on_data", "cause"),
    [
        (raises, Cause.CALLOUT_EXCEPTION),
        (breaks_contract, Cause.CALLOUT_EXCEPTION),
        (holds, Cause.BUFFER_LIMIT),
        (too_slow, Cause.CALLOUT_OVERRUN),
        (unanswered, Cause.CALLOUT_OVERRUN),
    ],
)
def test_exception_table(on_data, cause, action):
    others = OnException.OPEN if action is OnException.CLOSED else OnException.CLOSED
    table = {one.value: others for one in Cause} | {cause.value: action}
    config = StreamConfig(Limits(stage_buffer=3), ExceptionPolicies(**table))
    bench = Bench(config).stage(on_data, mode=ASKS).stage(name="b")
    engine = bench.engine
    bench.callouts["a"].clock = bench.clock  # type: ignore[attr-defined]
    effects = [one for text in b"123" for one in engine.feed(fx.Data(OUT, bytes([text])), 0.0)]
    effects += engine.resume(1, None, "no answer within 1 s", 0.0)
    applied = [one.record for one in effects if isinstance(one, fx.Emit)]
    assert [(one.cause, one.action, one.callout) for one in applied] == [(cause, action, "a")]
    written = b"".join(one.data for one in effects if isinstance(one, fx.Write))
    if action is OnException.CLOSED:
        assert fx.End(How.RESET, cause.value) in effects
        assert b"2" not in written
    else:
        assert not engine.ended
        assert written == b"123"
        calls = len(bench.shown())
        engine.feed(fx.Data(IN, b"unseen"), 0.0)
        assert len(bench.shown()) == calls
    final = engine.close("over", 0.0)
    open_records = [one.record.reason for one in final if isinstance(one.record, Uninspected)]
    assert ("exception_open" in open_records) is (action is OnException.OPEN)
    assert bench.callouts["a"].closings == ["over"]
    assert bench.budget.used == 0


def test_the_verdict_of_an_overrun_still_counts_when_the_action_is_open():
    def late_block(callout: Scripted, data: StreamData) -> Verdict:
        callout.clock.now += 9.0  # type: ignore[attr-defined]
        return Block(2)

    table = ExceptionPolicies(callout_overrun=OnException.OPEN)
    bench = Bench(StreamConfig(exceptions=table)).stage(late_block)
    assert bench.engine
    bench.callouts["a"].clock = bench.clock  # type: ignore[attr-defined]
    effects = bench.engine.feed(fx.Data(OUT, b"evil ok"), 0.0)
    assert fx.Write(OUT, b"il ok") in effects


@pytest.mark.parametrize("where", ["make", "signal", "closed"])
def test_no_exception_of_a_callout_escapes(where):
    def bang(*_: object) -> bool:
        raise RuntimeError("bang")

    bench = Bench().stage(
        on_signal=bang if where == "signal" else None, on_closed=bang if where == "closed" else None
    )
    if where == "make":
        bench.registrations[0] = replace(bench.registrations[0], make=bang)
    effects = bench.engine.feed(Drain(), 0.0) + bench.engine.close("over", 0.0)
    applied = ExceptionApplied(
        Cause.CALLOUT_EXCEPTION, OnException.CLOSED, "a", "RuntimeError: bang"
    )
    assert fx.Emit(applied) in effects
    assert bench.engine.ended


def test_an_exception_touches_one_flow_only():
    one, other = Bench().stage(raises), Bench().stage(raises)
    one.engine.feed(fx.Data(OUT, b"2"), 0.0)
    assert one.engine.ended
    assert other.engine.feed(fx.Data(OUT, b"1"), 0.0) == [fx.Write(OUT, b"1")]


def test_wishes_of_a_failed_call_are_dropped_but_its_records_are_kept():
    def fail(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.emit(Uninspected(OUT, 1, "fact"))
        callout.flow.inject(IN, b"half done")
        raise ValueError

    effects = Bench().stage(fail).engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert effects[0] == fx.Emit(Uninspected(OUT, 1, "fact"))
    assert not [one for one in effects if isinstance(one, fx.Write)]


# --- rule 7: inspection only


def test_an_inspection_sees_a_copy_and_never_delays():
    def ahead(callout: Scripted, data: StreamData) -> Verdict:
        return NeedMoreData() if len(data.data) < 4 and not data.no_more_data else Permit(2)

    bench = Bench().stage(ahead, kind=LOOK)
    passed = [bench.engine.feed(fx.Data(OUT, bytes([byte])), 0.0) for byte in b"abcde"]
    assert [effect.data for [effect] in passed] == [b"a", b"b", b"c", b"d", b"e"]
    assert bench.shown() == [b"a", b"ab", b"abc", b"abcd", b"cd", b"cde"]
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == [fx.Finish(OUT)]


@pytest.mark.parametrize("verdict", [Block(1), Replace(1, b"x"), Defer()])
def test_an_inspection_that_would_change_the_stream_breaks_the_contract(verdict):
    bench = Bench().stage(lambda callout, data: verdict, kind=LOOK)
    effects = bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert effects[-1] == fx.End(How.RESET, "callout_exception")


@pytest.mark.parametrize("wish", ["inject", "finish", "dial"])
def test_an_inspection_may_not_touch_the_flow(wish):
    def touch(callout: Scripted, data: StreamData) -> Verdict:
        arguments = (OUT, b"x") if wish == "inject" else (OUT,)
        getattr(callout.flow, wish)(*arguments)
        return Permit(1)

    effects = Bench().stage(touch, kind=LOOK).engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert "inspection-only" in effects[0].record.detail


def test_a_drop_by_an_inspection_is_ignored():
    def drop(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.drop()
        return DropConnection()

    bench = Bench().stage(drop, kind=LOOK).stage(name="b")
    assert bench.engine.feed(fx.Data(OUT, b"x"), 0.0) == [fx.Write(OUT, b"x")]
    assert not bench.engine.ended


def test_an_inspection_cannot_claim_the_loss_of_the_upstream():
    bench = Bench().stage(on_signal=lambda callout, signal: True, kind=LOOK)
    assert bench.engine.feed(fx.Abort(IN), 0.0) == [fx.End(How.RESET, "upstream reset")]


# --- rule 8: out of band


def inquire(callout: Scripted, data: StreamData) -> Verdict:
    """Ask once; block or permit as the answer says."""
    answers = [one for one in callout.signals if isinstance(one, Answer)]
    if data.disconnect or (answers and answers[-1].value):
        return Permit(len(data.data))
    if answers:
        return Block(len(data.data))
    callout.flow.ask("may it pass?", 3.0)
    return Defer()


@pytest.mark.parametrize(("value", "written"), [(True, [fx.Write(OUT, b"onetwo")]), (False, [])])
def test_a_question_holds_its_direction_until_the_answer(value, written):
    bench = Bench().stage(inquire, mode=ASKS)
    assert bench.engine.feed(fx.Data(OUT, b"one"), 0.0) == [fx.Ask(1, "may it pass?", 3.0)]
    assert bench.engine.feed(fx.Data(OUT, b"two"), 0.0) == []
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == []
    effects = bench.engine.resume(1, value, None, 0.0)
    assert [one for one in effects if isinstance(one, fx.Write)] == written
    assert effects[-1] == fx.Finish(OUT)
    assert bench.engine.resume(1, value, None, 0.0) == []  # answered already


def test_bytes_behind_a_question_are_bounded_then_the_source_is_paused():
    bench = Bench().stage(inquire, mode=ASKS)
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert bench.engine.feed(fx.Data(OUT, bytes(ASK_WINDOW)), 0.0) == [fx.Pause(OUT)]
    assert bench.engine.feed(fx.Data(IN, b""), 0.0) == []
    assert bench.engine.resume(1, True, None, 0.0)[-1] == fx.Resume(OUT)


def test_a_question_in_answer_to_an_answer_keeps_waiting():
    def again(callout: Scripted, signal: Signal) -> bool:
        if isinstance(signal, Answer) and signal.ask_id == 1:
            callout.flow.ask("sure?", 1.0)
        return True

    bench = Bench().stage(inquire, mode=ASKS, on_signal=again)
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert bench.engine.resume(1, True, None, 0.0) == [fx.Ask(2, "sure?", 1.0)]
    assert bench.engine.resume(2, True, None, 0.0) == [fx.Write(OUT, b"x")]


def test_a_failed_question_may_be_claimed_by_its_callout():
    bench = Bench().stage(inquire, mode=ASKS, on_signal=lambda callout, signal: True)
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    bench.engine.resume(1, True, "no answer within 3 s", 0.0)
    assert not bench.engine.ended


def test_an_inline_callout_may_not_ask():
    effects = Bench().stage(inquire).engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert "registered inline" in effects[0].record.detail


def test_questions_die_with_the_flow():
    bench = Bench().stage(inquire, mode=ASKS)
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    bench.engine.close("gone", 0.0)
    assert bench.engine.resume(1, True, None, 0.0) == []
    assert bench.callouts["a"].signals == []
    assert bench.budget.used == 0
