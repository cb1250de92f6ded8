"""Conditions on content that comes in pieces: what is found, what may still come, what never."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import PolicyError
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, RedirectInfo
from proxy.policy import ast
from proxy.policy.ast import Compare, Op
from proxy.policy.compile import compile_policies
from proxy.policy.facts import BodyFacts, Facts
from proxy.policy.generation import Generation
from proxy.policy.ruling import Ruling

MARK = ast.Mark("p.yaml", 1, 1)
UPLOAD, DOWNLOAD = Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
BLOCK, LOG, PERMIT = ast.Block(how="page"), ast.Log(), ast.Permit()


def holds(*texts: str) -> ast.Test:
    return ast.Test("body", None, (Compare(Op.IS, texts),), MARK)


def size(**bounds: Any) -> ast.Test:
    compares = tuple(Compare(Op(op.removesuffix("_")), value) for op, value in bounds.items())
    return ast.Test("body.size", None, compares, MARK)


def digest(value: str) -> ast.Test:
    return ast.Test("body.sha256", None, (Compare(Op.IS, (value,)),), MARK)


def not_(part: ast.Condition) -> ast.Not:
    return ast.Not(part, MARK)


def rule(name: str, *then: ast.Action, when: ast.Condition | None = None, **more: Any) -> ast.Rule:
    given = {"layer": UPLOAD, "unless": None, "mark": MARK} | more
    return ast.Rule(id=name, when=when, then=then, **given)


def generation(*rules: ast.Rule, lists: tuple[ast.ListDef, ...] = ()) -> Generation:
    return compile_policies([ast.PolicyFile("p.yaml", "house", "", rules, lists)], 1)


def facts(body: BodyFacts | None, *unknown: str, user: str | None = "me") -> Facts:
    principal = Principal(user=user, confidence=Confidence.EXACT)
    redirect = RedirectInfo("nft", Endpoint("192.0.2.1", 80), Endpoint("10.0.0.9", 1), None)
    flow = FlowInfo("f", replace(redirect, principal=principal), 0.0)
    fields = (Field(b"Host", b"host", b"a.test"), Field(b"X-A", b"x-a", b"up"))
    return Facts(
        flow,
        0.0,
        request=RequestHead(b"1.1", fields, method=b"PUT", target=b"/up"),
        response=ResponseHead(b"1.1", (Field(b"X-A", b"x-a", b"down"),), status=201),
        body=body,
        unknown=frozenset(unknown),
    )


def decide(one: ast.Rule, body: BodyFacts | None, *unknown: str) -> Ruling:
    return generation(one).decide(one.layer, facts(body, *unknown))


def applies(condition: ast.Condition, body: BodyFacts | None, then: ast.Action = BLOCK) -> bool:
    """Whether a rule with this condition acts on a body of which so much is known."""
    return bool(decide(rule("r", then, when=condition), body).hits)


SO_FAR = BodyFacts(size=10)
FOUND = BodyFacts(frozenset({0}), size=10)
END = BodyFacts(size=10, sha256=EMPTY, complete=True)
END_FOUND = BodyFacts(frozenset({0}), size=10, sha256=EMPTY, complete=True)


@pytest.mark.parametrize(
    ("condition", "so_far", "found", "end", "end_found"),
    [
        (holds("x"), False, True, False, True),
        (not_(holds("x")), False, False, True, False),
        (not_(not_(holds("x"))), False, True, False, True),
        (size(gt=9), True, True, True, True),
        (size(gt=10), False, False, False, False),
        (size(ge=10), True, True, True, True),
        (size(lt=11), False, False, True, True),
        (size(le=9), False, False, False, False),
        (not_(size(gt=10)), False, False, True, True),
        (not_(size(gt=9)), False, False, False, False),
        (size(is_=(10,)), False, False, True, True),
        (size(is_=((5, 9),)), False, False, False, False),
        (not_(size(is_=((5, 9), 3))), True, True, True, True),
        (size(gt=3, lt=100), False, False, True, True),
        (digest(EMPTY), False, False, True, True),
        (digest("0" * 64), False, False, False, False),
        (not_(digest("0" * 64)), False, False, True, True),
        (ast.AnyOf((holds("x"), size(gt=10)), MARK), False, True, False, True),
        (ast.All((holds("x"), size(lt=100)), MARK), False, False, False, True),
    ],
)
@pytest.mark.parametrize("then", [BLOCK, LOG, PERMIT])
def test_a_rule_acts_on_what_cannot_change_any_more(
    condition: ast.Condition,
    so_far: bool,
    found: bool,
    end: bool,
    end_found: bool,
    then: ast.Action,
) -> None:
    bodies = (SO_FAR, FOUND, END, END_FOUND)
    assert [applies(condition, body, then) for body in bodies] == [so_far, found, end, end_found]


def test_an_exception_that_may_still_come_keeps_the_rule_waiting() -> None:
    one = rule("r", BLOCK, when=size(gt=5), unless=holds("signed"))
    assert not decide(one, SO_FAR).hits
    assert not decide(one, FOUND).hits
    assert decide(one, END).blocked
    assert not decide(one, END_FOUND).hits


def test_content_that_cannot_be_read_counts_against_it() -> None:
    for condition in (holds("x"), not_(holds("x")), size(gt=5), digest(EMPTY)):
        assert applies(condition, None)
        assert not applies(condition, None, LOG)
        assert decide(rule("r", BLOCK, when=condition), SO_FAR, "body").blocked


def test_a_digest_that_nobody_made_is_unknown() -> None:
    assert applies(digest(EMPTY), BodyFacts(complete=True))
    assert not applies(digest(EMPTY), BodyFacts(complete=True), LOG)


def test_what_is_unknown_for_good_does_not_make_a_block_wait() -> None:
    who = ast.Test("principal.user", None, (Compare(Op.IS, ("eve",)),), MARK)
    made = generation(rule("r", BLOCK, when=ast.All((who, holds("x")), MARK)))
    assert not made.decide(UPLOAD, facts(SO_FAR, user=None)).blocked
    assert made.decide(UPLOAD, facts(FOUND, user=None)).blocked
    assert not made.decide(UPLOAD, facts(FOUND, user="me")).blocked


def test_several_texts_are_any_of_them_and_several_operators_all() -> None:
    both = ast.Test("body", None, (Compare(Op.IS, ("a", "b")), Compare(Op.REGEX, "[0-9]{4}")), MARK)
    expected = {(): False, (0,): False, (0, 1): False, (2,): False, (0, 2): True, (1, 2): True}
    for numbers, found in expected.items():
        body = BodyFacts(frozenset(numbers), complete=True)
        assert applies(both, body) is found


def test_a_pattern_of_several_rules_has_one_number() -> None:
    made = generation(
        rule("a", LOG, when=holds("x", "y")), rule("b", LOG, when=ast.AnyOf((holds("y"),), MARK))
    )
    watch = made.watch(UPLOAD, facts(None))
    assert watch is not None
    assert [pattern.source for pattern in watch.patterns.patterns] == ["x", "y"]
    ruling = made.decide(UPLOAD, facts(BodyFacts(frozenset({1}))))
    assert [hit.rule for hit in ruling.hits] == ["a", "b"]


def test_texts_come_from_lists_too() -> None:
    words = ast.ListDef("words", ast.ListType.STRING, ("alpha", "beta"), MARK)
    found = ast.Test("body", None, (Compare(Op.IN, "words"),), MARK)
    made = generation(rule("r", BLOCK, when=found), lists=(words,))
    assert not made.decide(UPLOAD, facts(END)).blocked
    assert made.decide(UPLOAD, facts(BodyFacts(frozenset({1})))).blocked


def test_there_is_an_end_to_what_is_searched_for() -> None:
    many = ast.ListDef("many", ast.ListType.STRING, tuple(map(str, range(4097))), MARK)
    for when in (
        ast.Test("body", None, (Compare(Op.IN, "many"),), MARK),
        ast.AnyOf(tuple(holds(*map(str, range(n, n + 2049))) for n in (0, 2049)), MARK),
    ):
        with pytest.raises(PolicyError, match="at most 4096"):
            generation(rule("r", BLOCK, when=when), lists=(many,))


def test_digests_come_from_lists_too() -> None:
    bad = ast.ListDef("bad", ast.ListType.HASH, (EMPTY,), MARK)
    known = ast.Test("body.sha256", None, (Compare(Op.IN, "bad"),), MARK)
    made = generation(rule("r", BLOCK, when=known), lists=(bad,))
    assert made.decide(UPLOAD, facts(END)).blocked
    assert not made.decide(UPLOAD, facts(BodyFacts(sha256="0" * 64, complete=True))).blocked


@pytest.mark.parametrize(("layer", "value"), [(UPLOAD, "up"), (DOWNLOAD, "down")])
def test_a_body_layer_sees_the_head_of_its_message(layer: Layer, value: str) -> None:
    header = ast.Test("header", "X-A", (Compare(Op.IS, (value,)),), MARK)
    way = ast.Test(
        "direction", None, (Compare(Op.IS, ("outbound" if layer is UPLOAD else "inbound",)),), MARK
    )
    one = rule("r", LOG, when=ast.All((header, way), MARK), layer=layer)
    assert decide(one, END).hits
    other = DOWNLOAD if layer is UPLOAD else UPLOAD
    assert not decide(replace(one, layer=other), END).hits


# --- against all that may still come -------------------------------------------------------

TEXTS = ("x", "y")
parts = st.one_of(
    st.sampled_from(TEXTS).map(holds),
    st.sampled_from([1, 2]).map(lambda n: size(gt=n)),
    st.sampled_from([1, 2]).map(lambda n: size(le=n)),
    st.sampled_from([1, 2]).map(lambda n: size(is_=(n,))),
    st.just(digest(EMPTY)),
)
conditions = st.recursive(
    parts,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda p: ast.All(tuple(p), MARK)),
        st.lists(inner, min_size=1, max_size=3).map(lambda p: ast.AnyOf(tuple(p), MARK)),
        inner.map(not_),
    ),
    max_leaves=5,
)


def endings(body: BodyFacts) -> list[BodyFacts]:
    """Every way in which a body may end of which so much is known."""
    return [
        BodyFacts(body.matched | frozenset(more), body.size + grown, sha, complete=True)
        for more in itertools.chain.from_iterable(
            itertools.combinations(range(len(TEXTS)), n) for n in range(len(TEXTS) + 1)
        )
        for grown in range(4)
        for sha in (EMPTY, "0" * 64)
    ]


@given(
    when=conditions,
    unless=st.none() | conditions,
    then=st.sampled_from([BLOCK, LOG, PERMIT]),
    matched=st.frozensets(st.sampled_from(range(len(TEXTS)))),
    so_far=st.integers(0, 3),
)
def test_what_acts_early_would_act_at_any_end(
    when: ast.Condition,
    unless: ast.Condition | None,
    then: ast.Action,
    matched: frozenset[int],
    so_far: int,
) -> None:
    numbered = rule("n", LOG, when=holds(*TEXTS))  # so that 0 and 1 are x and y
    made = generation(numbered, rule("r", then, when=when, unless=unless, weight=1))
    body = BodyFacts(matched, so_far)
    early = "r" in [hit.rule for hit in made.decide(UPLOAD, facts(body)).hits]
    late = [
        "r" in [hit.rule for hit in made.decide(UPLOAD, facts(end)).hits] for end in endings(body)
    ]
    if early:
        assert all(late)
    watched = made.watch(UPLOAD, facts(None))
    assert watched is not None
    assert watched.enforcing or then is not BLOCK or not any(late)
