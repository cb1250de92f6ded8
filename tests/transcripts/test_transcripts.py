"""Conversations as tests: each file is played whole, byte by byte and in random cuts.

A transcript (`*/*.txt`) is read line by line:

    # what it shows
    rule no-exe http_request path=*.exe block=403      a policy's rule, see `_rule`
    anomalies http1.te_and_cl repair                   a policy's `anomalies` entry
    C> GET / HTTP/1.1\\r\\n                              the client sends (Python escapes)
    U> HTTP/1.1 200 OK\\r\\n                             the upstream server sends
    C> FIN        U> FIN        U> RST                 it ends its stream
    wait 11                                            seconds pass
    U< GET / HTTP/1.1\\r\\n                              next bytes that reach the server
    C< HTTP/1.1 403 Forbidden\\r\\n...                 next bytes at the client; then any
    C< FIN        C< nothing                           its stream has ended; nothing came
    END reset                                          the flow is over, and how
    event outcome=blocked status=403 rule=no-exe       the next exchange's record
    anomaly http1.te_and_cl refuse                     the next anomaly's
    decision block no-exe                              the next decision's

What is sent in consecutive lines is one read when played whole. Whatever the cuts, what comes
out after each line is the same.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proxy.callouts.context import CalloutContext
from proxy.callouts.protocol import ProtocolStage
from proxy.contract import DialFailure, FlowHandle, UpstreamFailed
from proxy.engine import effects as fx
from proxy.engine.budget import Budget
from proxy.engine.engine import Engine
from proxy.engine.registration import Kind, Mode, Registration
from proxy.limits import StreamConfig
from proxy.model import Direction, Endpoint, FlowInfo, Layer, RedirectInfo
from proxy.policy import ast
from proxy.policy.compile import compile_policies
from proxy.records import AnomalySeen, Decided, ExchangeEnded
from tests.support.invariance import Elapse, Item, Outcome, byte_by_byte, data_size, drive, recut

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*/*.txt"))
MARK = ast.Mark("transcript", 1, 1)
WHO = {"C": Direction.OUTBOUND, "U": Direction.INBOUND}


@dataclass
class Transcript:
    """`items[i]` is fed, then `wants[i]` must hold; `records` at the end."""

    rules: list[ast.Rule] = field(default_factory=list)
    anomalies: list[tuple[str, str]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    wants: list[list[tuple[str, str]]] = field(default_factory=list)
    records: list[str] = field(default_factory=list)


def parse(text: str) -> Transcript:
    script = Transcript()
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if not line or word == "#":
            continue
        if word == "rule":
            script.rules.append(_rule(shlex.split(rest)))
        elif word == "anomalies":
            id_, action = rest.split()
            script.anomalies.append((id_, action))
        elif word in ("C>", "U>", "wait"):
            _say(script, word, rest)
        elif word in ("C<", "U<", "END"):
            script.wants[-1].append((word, rest))
        else:
            script.records.append(line)
    return script


def _say(script: Transcript, word: str, rest: str) -> None:
    if word == "wait":
        item: Item = Elapse(float(rest))
    elif rest == "FIN":
        item = fx.Disconnect(WHO[word[0]])
    elif rest == "RST":
        item = UpstreamFailed(DialFailure.RESET)
    else:
        item = fx.Data(WHO[word[0]], _bytes(rest))
        last = script.items[-1] if script.items else None
        same = isinstance(last, fx.Data) and last.direction is item.direction
        if same and isinstance(last, fx.Data) and not script.wants[-1]:
            script.items[-1] = fx.Data(item.direction, last.data + item.data)
            return
    script.items.append(item)
    script.wants.append([])


def _bytes(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def _rule(words: list[str]) -> ast.Rule:
    """`ID LAYER KEY=VALUE...`: conditions by field name, actions by theirs."""
    id_, layer, *pairs = words
    tests: list[ast.Condition] = []
    actions: list[ast.Action] = []
    for key, _, value in (pair.partition("=") for pair in pairs):
        match key:
            case "block" if value.isdigit():
                actions.append(ast.Block(how="page", status=int(value)))
            case "block":
                actions.append(ast.Block(how=value))
            case "redirect":
                actions.append(ast.Redirect(value))
            case "remove":
                actions.append(ast.Headers(remove=tuple(value.split(","))))
            case "set":
                name, _, text = value.partition(":")
                actions.append(ast.Headers(set=((name, text),)))
            case "banner":
                actions.append(ast.InjectBanner(value))
            case _:
                number = int(value) if value.isdigit() else value
                compare = ast.Compare(ast.Op.IS, (number,))
                tests.append(ast.Test(key, None, (compare,), MARK))
    when = ast.All(tuple(tests), MARK) if tests else None
    return ast.Rule(id_, Layer(layer), when, None, tuple(actions), MARK)


def play(script: Transcript, cuts: list[int]) -> Outcome:
    file = ast.PolicyFile(
        "transcript", "transcript", "", tuple(script.rules), anomalies=tuple(script.anomalies)
    )
    policy = compile_policies([file], 1)
    config = StreamConfig()

    def stage(flow: FlowHandle) -> ProtocolStage:
        return ProtocolStage(CalloutContext(flow, config, lambda: policy, lambda: 0.0))

    def engine() -> Engine:
        redirect = RedirectInfo("static", Endpoint("192.0.2.1", 80), Endpoint("192.0.2.9", 9))
        made = Registration("protocol", 100, Kind.TERMINATING, Mode.INLINE, stage)
        budget = Budget(config.limits.process_buffer)
        return Engine(FlowInfo("f", redirect, 0.0), [made], config, budget, lambda: 0.0)

    return drive(engine, recut(script.items, cuts))


def check(script: Transcript, outcome: Outcome) -> None:
    at = {"C<": 0, "U<": 0}
    for step, wants in zip(outcome.steps, script.wants, strict=False):
        streams = {"C<": step.inbound, "U<": step.outbound}
        for word, text in wants:
            if word == "END":
                ends = [end.how.value for end in step.requests if isinstance(end, fx.End)]
                assert ends == [text]
            elif text == "FIN":
                assert step.finished[word == "C<"]
            else:
                at[word] = _expect(streams[word], at[word], text, word)
    assert list(_records(outcome, script.records)) == script.records


def _expect(stream: bytes, at: int, text: str, word: str) -> int:
    """Where the stream stands after what was expected of it."""
    if text == "nothing":
        assert stream[at:] == b"", word
        return at
    wanted = _bytes(text.removesuffix("..."))
    assert stream[at : at + len(wanted)] == wanted, word
    return len(stream) if text.endswith("...") else at + len(wanted)


def _records(outcome: Outcome, wanted: list[str]) -> Iterator[str]:
    """The records, written as the transcript writes them: of each kind, those it speaks of."""
    kinds = {line.split()[0] for line in wanted}
    exchanges = iter([line for line in wanted if line.startswith("event")])
    for record in outcome.records:
        match record:
            case ExchangeEnded() if "event" in kinds:
                keys = [pair.partition("=")[0] for pair in next(exchanges, "event").split()[1:]]
                shown = " ".join(f"{key}={getattr(record, key)}" for key in keys)
                yield f"event {shown}".rstrip()
            case AnomalySeen() if "anomaly" in kinds:
                yield f"anomaly {record.anomaly} {record.action}"
            case Decided() if "decision" in kinds:
                yield f"decision {record.verdict} {record.rule}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_transcript(file: Path):
    script = parse(file.read_text(encoding="utf-8"))
    size = data_size(script.items)
    rng = random.Random(file.stem)
    cuts = [sorted(rng.sample(range(1, size), min(size - 1, k))) for k in (1, 2, 5, 20) * 3]
    whole = play(script, [])
    check(script, whole)
    for way in (byte_by_byte(script.items), *cuts):
        again = play(script, way)
        assert again.steps == whole.steps, f"differs when cut at {way}"
        assert again.records == whole.records, f"records differ when cut at {way}"


def test_there_are_transcripts():
    assert len(FILES) >= 12
