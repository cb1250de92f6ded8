"""Arbitration against Microsoft's documented rules, one cited row per case.

Sources, all on learn.microsoft.com:
FA   windows/win32/fwp/filter-arbitration
CO   windows-hardware/drivers/ddi/fwpstypes/ns-fwpstypes-fwps_classify_out0 (actionType, rights)
BCR  windows-hardware/drivers/network/using-bind-or-connect-redirection
SL   windows/win32/api/fwpmtypes/ns-fwpmtypes-fwpm_sublayer0 (weight)

A row's rules are written as `SUBLAYER:ACTION`, heaviest sublayer first, `!` hard (the right
FWPS_RIGHT_ACTION_WRITE cleared), `?` soft, without either the default. They are made a policy
file, loaded, compiled, decided, explained, and put before a flow's account.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from proxy.account.ledger import Accounts
from proxy.account.metrics import Counters
from proxy.account.sinks import MemorySink
from proxy.flow.authorise import Authorisation
from proxy.model import Endpoint, FlowInfo, Layer, RedirectInfo
from proxy.policy import ast
from proxy.policy.compile import compile_policies
from proxy.policy.explain import Explainer, Fate
from proxy.policy.facts import Facts
from proxy.policy.load import parse_policy
from proxy.policy.ruling import Ruling
from proxy.redirect.guards import SelfGuard

WEIGHTS = {"a": 400, "b": 300, "c": 200, "d": 100, "same": 300}
ACTIONS = {
    "permit": "{permit: true}",
    "permit?": "{permit: {hard: false}}",
    "permit!": "{permit: {hard: true}}",
    "block": "{block: true}",
    "block?": "{block: {hard: false}}",
    "block!": "{block: {hard: true}}",
    "continue": "{log: true}",
}


class Row(NamedTuple):
    source: str  #: where, and what is said there
    rules: str
    verdict: str
    rule: str | None  #: sublayer of the rule that decides
    veto: bool = False


DEFAULTS = [
    Row("FA, default behaviour: filter permit is soft", "a:permit b:block?", "block", "b"),
    Row("FA, default behaviour: filter block is hard", "a:block b:permit!", "block", "a"),
    Row("FA, default behaviour, as flags: soft permit", "a:permit? b:block?", "block", "b"),
    Row("FA, default behaviour, as flags: hard block", "a:block! b:permit!", "block", "a"),
]
TABLE = [
    Row("FA, Permit/Yes: can be blocked at another sub-layer", "a:permit? b:block!", "block", "b"),
    Row("FA, Permit/Yes: by a soft block too", "a:permit? b:block?", "block", "b"),
    Row("FA, Permit/No: blocked only by a veto", "a:permit! b:block!", "block", "b", True),
    Row("CO: without the right one writes only to veto", "a:permit! b:block?", "permit", "a"),
    Row(
        "FA, Block/Yes: can be permitted at another sub-layer", "a:block? b:permit?", "permit", "b"
    ),
    Row("FA, Block/Yes: for good, too", "a:block? b:permit!", "permit", "b"),
    Row("FA, Block/No: cannot be permitted", "a:block! b:permit?", "block", "a"),
    Row("FA, Block/No: not by a hard permit either", "a:block! b:permit!", "block", "a"),
    Row("CO: vetoes are of a PERMIT, never of a BLOCK", "a:block! b:block!", "block", "a"),
    Row("CO: no write without the right", "a:permit! b:permit?", "permit", "a"),
    Row("FA: a lower one may make it final", "a:permit? b:permit! c:block?", "permit", "b"),
    Row("FA: and then only a veto remains", "a:permit? b:permit! c:block!", "block", "c", True),
    Row("FA: a lower one may make a block final", "a:block? b:block! c:permit!", "block", "b"),
]
SUBLAYERS = [
    Row("FA: highest priority first", "c:block? a:permit? b:permit?", "block", "c"),
    Row("FA: the flag decides, one by one", "a:block? b:permit? c:block?", "block", "c"),
    Row("FA: ... and once more", "a:block? b:permit? c:block? d:permit?", "permit", "d"),
    Row("FA: Block overrides Permit, wherever", "a:permit b:permit c:permit d:block", "block", "d"),
    Row("FA: a veto is final: it is a Block without the right", "a:permit! b:block! c:permit!",
        "block", "b", True),
    Row("FA: for a veto a permit must stand", "a:block? b:block! c:permit", "block", "b"),
    Row("FA: to override silently, be in a higher sub-layer", "a:block b:permit!", "block", "a"),
    Row("FA: filters can return Continue", "a:continue b:continue c:block", "block", "c"),
    Row("FA: nothing but Continue", "a:continue b:continue", "permit", None),
    Row("FA: no matching filter at all", "", "permit", None),
]  # fmt: skip
WITHIN = [
    Row("FA, within a sub-layer: the first by weight", "a:permit a:block", "permit", "a"),
    Row("FA, within a sub-layer: skip the remaining", "a:block? a:permit!", "block", "a"),
    Row("FA, within a sub-layer: Continue goes on", "a:continue a:block?", "block", "a"),
    Row("FA: bypassed only within its own sub-layer", "a:permit a:block b:block", "block", "b"),
    Row("FA: a hard one there does not reach a soft one before it", "a:permit a:block! b:permit",
        "permit", "a"),
    Row("SL: equal weights are no one sub-layer", "b:permit same:block?", "block", "same"),
    Row("SL: and each is evaluated by itself", "b:permit! same:block! same:permit", "block",
        "same", True),
]  # fmt: skip
ROWS = DEFAULTS + TABLE + SUBLAYERS + WITHIN
LAYERS = [Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT]


def policy(rules: str, layer: Layer, extra: str = "") -> ast.PolicyFile:
    """Rules in a sublayer weigh less the later they stand."""
    text = f"version: 1\npolicy: p\nsublayers: {WEIGHTS}\nrules:\n".replace("'", "")
    for number, written in enumerate(rules.split()):
        sublayer, _, action = written.partition(":")
        text += (
            f"  - {{id: {sublayer}-{number}, layer: {layer.value}, sublayer: {sublayer},"
            f" weight: {1000 - number}, then: {ACTIONS[action]}}}\n"
        )
    text += extra
    empty: Callable[[str], Any] = lambda path: b""  # noqa: E731
    return parse_policy("p.yaml", text.encode() if rules or extra else EMPTY, empty, empty)


EMPTY = b"version: 1\npolicy: p\nrules: []\n"


def flow() -> FlowInfo:
    redirect = RedirectInfo("static", Endpoint("192.0.2.1", 25), Endpoint("192.0.2.2", 40000))
    return FlowInfo("1", redirect, 0.0)


def sublayer_of(ruling: Ruling) -> str | None:
    return ruling.rule.partition("-")[0] if ruling.rule else None


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rules.replace(" ", "_") or "nothing")
def test_the_outcome_is_the_documented_one(row: Row, layer: Layer) -> None:
    file = policy(row.rules, layer)
    generation = compile_policies([file], 1)
    ruling = generation.decide(layer, Facts(flow(), 0.0))
    assert (ruling.verdict.value, sublayer_of(ruling), ruling.veto) == row[2:], row.source
    trace = Explainer((file,), generation).explain(layer, Facts(flow(), 0.0))
    decisive = [one.rule.id for one in trace.rules if one.fate is Fate.DECIDES]
    assert decisive == ([ruling.rule] if ruling.rule else [])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rules.replace(" ", "_") or "nothing")
def test_a_shadow_of_anything_changes_nothing(row: Row) -> None:
    """Shadow rules are ours: they must not take part, wherever they stand."""
    shadows = "".join(
        f"  - {{id: shadow-{sublayer}-{n}, layer: auth_connect, sublayer: {sublayer},"
        f" weight: {weight}, mode: shadow, then: {then}}}\n"
        for sublayer in WEIGHTS
        for n, (weight, then) in enumerate(
            [(65535, ACTIONS["block!"]), (65534, ACTIONS["permit!"]), (0, ACTIONS["block!"])]
        )
    )
    made = compile_policies([policy(row.rules, Layer.AUTH_CONNECT, shadows)], 1)
    ruling = made.decide(Layer.AUTH_CONNECT, Facts(flow(), 0.0))
    assert (ruling.verdict.value, sublayer_of(ruling), ruling.veto) == row[2:]
    told = [hit.rule for hit in ruling.hits if hit.shadow]
    assert len(told) >= 2 * len(WEIGHTS)  # those in front of everything are always reported


class Court:
    """A flow's connection before policy, with the events that come of it."""

    def __init__(self, *files: ast.PolicyFile) -> None:
        self.sink = MemorySink()
        self.counters = Counters()
        accounts = Accounts(self.counters, self.sink, wall=lambda: 0.0)
        self.info = flow()
        guard = SelfGuard([], addresses=frozenset)
        self.authorisation = Authorisation(
            compile_policies(files, 1),
            guard,
            self.info,
            accounts.open_flow(self.info),
            lambda: 0.0,
        )

    @property
    def told(self) -> list[tuple[Any, ...]]:
        keys = ("event.action", "rule.id", "sluicegate.layer", "sluicegate.veto")
        return [tuple(event.get(key) for key in keys) for event in self.sink.events]


def test_a_veto_generates_an_event_that_says_against_what() -> None:
    """FA: "an audit event is generated", so that a hard permit is not silently overridden."""
    court = Court(policy("a:permit! b:block!", Layer.AUTH_CONNECT))
    assert court.authorisation.forbids() is not None
    assert court.told == [("CLASSIFY_DROP", "b-1", "auth_connect", True)]
    assert "hard permit of a-0" in court.sink.events[0]["message"]


def test_a_block_that_is_no_veto_is_not_flagged() -> None:
    court = Court(policy("a:permit b:block", Layer.AUTH_CONNECT))
    court.authorisation.forbids()
    assert court.told == [("CLASSIFY_DROP", "b-1", "auth_connect", None)]


def test_there_is_no_arbitration_across_layers() -> None:
    """FA, note: what a hard permit lets pass may still be blocked at another layer; no veto."""
    first = policy("a:permit!", Layer.CONNECT_REDIRECT)
    second = policy("b:block?", Layer.AUTH_CONNECT)
    both = ast.PolicyFile(
        "p.yaml", "p", "", (*first.rules, *second.rules), sublayers=first.sublayers
    )
    court = Court(both)
    ruling = court.authorisation.forbids()
    assert isinstance(ruling, Ruling)
    assert (ruling.layer, ruling.veto) == (Layer.AUTH_CONNECT, False)
    assert court.told == [
        ("CLASSIFY_ALLOW", "a-0", "connect_redirect", None),
        ("CLASSIFY_DROP", "b-0", "auth_connect", None),
    ]


def test_what_connect_redirect_blocks_is_not_asked_at_auth_connect() -> None:
    """BCR: a blocked request has no connection that could be authorised."""
    first = policy("a:block?", Layer.CONNECT_REDIRECT)
    second = policy("b:permit!", Layer.AUTH_CONNECT)
    both = ast.PolicyFile(
        "p.yaml", "p", "", (*first.rules, *second.rules), sublayers=first.sublayers
    )
    court = Court(both)
    ruling = court.authorisation.forbids()
    assert isinstance(ruling, Ruling)
    assert ruling.layer is Layer.CONNECT_REDIRECT
    assert court.told == [("CLASSIFY_DROP", "a-0", "connect_redirect", None)]


# --- changing the destination --------------------------------------------------------------

#: (source, rules, where it goes; None: it is blocked, "asked": nowhere else)
REDIRECTS = [
    ("BCR: a callout changes the destination and permits", "a:to1", "10.0.0.1"),
    ("BCR: leave alone what another has redirected", "a:to1 b:to2", "10.0.0.1"),
    ("BCR: no change without the right to write", "a:permit! b:to1", "asked"),
    ("BCR: with the right it may change what is permitted", "a:permit b:to1", "10.0.0.1"),
    ("FA: a soft block can be permitted, here by a redirection", "a:block? b:to1", "10.0.0.1"),
    ("FA: a block is final", "a:block b:to1", None),
    ("FA: a soft permit gives way to a block", "a:to1 b:block?", None),
    ("FA: a hard one does not", "a:to1! b:block?", "10.0.0.1"),
    ("FA: but to a veto", "a:to1! b:block!", None),
    ("FA: a later permit does not take it back", "a:to1 b:permit!", "10.0.0.1"),
    ("FA: a hard action is taken over a soft one", "a:to1 b:to2!", "10.0.0.2"),
    ("FA, within a sub-layer: the first ends it", "a:to1 a:to2!", "10.0.0.1"),
]


@pytest.mark.parametrize(("source", "rules", "goes"), REDIRECTS, ids=[r[1] for r in REDIRECTS])
def test_a_redirection_is_a_permit_that_changes_the_destination(
    monkeypatch: pytest.MonkeyPatch, source: str, rules: str, goes: str | None
) -> None:
    for n in "12":
        monkeypatch.setitem(ACTIONS, f"to{n}", f"{{redirect_to: 10.0.0.{n}}}")
        monkeypatch.setitem(ACTIONS, f"to{n}!", f"{{redirect_to: {{to: 10.0.0.{n}, hard: true}}}}")
    court = Court(policy(rules, Layer.CONNECT_REDIRECT))
    against = court.authorisation.forbids()
    assert (against is not None) == (goes is None), source
    if goes is None:
        assert court.info.redirect.redirect_to is None
    else:
        there = court.info.redirect.destination
        assert there == Endpoint("192.0.2.1" if goes == "asked" else goes, 25), source
