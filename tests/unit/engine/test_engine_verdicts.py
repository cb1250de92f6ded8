"""Rules 1 to 4 and 6 of the stream contract: order, progress, held bytes, credit."""

from __future__ import annotations

import pytest

from proxy.contract import (
    AllowConnection,
    Block,
    Defer,
    NeedMoreData,
    Permit,
    Replace,
    StreamData,
    TimerFired,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.limits import Cause, ExceptionPolicies, Limits, OnException, StreamConfig
from proxy.records import Discarded, ExceptionApplied, Uninspected
from tests.support.scripted import IN, OUT, Bench, Scripted, permit_all


def small(limit: int) -> StreamConfig:
    return StreamConfig(limits=Limits(stage_buffer=limit))


def records(effects: list[fx.Effect]) -> list[object]:
    return [effect.record for effect in effects if isinstance(effect, fx.Emit)]


def plain(effects: list[fx.Effect]) -> list[fx.Effect]:
    """Without the records and the offers to splice."""
    return [effect for effect in effects if not isinstance(effect, fx.Emit | fx.Splice)]


# --- rules 1 and 2: one ordered stream, stages by weight


def test_a_permitted_chunk_passes_as_the_very_object_that_came():
    bench, chunk = Bench().stage().stage(name="b"), bytes(range(256)) * 256
    [write] = bench.engine.feed(fx.Data(OUT, chunk), 0.0)
    assert write == fx.Write(OUT, chunk)
    assert write.data is chunk


def test_stages_are_ordered_by_weight_and_offsets_are_absolute_per_direction():
    def only_upper(callout: Scripted, data: StreamData) -> Verdict:
        return Replace(len(data.data), data.data.upper())

    bench = Bench().stage(name="low", weight=1).stage(only_upper, name="high", weight=9)
    for direction, text in [(OUT, b"ab"), (IN, b"x"), (OUT, b"c")]:
        assert bench.engine.feed(fx.Data(direction, text), 0.0) == [
            fx.Write(direction, text.upper())
        ]
    seen = [(way, text, offset) for way, text, offset, *_ in bench.callouts["low"].seen]
    assert seen == [(OUT, b"AB", 0), (IN, b"X", 0), (OUT, b"C", 2)]


def test_classify_is_never_reentered():
    depth = 0

    def noisy(callout: Scripted, data: StreamData) -> Verdict:
        nonlocal depth
        depth += 1
        assert depth == 1
        callout.flow.inject(OUT, b"o")
        callout.flow.inject(IN, b"i")
        callout.flow.proceed(data.direction.opposite)
        depth -= 1
        return Permit(1)

    bench = Bench().stage(noisy).stage(noisy, name="b")
    bench.engine.feed(fx.Data(OUT, b"12"), 0.0)
    bench.engine.feed(fx.Data(IN, b"34"), 0.0)
    assert not bench.engine.ended


def test_injected_bytes_go_below_the_injector_before_what_the_verdict_lets_pass():
    def inject(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.inject(OUT, b"[1]")
        callout.flow.inject(IN, b"[2]")
        callout.flow.inject(OUT, b"[3]")
        return Permit(len(data.data))

    bench = Bench().stage(name="above").stage(inject, name="it").stage(name="below")
    effects = bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert effects == [fx.Write(OUT, b"[1]"), fx.Write(IN, b"[2]"), fx.Write(OUT, b"[3]x")]
    assert bench.shown("above") == bench.shown("it") == [b"x"]
    assert bench.shown("below") == [b"[1]", b"[2]", b"[3]", b"x"]


def test_a_stage_sees_only_what_the_stage_above_let_through_and_how_much_is_missing():
    def drop_digits(callout: Scripted, data: StreamData) -> Verdict:
        return Block(1) if data.data[:1].isdigit() else Permit(1)

    bench = Bench().stage(drop_digits).stage(name="b")
    effects = bench.engine.feed(fx.Data(OUT, b"a12b"), 0.0)
    assert plain(effects) == [fx.Write(OUT, b"a"), fx.Write(OUT, b"b")]
    assert bench.callouts["b"].seen == [(OUT, b"a", 0, 0, ""), (OUT, b"b", 1, 2, "")]


def test_contiguous_blocks_are_one_discard_record_however_they_were_cut():
    def block(callout: Scripted, data: StreamData) -> Verdict:
        return Block(1) if data.data[:1] == b"#" else Permit(1)

    for pieces in ([b"#####a"], [b"##", b"###", b"a"], [b"#"] * 5 + [b"a"]):
        bench = Bench().stage(block)
        effects = [one for piece in pieces for one in bench.engine.feed(fx.Data(OUT, piece), 0.0)]
        assert records(effects) == [Discarded(OUT, 5, "a")]
    bench = Bench().stage(block)
    assert records(bench.engine.feed(fx.Data(OUT, b"##"), 0.0)) == []
    assert records(bench.engine.close("over", 0.0)) == [Discarded(OUT, 2, "a")]


def test_replace_edits_and_inserts_in_place():
    def edit(callout: Scripted, data: StreamData) -> Verdict:
        if data.offset == 0 and not callout.signals:
            callout.signals.append(TimerFired("inserted"))
            return Replace(0, b">")
        return Replace(1, b"EE") if data.data[:1] == b"e" else Permit(1)

    bench = Bench().stage(edit)
    assert bench.engine.feed(fx.Data(IN, b"hey"), 0.0) == [fx.Write(IN, b">hEEy")]


# --- rule 3: a verdict makes progress and fits


@pytest.mark.parametrize(
    "verdict",
    [
        Permit(0),
        Permit(-1),
        Block(0),
        Block(4),
        Block(-1),
        Replace(4, b"x"),
        Replace(0, b""),
        Replace(1, "text"),  # type: ignore[arg-type]
        Permit("many"),  # type: ignore[arg-type]
        NeedMoreData(0),
        None,
        "permit",
    ],
)
def test_a_verdict_that_does_not_fit_is_a_contract_error_of_that_flow(verdict):
    bench = Bench().stage(lambda callout, data: verdict)
    *_, applied, end = bench.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    assert applied.record.cause is Cause.CALLOUT_EXCEPTION
    assert applied.record.detail.startswith("ContractError")
    assert end == fx.End(fx.How.RESET, "callout_exception")
    assert bench.engine.ended
    assert bench.engine.feed(fx.Data(OUT, b"more"), 0.0) == []


@pytest.mark.parametrize("spin", ["insert", "defer"])
def test_a_callout_that_spins_is_stopped(spin):
    def on_data(callout: Scripted, data: StreamData) -> Verdict:
        if spin == "insert":
            return Replace(0, b"again")
        callout.flow.proceed(data.direction.opposite)
        return Defer()

    bench = Bench().stage(on_data)
    bench.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    effects = bench.engine.feed(fx.Data(IN, b"abc"), 0.0)
    assert bench.engine.ended
    assert spin == "insert" or isinstance(effects[-1], fx.End)


# --- rule 4: held bytes are bounded


def words(callout: Scripted, data: StreamData) -> Verdict:
    """Pass whole words; needs to see the space behind them."""
    end = data.data.find(b" ")
    if end < 0 and not data.no_more_data:
        return NeedMoreData()
    return Permit(end + 1 if end >= 0 else len(data.data))


def test_need_more_data_holds_until_there_is_more():
    bench = Bench().stage(words)
    assert bench.engine.feed(fx.Data(OUT, b"Hel"), 0.0) == []
    assert bench.budget.used == 3
    assert bench.engine.feed(fx.Data(OUT, b"lo wor"), 0.0) == [fx.Write(OUT, b"Hello ")]
    assert bench.budget.used == 3
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == [fx.Write(OUT, b"wor"), fx.Finish(OUT)]
    assert bench.budget.used == 0
    assert bench.shown() == [b"Hel", b"Hello wor", b"wor", b"wor", b""]
    assert [flags for *_, flags in bench.callouts["a"].seen] == ["", "", "", "n", "nd"]


def test_need_more_data_of_n_waits_for_n_bytes():
    bench = Bench().stage(
        lambda callout, data: NeedMoreData(4) if len(data.data) < 5 else Permit(len(data.data))
    )
    for byte in b"12345":
        effects = bench.engine.feed(fx.Data(OUT, bytes([byte])), 0.0)
    assert effects == [fx.Write(OUT, b"12345")]
    assert bench.shown() == [b"1", b"12345"]


def test_at_the_limit_the_callout_must_decide():
    def patient(callout: Scripted, data: StreamData) -> Verdict:
        return Block(len(data.data)) if data.buffer_limit_reached else NeedMoreData(100)

    for pieces in ([b"abcdefgh"], [b"abc", b"de", b"fgh"], [b"abcdefghi"]):
        bench = Bench(small(8)).stage(patient)
        for piece in pieces:
            bench.engine.feed(fx.Data(OUT, piece), 0.0)
        assert (OUT, b"abcdefgh", 0, 0, "l") in bench.callouts["a"].seen
        assert not bench.engine.ended


def test_asking_again_at_the_limit_is_a_buffer_limit_exception():
    bench = Bench(small(8)).stage(lambda callout, data: NeedMoreData())
    effects = bench.engine.feed(fx.Data(OUT, b"0123456789"), 0.0)
    assert effects[0].record.cause is Cause.BUFFER_LIMIT
    assert effects[-1] == fx.End(fx.How.RESET, "buffer_limit")
    assert bench.budget.used == 0


def test_the_process_wide_budget_is_a_limit_too_and_is_given_back():
    def patient(callout: Scripted, data: StreamData) -> Verdict:
        return Permit(len(data.data)) if data.buffer_limit_reached else NeedMoreData()

    budget = Budget(5)
    one, two = Bench(budget=budget).stage(patient), Bench(budget=budget).stage(patient)
    assert one.engine.feed(fx.Data(OUT, b"123"), 0.0) == []
    assert two.engine.feed(fx.Data(OUT, b"456"), 0.0) == [fx.Write(OUT, b"456")]
    assert budget.used == 3
    one.engine.close("gone", 0.0)
    assert budget.used == 0


def test_more_data_may_not_be_asked_for_after_the_end():
    bench = Bench().stage(lambda callout, data: NeedMoreData())
    bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    effects = bench.engine.feed(fx.Disconnect(OUT), 0.0)
    assert effects[-1] == fx.End(fx.How.RESET, "callout_exception")


def test_byte_by_byte_costs_no_more_than_linear_time():
    buffers = set()

    def late(callout: Scripted, data: StreamData) -> Verdict:
        buffers.add(id(data.data))
        return NeedMoreData() if len(data.data) < 5000 else Permit(len(data.data))

    bench = Bench().stage(late)
    for _ in range(5000):
        effects = bench.engine.feed(fx.Data(OUT, b"x"), 0.0)
    assert effects == [fx.Write(OUT, b"x" * 5000)]
    assert len(buffers) <= 2  # the same buffer all along, never joined anew


def test_a_view_that_a_callout_keeps_does_not_harm_the_engine():
    kept = []

    def keeper(callout: Scripted, data: StreamData) -> Verdict:
        kept.append(memoryview(data.data))
        return NeedMoreData() if len(data.data) < 3 else Permit(1)

    bench = Bench().stage(keeper)
    written = b""
    for byte in b"abcde":
        for effect in bench.engine.feed(fx.Data(OUT, bytes([byte])), 0.0):
            written += effect.data
    assert written == b"abc"


# --- Defer


def test_defer_pauses_and_proceed_indicates_again():
    def gate(callout: Scripted, data: StreamData) -> Verdict:
        return Permit(len(data.data)) if callout.signals else Defer()

    def go(callout: Scripted, signal: object) -> bool:
        callout.flow.proceed(IN)
        return True

    bench = Bench().stage(gate, on_signal=go)
    assert bench.engine.feed(fx.Data(IN, b"one"), 0.0) == [fx.Pause(IN)]
    assert bench.engine.feed(fx.Data(IN, b"two"), 0.0) == []  # was in flight
    assert bench.engine.feed(fx.Disconnect(IN), 0.0) == []  # FIN waits behind them
    effects = bench.engine.feed(fx.StageTimer(0, "go"), 0.0)
    assert effects == [fx.Write(IN, b"onetwo"), fx.Finish(IN), fx.Resume(IN)]


def test_defer_in_both_directions_is_independent():
    bench = Bench().stage(lambda callout, data: Defer() if data.direction is OUT else Permit(1))
    assert bench.engine.feed(fx.Data(OUT, b"x"), 0.0) == [fx.Pause(OUT)]
    assert bench.engine.feed(fx.Data(IN, b"y"), 0.0) == [fx.Write(IN, b"y")]


# --- rule 6: permit ahead


def test_permit_ahead_lets_bytes_pass_unseen_in_the_stages_own_coordinates():
    def insert(callout: Scripted, data: StreamData) -> Verdict:
        return Replace(1, b"<" + bytes(data.data[:1]) + b">")

    bench = Bench().stage(insert).stage(lambda callout, data: Permit(4), name="ahead")
    effects = bench.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    assert b"".join(write.data for write in plain(effects)) == b"<a><b><c>"
    assert bench.shown("ahead") == [b"<a>", b"b>", b">"]
    assert [record.bytes for record in records(effects)] == [1, 2]


def test_a_credit_that_the_fin_cuts_short_is_recorded_there():
    bench = Bench().stage(lambda callout, data: Permit(0 if data.disconnect else 9))
    bench.engine.feed(fx.Data(OUT, b"ab"), 0.0)
    bench.engine.feed(fx.Data(OUT, b"cde"), 0.0)
    assert bench.engine.feed(fx.Disconnect(OUT), 0.0) == [
        fx.Emit(Uninspected(OUT, 3, "permit_ahead")),
        fx.Finish(OUT),
    ]


@pytest.mark.parametrize("pieces", [[b"12"], [b"1", b"2"]])
def test_a_stage_that_opens_up_lets_the_other_direction_pass_first(pieces):
    """What is fed may be at hand in part only; what the other direction holds is all there."""

    def on_data(callout: Scripted, data: StreamData) -> Verdict:
        return NeedMoreData() if data.direction is IN else AllowConnection()

    bench = Bench().stage(on_data).stage(lambda callout, data: Permit(1), name="b")
    bench.engine.feed(fx.Data(IN, b"held"), 0.0)
    for piece in pieces:
        bench.engine.feed(fx.Data(OUT, piece), 0.0)
    directions = [direction for direction, *_ in bench.callouts["b"].seen]
    assert directions == [IN, IN, IN, IN, OUT, OUT]


def test_an_offer_to_splice_is_the_minimum_over_the_stages():
    first = (
        Bench()
        .stage(lambda callout, data: Permit(10))
        .stage(lambda callout, data: Permit(7), name="b")
    )
    assert first.engine.offloadable(OUT) == 0
    effects = first.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    assert effects == [fx.Write(OUT, b"abc"), fx.Splice(OUT, 4)]
    assert first.engine.offloadable(OUT) == 4
    assert first.engine.feed(fx.Data(OUT, b"d"), 0.0) == [fx.Write(OUT, b"d")]  # no new offer
    first.engine.offloaded(OUT, 2, 0.0)
    assert first.engine.offloadable(OUT) == 1
    with pytest.raises(ValueError, match="1 were offered"):
        first.engine.offloaded(OUT, 2, 0.0)
    first.engine.offloaded(OUT, 1, 0.0)
    assert records(first.engine.feed(fx.Data(OUT, b"h"), 0.0)) == [
        Uninspected(OUT, 4, "permit_ahead")
    ]
    assert first.callouts["b"].seen[1][1:3] == (b"h", 7)
    assert first.engine.feed(fx.Data(IN, b""), 0.0) == []


def test_nothing_is_offered_while_a_stage_holds_bytes_or_waits():
    bench = (
        Bench()
        .stage(lambda callout, data: Permit(100))
        .stage(lambda callout, data: Defer(), name="b")
    )
    assert fx.Splice not in map(type, bench.engine.feed(fx.Data(OUT, b"abc"), 0.0))
    assert bench.engine.offloadable(OUT) == 0


def test_when_every_stage_allowed_the_connection_all_of_it_is_offered():
    bench = Bench().stage(lambda callout, data: AllowConnection())
    effects = bench.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    assert effects == [fx.Write(OUT, b"abc"), fx.Splice(OUT, None), fx.Splice(IN, None)]
    bench.engine.offloaded(IN, 1000, 0.0)
    assert bench.engine.feed(fx.Data(IN, b"more"), 0.0) == [fx.Write(IN, b"more")]
    assert records(bench.engine.close("over", 0.0)) == [
        Uninspected(OUT, 3, "allow_connection"),
        Uninspected(IN, 1004, "allow_connection"),
    ]
    assert len(bench.shown()) == 1


def test_without_stages_everything_passes_and_is_offered():
    bench = Bench()
    assert bench.engine.feed(fx.Data(OUT, b"x"), 0.0) == [
        fx.Write(OUT, b"x"),
        fx.Splice(OUT, None),
        fx.Splice(IN, None),
    ]


def test_an_injection_above_uses_up_the_credit_of_a_lower_stage():
    def inject(callout: Scripted, data: StreamData) -> Verdict:
        callout.flow.inject(OUT, b"++")
        return Permit(1)

    bench = Bench().stage(inject).stage(lambda callout, data: Permit(5), name="b")
    bench.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    assert bench.callouts["b"].seen == [(OUT, b"++", 0, 0, ""), (OUT, b"b", 5, 0, "")]


def test_a_deferred_flood_is_a_buffer_limit_exception():
    bench = Bench(small(4)).stage(lambda callout, data: Defer())
    bench.engine.feed(fx.Data(OUT, b"1234"), 0.0)
    effects = bench.engine.feed(fx.Data(OUT, b"5"), 0.0)
    assert effects[-1] == fx.End(fx.How.RESET, "buffer_limit")


def test_open_exceptions_let_what_is_held_pass():
    config = StreamConfig(exceptions=ExceptionPolicies(callout_exception=OnException.OPEN))

    def fragile(callout: Scripted, data: StreamData) -> Verdict:
        if b"!" in data.data:
            raise ValueError("bang")
        return NeedMoreData()

    bench = Bench(config).stage(fragile).stage(permit_all, name="b")
    bench.engine.feed(fx.Data(OUT, b"abc"), 0.0)
    effects = bench.engine.feed(fx.Data(OUT, b"!"), 0.0)
    assert effects == [
        fx.Emit(
            ExceptionApplied(Cause.CALLOUT_EXCEPTION, OnException.OPEN, "a", "ValueError: bang")
        ),
        fx.Write(OUT, b"abc!"),
    ]
    bench.engine.feed(fx.Data(OUT, b"def"), 0.0)
    assert records(bench.engine.close("over", 0.0)) == [Uninspected(OUT, 7, "exception_open")]
    assert bench.callouts["a"].closings == ["over"]
