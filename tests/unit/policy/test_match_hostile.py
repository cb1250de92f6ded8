"""Whatever comes from the wire or the system: a decision is made, and nothing is raised."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import (
    Confidence,
    Endpoint,
    FlowInfo,
    Layer,
    Principal,
    Protocol,
    RedirectInfo,
)
from proxy.policy import ast
from proxy.policy.ast import Compare, Op
from proxy.policy.compile import compile_policies
from proxy.policy.facts import Facts
from proxy.policy.fields import FIELDS, Kind

MARK = ast.Mark("p.yaml", 1, 1)
LISTS = (
    ast.ListDef("domains", ast.ListType.DOMAIN, ("a.test", "*.b.test"), MARK),
    ast.ListDef("words", ast.ListType.STRING, ("a", "b"), MARK),
)
ARGS = ("host", "cookie", "content-type", "x")


def text_tests(field: str, kind: Kind) -> list[ast.Test]:
    name = "domains" if kind is Kind.DOMAIN else "words"
    compares = [
        Compare(Op.IS, ("a", "*é*", "?b*c", "*.b.test", "a*")),
        Compare(Op.REGEX, r"\d+.é"),
        Compare(Op.IN, name),
        Compare(Op.EXISTS, False),
    ]
    args = ARGS if FIELDS[field].takes_arg else (None,)
    return [ast.Test(field, arg, (compare,), MARK) for compare in compares for arg in args]


def every_test(layer: Layer) -> list[ast.Test]:
    tests = []
    for field, spec in FIELDS.items():
        if layer not in spec.layers:
            continue
        if spec.kind is Kind.NUMBER:
            tests.append(ast.Test(field, None, (Compare(Op.GT, 3),), MARK))
        elif spec.kind is Kind.IP:
            tests.append(ast.Test(field, None, (Compare(Op.IS, ("10.0.0.0/8",)),), MARK))
        elif spec.kind in (Kind.TEXT, Kind.TEXT_CI, Kind.DOMAIN):
            tests += text_tests(field, spec.kind)
    return tests


RULES = tuple(
    ast.Rule(f"{layer}-{number}", layer, test, None, (ast.Log(),), MARK)
    for layer in Layer
    for number, test in enumerate(every_test(layer))
)
GENERATION = compile_policies([ast.PolicyFile("p.yaml", "p", "", RULES, LISTS)], 1)

octets = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"a.b.test", b"[::1", b"%", b"a=1; =; ;b", b"..", b"\xff\x00/%ff%zz;a"]),
)
lines = st.lists(
    st.tuples(st.sampled_from([b"Host", b"Cookie", b"Content-Length", b"Content-Type"]), octets),
    max_size=6,
).map(lambda found: tuple(Field(n, n.lower(), v) for n, v in found))
texts = st.none() | st.text(max_size=10) | st.sampled_from(["\ud800\udcff", "\udce9", "a" * 300])


@st.composite
def hostile_facts(draw: st.DrawFn) -> Facts:
    principal = Principal(
        exe=draw(texts), user=draw(texts), cgroup=draw(texts), confidence=Confidence.EXACT
    )
    host = draw(st.sampled_from(["10.0.0.1", "2001:db8::1", "name.test", "", "not an address"]))
    redirect = RedirectInfo("static", Endpoint(host, 80), Endpoint(host, 1), draw(texts), principal)
    flow = FlowInfo("1", redirect, 0.0, Protocol.UNKNOWN, draw(texts), tags=["é"])
    return Facts(
        flow,
        draw(st.floats(0, 4e9)),
        request=RequestHead(b"1.1", draw(lines), method=draw(octets), target=draw(octets)),
        response=ResponseHead(b"1.1", draw(lines), status=draw(st.integers(100, 999))),
        sniffed=draw(texts),
    )


@given(hostile_facts())
def test_every_test_at_every_layer_survives(facts: Facts) -> None:
    for layer in Layer:
        for hit in GENERATION.decide(layer, facts).hits:
            assert hit.layer is layer
