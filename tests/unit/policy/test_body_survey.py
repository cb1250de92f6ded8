"""What may still happen: which rules could touch a body, and what they would want to know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Endpoint, FlowInfo, Layer, Protocol, RedirectInfo
from proxy.patterns import literal
from proxy.policy import ast
from proxy.policy.ast import Compare, Op
from proxy.policy.compile import compile_policies
from proxy.policy.facts import BodyFacts, Facts
from proxy.policy.generation import Generation
from proxy.policy.ruling import BodyWatch

MARK = ast.Mark("p.yaml", 1, 1)
REQUEST, RESPONSE = Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE
UPLOAD, DOWNLOAD = Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY
BLOCK, LOG = ast.Block(how="page"), ast.Log()
REPLACE = ast.Replace((ast.Replacement(literal("a"), "b"),))
SET = ast.SetBody(ast.Content(b"x", "text/plain"))
BANNER = ast.InjectBanner("<p>x</p>")


def is_(field: str, *values: Any, arg: str | None = None) -> ast.Test:
    return ast.Test(field, arg, (Compare(Op.IS, values),), MARK)


def rule(name: str, *then: ast.Action, when: ast.Condition | None = None, **more: Any) -> ast.Rule:
    given = {"layer": RESPONSE, "unless": None, "mark": MARK} | more
    return ast.Rule(id=name, when=when, then=then, **given)


def generation(*rules: ast.Rule) -> Generation:
    return compile_policies([ast.PolicyFile("p.yaml", "house", "", rules)], 1)


def facts(host: str = "a.test", *, answered: bool = False, tags: tuple[str, ...] = ()) -> Facts:
    redirect = RedirectInfo("nft", Endpoint("192.0.2.1", 80), Endpoint("10.0.0.9", 1))
    head = RequestHead(
        b"1.1", (Field(b"Host", b"host", host.encode()),), method=b"GET", target=b"/"
    )
    answer = ResponseHead(b"1.1", (Field(b"Content-Type", b"content-type", b"text/html"),), 200)
    flow = FlowInfo("f", redirect, 0.0, tags=list(tags))
    return Facts(flow, 0.0, request=head, response=answer if answered else None)


# --- at the request ------------------------------------------------------------------------

HTML = is_("content_type", "text/html")


@pytest.mark.parametrize(
    ("rules", "touch", "inject"),
    [
        ([], False, False),
        ([rule("r", REPLACE)], True, False),
        ([rule("r", ast.RemoveBody())], True, False),
        ([rule("r", SET)], True, False),
        ([rule("r", BANNER)], False, True),
        ([rule("r", REPLACE, shadow=True), rule("s", BANNER, shadow=True)], False, False),
        ([rule("r", ast.Headers(remove=("Server",)), BLOCK)], False, False),
        ([rule("r", REPLACE, when=is_("host", "b.test"))], False, False),
        ([rule("r", REPLACE, when=HTML), rule("b", BANNER, when=HTML)], True, True),
        ([rule("r", REPLACE, when=ast.Not(HTML, MARK))], True, False),
        ([rule("r", BANNER, when=is_("header", "x", arg="X-A"))], False, True),
        ([rule("r", BANNER, when=is_("request.header", "x", arg="X-A"))], False, False),
        ([rule("r", BANNER, when=is_("status", 200))], False, True),
        ([rule("r", BANNER, when=is_("content_type.sniffed", "text/html"))], False, True),
        ([rule("r", BANNER, when=is_("tag", "late"))], False, True),
        ([rule("r", BANNER, unless=is_("host", "a.test"))], False, False),
        ([rule("r", SET, layer=REQUEST)], False, False),
        ([rule("r", LOG, layer=DOWNLOAD, when=is_("body", "x"))], True, False),
        ([rule("r", LOG, layer=DOWNLOAD, shadow=True, when=is_("body", "x"))], True, False),
        ([rule("r", LOG, layer=DOWNLOAD, when=is_("host", "b.test"))], False, False),
        ([rule("r", LOG, layer=UPLOAD, when=is_("body", "x"))], False, False),
        ([rule("p", ast.Permit(), when=is_("host", "a.test")), rule("r", REPLACE)], False, False),
        ([rule("p", ast.Permit(), when=HTML), rule("r", REPLACE)], True, False),
        ([rule("p", ast.Permit(), shadow=True), rule("r", REPLACE)], True, False),
    ],
)
def test_whether_the_body_of_the_answer_may_be_touched(
    rules: list[ast.Rule], touch: bool, inject: bool
) -> None:
    made = generation(*rules)
    assert made.may_touch_response_body(facts()) is touch
    assert made.may_inject_banner(facts()) is inject


# --- at a head -----------------------------------------------------------------------------


def watch(*rules: ast.Rule, layer: Layer = DOWNLOAD, **given: Any) -> BodyWatch | None:
    return generation(*rules).watch(layer, facts(answered=True, **given))


def on_body(name: str, *then: ast.Action, **more: Any) -> ast.Rule:
    given: dict[str, Any] = {"layer": DOWNLOAD, "when": is_("body", name)} | more
    return rule(name, *then, **given)


def sources(found: BodyWatch | None) -> list[str]:
    assert found is not None
    return [pattern.source for pattern in found.patterns.patterns]


def test_nothing_is_watched_where_no_rule_can_apply() -> None:
    assert watch() is None
    assert watch(on_body("x", BLOCK, layer=UPLOAD)) is None
    elsewhere = ast.All((is_("host", "b.test"), is_("body", "x")), MARK)
    assert watch(on_body("x", BLOCK, when=elsewhere)) is None
    image = ast.All((is_("content_type", "image/png"), is_("body", "x")), MARK)
    assert watch(on_body("x", BLOCK, when=image)) is None


def test_what_is_watched_is_what_the_rules_ask() -> None:
    found = watch(on_body("x", BLOCK), on_body("y", LOG))
    assert sources(found) == ["x", "y"]
    size = ast.Test("body.size", None, (Compare(Op.GT, 5),), MARK)
    found = watch(on_body("x", BLOCK, when=size))
    assert found is not None
    assert (sources(found), found.digest, found.enforcing) == ([], False, True)
    found = watch(on_body("x", LOG, when=None, unless=is_("body.sha256", "0" * 64)))
    assert found is not None
    assert (sources(found), found.digest, found.enforcing) == ([], True, False)


def test_reporting_rules_are_watched_for_and_enforce_nothing() -> None:
    for one in (
        on_body("x", LOG),
        on_body("x", ast.Tag(("t",))),
        on_body("x", BLOCK, shadow=True),
        on_body("x", ast.Permit()),
    ):
        found = watch(one)
        assert sources(found) == ["x"]
        assert found is not None
        assert not found.enforcing


def test_the_largest_hold_of_the_rules_that_may_block() -> None:
    small, large = ast.Block(how="page", hold=10), ast.Block(how="page", hold=20)
    found = watch(on_body("x", small), on_body("y", large), on_body("z", BLOCK))
    assert found is not None
    assert found.hold == 20
    for other in (on_body("y", large, shadow=True), on_body("y", large, when=is_("status", 404))):
        found = watch(on_body("x", small), other)
        assert found is not None
        assert found.hold == 10


def test_a_rule_that_surely_permits_hides_those_behind_it() -> None:
    found = watch(on_body("p", ast.Permit(), when=is_("host", "a.test")), on_body("x", BLOCK))
    assert found is not None
    assert not found.enforcing
    found = watch(on_body("p", ast.Permit()), on_body("x", BLOCK))
    assert found is not None
    assert found.enforcing


def test_a_tag_may_come_from_a_rule_about_the_same_body() -> None:
    tagging = on_body("x", ast.Tag(("seen",)))
    for condition in (is_("tag", "seen"), ast.Not(is_("tag", "other"), MARK)):
        found = watch(tagging, on_body("y", BLOCK, when=condition))
        assert found is not None
        assert found.enforcing
    assert watch(on_body("y", BLOCK, when=is_("tag", "seen"))) is None
    assert watch(on_body("y", BLOCK, when=is_("tag", "seen")), tags=("seen",)) is not None


def test_rules_on_bodies_enforce_http() -> None:
    """Or HTTP that cannot be inspected would carry the content past them."""
    assert generation(on_body("x", BLOCK, layer=UPLOAD)).protocols == {Protocol.HTTP1}
    assert generation(on_body("x", BLOCK, shadow=True)).protocols == frozenset()


# --- what happens was foreseen -------------------------------------------------------------

tests_of_response = st.one_of(
    st.sampled_from([200, 404]).map(lambda code: is_("status", code)),
    st.sampled_from(["text/html", "image/png"]).map(lambda kind: is_("content_type", kind)),
    st.sampled_from(["a.test", "b.test"]).map(lambda host: is_("host", host)),
    st.sampled_from(["early", "late"]).map(lambda tag: is_("tag", tag)),
    st.just(ast.Test("response.header", "X-A", (Compare(Op.EXISTS, True),), MARK)),
)
conditions = st.recursive(
    tests_of_response,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: ast.All(tuple(parts), MARK)),
        st.lists(inner, min_size=1, max_size=2).map(lambda parts: ast.AnyOf(tuple(parts), MARK)),
        inner.map(lambda part: ast.Not(part, MARK)),
    ),
    max_leaves=4,
)
actions: st.SearchStrategy[tuple[ast.Action, ...]] = st.sampled_from(
    [(REPLACE,), (SET,), (BANNER,), (BLOCK,), (ast.Permit(),), (ast.Tag(("late",)),), (LOG,)]
)
some_rules = st.lists(
    st.tuples(actions, st.none() | conditions, st.none() | conditions, st.booleans()), max_size=4
)


@given(
    some_rules=some_rules,
    of_body=st.booleans(),
    status=st.sampled_from([200, 404]),
    kind=st.sampled_from([b"text/html", b"image/png"]),
    more=st.booleans(),
    tags=st.sampled_from([(), ("early",)]),
)
def test_no_edit_comes_unforeseen(
    some_rules: list[tuple[Any, Any, Any, bool]],
    of_body: bool,
    status: int,
    kind: bytes,
    more: bool,
    tags: tuple[str, ...],
) -> None:
    layer = DOWNLOAD if of_body else RESPONSE
    rules = [
        rule(f"r{n}", *then, when=when, unless=unless, shadow=shadow, layer=layer)
        for n, (then, when, unless, shadow) in enumerate(some_rules)
        if not of_body or not isinstance(then[0], ast.Replace | ast.SetBody | ast.InjectBanner)
    ]
    made = generation(*rules)
    asked = facts(tags=tags)
    fields = [Field(b"Content-Type", b"content-type", kind)]
    if more:
        fields.append(Field(b"X-A", b"x-a", b"1"))
    answer = ResponseHead(b"1.1", tuple(fields), status)
    known = replace(asked, response=answer, body=BodyFacts(complete=True))
    ruling = made.decide(layer, known)
    edits = {type(planned.edit) for planned in ruling.edits}
    assert made.may_inject_banner(asked) or ast.InjectBanner not in edits
    assert made.may_touch_response_body(asked) or not edits - {ast.InjectBanner}
    if of_body:
        assert made.may_touch_response_body(asked) or not ruling.hits
        watched = made.watch(layer, known)
        assert watched is not None or not ruling.hits
        assert not ruling.blocked or (watched is not None and watched.enforcing)
