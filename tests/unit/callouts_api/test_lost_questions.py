"""Questions whose bytes are gone: their answers change nothing, and later ones still count."""

from __future__ import annotations

from proxy.contract import (
    Answer,
    Defer,
    DialFailure,
    Permit,
    Signal,
    StreamData,
    UpstreamConnected,
    UpstreamFailed,
    Verdict,
)
from proxy.engine import effects as fx
from proxy.engine.registration import Mode
from proxy.model import Endpoint
from tests.support.scripted import IN, OUT, Bench, Scripted

ELSEWHERE = Endpoint("192.0.2.7", 80)


def ask_about_inbound(callout: Scripted, data: StreamData) -> Verdict:
    if data.direction is OUT or Answer in map(type, callout.signals[-1:]):
        return Permit(len(data.data))
    callout.flow.ask("may it pass?", 1.0)
    return Defer()


def dial_on_failure(callout: Scripted, signal: Signal) -> bool:
    if isinstance(signal, UpstreamFailed):
        callout.flow.dial(ELSEWHERE)
    return isinstance(signal, UpstreamFailed | Answer)


def test_after_a_new_upstream_answers_count_again() -> None:
    bench = Bench().stage(ask_about_inbound, mode=Mode.OUT_OF_BAND, on_signal=dial_on_failure)
    engine = bench.engine
    (first,) = [e for e in engine.feed(fx.Data(IN, b"old"), 0.0) if isinstance(e, fx.Ask)]
    engine.feed(UpstreamFailed(DialFailure.RESET), 0.0)
    assert engine.resume(first.id, True, None, 0.0) == []
    engine.feed(UpstreamConnected(), 0.0)
    (second,) = [e for e in engine.feed(fx.Data(IN, b"new"), 0.0) if isinstance(e, fx.Ask)]
    assert fx.Write(IN, b"new") in engine.resume(second.id, True, None, 0.0)
