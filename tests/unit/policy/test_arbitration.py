"""Arbitration at the connection layers: the whole table, then whole decisions."""

from __future__ import annotations

import pytest

from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, RedirectInfo
from proxy.policy import ast
from proxy.policy.arbitration import Action, Outcome, arbitrate
from proxy.policy.compile import compile_policies
from proxy.policy.facts import Facts
from proxy.policy.ruling import RuleVerdict, Ruling

MARK = ast.Mark("p.yaml", 1, 1)
SOFT_PERMIT, HARD_PERMIT = ast.Permit(), ast.Permit(hard=True)
SOFT_BLOCK, HARD_BLOCK = ast.Block(hard=False), ast.Block()
P, B = RuleVerdict.PERMIT, RuleVerdict.BLOCK
SUBLAYERS = (("first", 300), ("second", 200), ("third", 100))


def rule(
    name: str, sublayer: str, *then: ast.Action, weight: int = 100, **more: object
) -> ast.Rule:
    when = more.pop("when", None)
    return ast.Rule(
        id=name,
        layer=Layer.AUTH_CONNECT,
        when=when,  # type: ignore[arg-type]
        unless=None,
        then=then,
        mark=MARK,
        sublayer=sublayer,
        weight=weight,
        **more,  # type: ignore[arg-type]
    )


def decide(*rules: ast.Rule, principal: Principal | None = None) -> Ruling:
    file = ast.PolicyFile("p.yaml", "p", "", rules, sublayers=SUBLAYERS)
    redirect = RedirectInfo(
        "static",
        Endpoint("10.1.2.3", 25),
        Endpoint("127.0.0.1", 40000),
        principal=principal or Principal(),
    )
    facts = Facts(FlowInfo("1", redirect, 0.0), 0.0)
    return compile_policies([file], 7).decide(Layer.AUTH_CONNECT, facts)


# first sublayer, second sublayer -> verdict, which of them decides, veto
CASES = [
    (SOFT_PERMIT, SOFT_PERMIT, P, "a", False),
    (SOFT_PERMIT, HARD_PERMIT, P, "b", False),
    (SOFT_PERMIT, SOFT_BLOCK, B, "b", False),
    (SOFT_PERMIT, HARD_BLOCK, B, "b", False),
    (HARD_PERMIT, SOFT_PERMIT, P, "a", False),
    (HARD_PERMIT, HARD_PERMIT, P, "a", False),
    (HARD_PERMIT, SOFT_BLOCK, P, "a", False),
    (HARD_PERMIT, HARD_BLOCK, B, "b", True),
    (SOFT_BLOCK, SOFT_PERMIT, P, "b", False),
    (SOFT_BLOCK, HARD_PERMIT, P, "b", False),
    (SOFT_BLOCK, SOFT_BLOCK, B, "a", False),
    (SOFT_BLOCK, HARD_BLOCK, B, "b", False),
    (HARD_BLOCK, SOFT_PERMIT, B, "a", False),
    (HARD_BLOCK, HARD_PERMIT, B, "a", False),
    (HARD_BLOCK, SOFT_BLOCK, B, "a", False),
    (HARD_BLOCK, HARD_BLOCK, B, "a", False),
]


@pytest.mark.parametrize(("first", "second", "verdict", "decider", "veto"), CASES)
def test_two_sublayers(
    first: ast.Action, second: ast.Action, verdict: RuleVerdict, decider: str, veto: bool
) -> None:
    ruling = decide(rule("b", "second", second), rule("a", "first", first))
    assert (ruling.verdict, ruling.rule, ruling.veto) == (verdict, decider, veto)
    assert [(hit.rule, hit.verdict, hit.veto) for hit in ruling.hits] == [
        (decider, verdict.value, veto)
    ]


def test_the_table_is_whole() -> None:
    for stands in (None, *Action):
        for says in Action:
            assert isinstance(arbitrate(stands, says), Outcome)


# three sublayers -> verdict, decider, veto
THREE = [
    ((SOFT_PERMIT, HARD_BLOCK, SOFT_PERMIT), B, "b", False),  # a hard block is final
    ((SOFT_BLOCK, SOFT_PERMIT, SOFT_BLOCK), B, "c", False),  # back and forth while soft
    ((SOFT_BLOCK, HARD_PERMIT, SOFT_BLOCK), P, "b", False),
    ((HARD_PERMIT, HARD_BLOCK, HARD_PERMIT), B, "b", True),  # a veto is final
    ((HARD_PERMIT, SOFT_BLOCK, HARD_BLOCK), B, "c", True),
    ((HARD_BLOCK, HARD_PERMIT, HARD_BLOCK), B, "a", False),  # no veto against a block
]


@pytest.mark.parametrize(("actions", "verdict", "decider", "veto"), THREE)
def test_three_sublayers(
    actions: tuple[ast.Action, ...], verdict: RuleVerdict, decider: str, veto: bool
) -> None:
    names = zip("abc", (name for name, _ in SUBLAYERS), actions, strict=True)
    ruling = decide(*(rule(name, sublayer, action) for name, sublayer, action in names))
    assert (ruling.verdict, ruling.rule, ruling.veto) == (verdict, decider, veto)


def test_a_veto_names_the_permit_it_overrides() -> None:
    ruling = decide(rule("open", "first", HARD_PERMIT), rule("shut", "second", HARD_BLOCK))
    (hit,) = ruling.hits
    assert (hit.rule, hit.veto) == ("shut", True)
    assert "open" in hit.detail


def test_in_a_sublayer_the_first_match_by_weight_decides_and_ends_it() -> None:
    ruling = decide(
        rule("late", "first", HARD_BLOCK, weight=10),
        rule("early", "first", SOFT_PERMIT, weight=20),
        rule("log", "first", ast.Log("seen"), weight=30),
        rule("skipped", "first", ast.Log("not seen"), weight=5),
    )
    assert (ruling.verdict, ruling.rule) == (P, "early")
    assert [hit.rule for hit in ruling.hits] == ["log", "early"]


def test_equal_weights_keep_the_order_of_the_file() -> None:
    assert decide(rule("one", "first", SOFT_PERMIT), rule("two", "first", HARD_BLOCK)).rule == "one"


def test_every_sublayer_is_evaluated_even_after_a_hard_block() -> None:
    ruling = decide(
        rule("shut", "first", HARD_BLOCK),
        rule("tag", "second", ast.Tag(("seen",))),
        rule("log", "third", ast.Log("still here")),
    )
    assert ruling.blocked
    assert ruling.tags == ("seen",)
    assert [hit.rule for hit in ruling.hits] == ["shut", "tag", "log"]


def test_an_overridden_rule_is_recorded_for_its_tags_only() -> None:
    ruling = decide(
        rule("soft", "first", ast.Tag(("t",)), SOFT_PERMIT), rule("shut", "second", HARD_BLOCK)
    )
    assert [(hit.rule, hit.verdict) for hit in ruling.hits] == [("soft", "tag"), ("shut", "block")]
    assert ruling.tags == ("t",)


def test_a_shadow_block_neither_decides_nor_ends_its_sublayer() -> None:
    ruling = decide(
        rule("would", "first", HARD_BLOCK, weight=200, shadow=True),
        rule("does", "first", SOFT_PERMIT, weight=100),
    )
    assert (ruling.verdict, ruling.rule) == (P, "does")
    assert [(hit.rule, hit.shadow) for hit in ruling.hits] == [("would", True), ("does", False)]


def test_nothing_matches_means_permit_by_no_rule() -> None:
    port = ast.Test("dst.port", None, (ast.Compare(ast.Op.IS, (80,)),), MARK)
    ruling = decide(rule("other", "first", HARD_BLOCK, when=port))
    assert (ruling.verdict, ruling.rule, ruling.hits) == (P, None, ())


def test_an_unknown_principal_counts_against_a_permit_and_for_a_block() -> None:
    curl = ast.Test("principal.exe", None, (ast.Compare(ast.Op.IS, ("*/curl",)),), MARK)
    for when in (curl, ast.Not(curl, MARK)):
        assert decide(rule("shut", "first", HARD_BLOCK, when=when)).blocked
        assert decide(rule("open", "first", HARD_PERMIT, when=when)).rule is None
    known = Principal(exe="/usr/bin/curl", confidence=Confidence.EXACT)
    assert decide(rule("shut", "first", HARD_BLOCK, when=curl), principal=known).blocked
    shut = rule("shut", "first", HARD_BLOCK, when=ast.Not(curl, MARK))
    assert not decide(shut, principal=known).blocked
