"""What cannot become a generation is refused with every place, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.errors import PolicyError
from proxy.heads import Field, RequestHead
from proxy.model import Endpoint, FlowInfo, Layer, RedirectInfo
from proxy.policy import ast
from proxy.policy.ast import Compare, Mark, Op
from proxy.policy.compile import compile_policies
from proxy.policy.facts import Facts
from proxy.policy.fields import FIELDS, Kind


def asks(field: str = "host", arg: str | None = None, *, line: int, **compares: Any) -> ast.Test:
    made = tuple(Compare(Op(op.removesuffix("_")), value) for op, value in compares.items())
    return ast.Test(field, arg, made, Mark("p.yaml", line, 7))


def rule(name: str, *then: ast.Action, line: int = 1, **more: Any) -> ast.Rule:
    given = {"layer": Layer.HTTP_REQUEST, "when": None, "unless": None} | more
    return ast.Rule(id=name, then=then, mark=Mark("p.yaml", line, 3), **given)


def problems(*rules: ast.Rule, **more: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        compile_policies([ast.PolicyFile("p.yaml", "p", "", rules, **more)], 1)
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_is_reported_at_its_place() -> None:
    found = problems(
        rule("a", ast.Block(), when=asks("path", line=4, regex="(")),
        rule("b", ast.Block(), when=asks(line=8, in_="nowhere")),
        rule("c", ast.Block(), unless=asks("status", line=12, is_=(200,))),
        rule("d", ast.Block(), when=ast.Not(asks("no.such", line=16, is_=("x",)), Mark("", 0, 0))),
        rule("e", ast.Block(), when=asks("header", line=20, exists=True)),
        rule("f", ast.Block(), when=asks("dst.ip", line=24, is_=("10.0.0.0/33",))),
    )
    assert [line.split(": ")[0] for line in found] == [f"p.yaml:{n}:7" for n in range(4, 25, 4)]
    for line, words in zip(
        found, ["missing )", "nowhere", "http_request", "no.such", "NAME", "/33"], strict=True
    ):
        assert words in line


@pytest.mark.parametrize(
    ("layer", "then", "words"),
    [
        (Layer.AUTH_CONNECT, (ast.Redirect("/x"),), "Redirect is not possible at auth_connect"),
        (Layer.STREAM, (ast.Headers(),), "Headers"),
        (Layer.HTTP_RESPONSE, (ast.RewriteUrl(path="/"),), "RewriteUrl"),
        (Layer.HTTP_REQUEST, (ast.InjectBanner("x"),), "InjectBanner"),
        (Layer.HTTP_REQUEST, (ast.Block(), ast.Permit()), "more than one"),
        (Layer.HTTP_REQUEST, (), "does nothing"),
    ],
)
def test_actions_that_a_layer_cannot_have(
    layer: Layer, then: tuple[ast.Action, ...], words: str
) -> None:
    (found,) = problems(rule("r", *then, layer=layer, line=5))
    assert found.startswith("p.yaml:5:3: ")
    assert words in found


def test_a_rule_id_is_used_once_in_all_files() -> None:
    one = ast.PolicyFile("1.yaml", "1", "", (rule("same", ast.Log(), line=2),))
    two = ast.PolicyFile("2.yaml", "2", "", (rule("same", ast.Log(), line=9),))
    with pytest.raises(PolicyError, match=r"p\.yaml:9:3.*'same'.*p\.yaml:2"):
        compile_policies([one, two], 1)


def test_files_must_agree_on_a_sublayers_weight() -> None:
    one = ast.PolicyFile("1.yaml", "1", "", (), sublayers=(("edge", 5),))
    two = ast.PolicyFile("2.yaml", "2", "", (), sublayers=(("edge", 6),))
    with pytest.raises(PolicyError, match=r"2\.yaml: sublayer 'edge' weighs 6 here and 5 in 1"):
        compile_policies([one, two], 1)
    compile_policies([one, ast.PolicyFile("3.yaml", "3", "", (), sublayers=(("edge", 5),))], 1)


def test_lists_belong_to_their_file() -> None:
    def file(name: str, *hosts: str) -> ast.PolicyFile:
        listed = ast.ListDef("hosts", ast.ListType.DOMAIN, hosts, Mark(name, 1, 1))
        deny = rule(f"deny-{name}", ast.Log(), when=asks(line=1, in_="hosts"))
        return ast.PolicyFile(name, name, "", (deny,), (listed,))

    redirect = RedirectInfo("static", Endpoint("10.0.0.1", 80), Endpoint("127.0.0.1", 1))
    request = RequestHead(b"1.1", (Field(b"Host", b"host", b"x.b.test"),), b"GET", b"/")
    facts = Facts(FlowInfo("1", redirect, 0.0), 0.0, request=request)
    many = [f"h{i}.test" for i in range(2000)]  # too many to be filed, so asked
    for extra in ([], many):
        rules = compile_policies([file("1", "a.test", *extra), file("2", "b.test", *extra)], 1)
        hits = rules.decide(Layer.HTTP_REQUEST, facts).hits
        assert [hit.rule for hit in hits] == ["deny-2"]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_of_the_table_can_be_read_at_its_layers(name: str) -> None:
    arg = "x" if FIELDS[name].takes_arg else None
    compares: dict[str, Any] = {"exists": True}
    if FIELDS[name].kind in (Kind.CONTENT, Kind.HASH):
        compares = {"is_": ("0" * 64,)}
    rules = [
        rule(f"r-{layer}", ast.Log(), when=asks(name, arg, line=1, **compares), layer=layer)
        for layer in FIELDS[name].layers
    ]
    generation = compile_policies([ast.PolicyFile("p.yaml", "p", "", tuple(rules))], 1)
    redirect = RedirectInfo("static", Endpoint("10.0.0.1", 80), Endpoint("127.0.0.1", 1))
    for layer in FIELDS[name].layers:
        generation.decide(layer, Facts(FlowInfo("1", redirect, 0.0), 0.0))
        assert generation.wants_field(layer, name)
