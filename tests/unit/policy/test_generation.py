"""What a generation answers at the layers where rules are one sequence, and what it offers."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Endpoint, FlowInfo, Layer, Protocol, RedirectInfo
from proxy.policy import ast
from proxy.policy.ast import Compare, OnReload, Op
from proxy.policy.compile import compile_policies
from proxy.policy.facts import Facts
from proxy.policy.generation import Generation
from proxy.policy.ruling import RuleVerdict, Ruling

MARK = ast.Mark("p.yaml", 1, 1)
REQUEST, RESPONSE = Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE
STRIP = ast.Headers(remove=("Server",))
REWRITE = ast.RewriteUrl(path="/new")


def is_(field: str, *values: Any) -> ast.Test:
    return ast.Test(field, None, (Compare(Op.IS, values),), MARK)


def rule(name: str, *then: ast.Action, when: ast.Condition | None = None, **more: Any) -> ast.Rule:
    given = {"layer": REQUEST, "unless": None, "mark": MARK} | more
    return ast.Rule(id=name, when=when, then=then, **given)


def generation(*rules: ast.Rule, number: int = 1, **more: Any) -> Generation:
    return compile_policies([ast.PolicyFile("p.yaml", "house", "", rules, **more)], number)


def facts(path: str = "/", host: str = "a.test", tags: tuple[str, ...] = ()) -> Facts:
    redirect = RedirectInfo("static", Endpoint("10.0.0.1", 80), Endpoint("127.0.0.1", 1))
    return Facts(
        FlowInfo("1", redirect, 0.0, tags=list(tags)),
        0.0,
        request=RequestHead(
            b"1.1",
            (Field(b"Host", b"host", host.encode()),),
            method=b"GET",
            target=path.encode(),
        ),
        response=ResponseHead(b"1.1", (), status=200),
    )


def decide(*rules: ast.Rule, **request: Any) -> Ruling:
    return generation(*rules).decide(REQUEST, facts(**request))


def names(ruling: Ruling) -> list[tuple[str, str]]:
    return [(hit.rule, hit.verdict) for hit in ruling.hits]


def test_edits_tags_and_logs_accumulate_up_to_the_permit() -> None:
    ruling = decide(
        rule("edit", REWRITE, weight=90),
        rule("tag", ast.Tag(("t", "t")), weight=80),
        rule("log", ast.Log("hello"), weight=70),
        rule("allow", STRIP, ast.Permit(), weight=60),
        rule("never", ast.Block(), weight=50),
    )
    assert names(ruling) == [("edit", "edit"), ("tag", "tag"), ("log", "log"), ("allow", "permit")]
    assert [(planned.edit, planned.rule) for planned in ruling.edits] == [
        (REWRITE, "edit"),
        (STRIP, "allow"),
    ]
    assert (ruling.tags, ruling.verdict, ruling.rule) == (("t",), RuleVerdict.PERMIT, "allow")
    assert ruling.hits[2].detail == "hello"


@pytest.mark.parametrize("final", [ast.Block(how="page"), ast.Redirect("https://x.test/")])
def test_a_message_that_does_not_pass_is_not_edited_but_the_hits_stay(final: ast.Action) -> None:
    ruling = decide(rule("edit", REWRITE, ast.Tag(("t",)), weight=200), rule("end", final))
    assert ruling.action == final
    assert ruling.edits == ()
    assert ruling.tags == ("t",)
    assert [hit.rule for hit in ruling.hits] == ["edit", "end"]


def test_order_is_sublayer_then_weight_then_file_then_position() -> None:
    first = ast.PolicyFile(
        "1.yaml",
        "one",
        "",
        (
            rule("d", ast.Log(), weight=10),
            rule("b", ast.Log()),
            rule("e", ast.Log(), sublayer="low", weight=10_000),
        ),
        sublayers=(("low", 5), ("high", 500)),
    )
    second = ast.PolicyFile(
        "2.yaml", "two", "", (rule("c", ast.Log()), rule("a", ast.Log(), sublayer="high", weight=1))
    )
    ruling = compile_policies([first, second], 3).decide(REQUEST, facts())
    assert [hit.rule for hit in ruling.hits] == ["a", "b", "c", "d", "e"]
    assert [hit.policy for hit in ruling.hits] == ["two", "one", "two", "one", "one"]


def test_a_shadow_rule_is_recorded_and_does_nothing() -> None:
    ruling = decide(
        rule("would", ast.Block(how="page", status=451), ast.Tag(("s",)), shadow=True, weight=200),
        rule("edit", STRIP, shadow=True, weight=190),
        rule("does", ast.Log("x"), when=ast.Not(is_("tag", "s"), MARK)),
    )
    assert (ruling.verdict, ruling.rule, ruling.edits, ruling.tags) == ("permit", None, (), ())
    assert [(hit.rule, hit.verdict, hit.shadow) for hit in ruling.hits] == [
        ("would", "block", True),
        ("edit", "edit", True),
        ("does", "log", False),
    ]
    assert ruling.hits[0].detail == "would block with status 451, tag s"


def test_tags_are_visible_to_later_rules_of_the_same_decision() -> None:
    mark = rule("mark", ast.Tag(("bad",)), when=is_("path", "/x*"), weight=200)
    deny = rule("deny", ast.Block(), when=is_("tag", "bad"))
    early = rule("early", ast.Log(), when=is_("tag", "bad"), weight=300)
    assert names(decide(early, mark, deny, path="/x")) == [("mark", "tag"), ("deny", "block")]
    assert not decide(early, mark, deny, path="/y").blocked
    assert decide(deny, tags=("bad",)).blocked


def test_a_condition_with_tags_is_not_remembered_across_rules() -> None:
    tagged = ast.All((is_("tag", "t"), is_("path", "/")), MARK)
    ruling = decide(
        rule("before", ast.Log(), when=tagged, weight=300),
        rule("put", ast.Tag(("t",)), weight=200),
        rule("after", ast.Log(), when=tagged, weight=100),
    )
    assert [hit.rule for hit in ruling.hits] == ["put", "after"]


def test_except() -> None:
    deny = rule(
        "deny", ast.Block(), when=is_("host", "*.test"), unless=is_("path", "/public/*", "/health")
    )
    assert decide(deny, path="/x").blocked
    assert not decide(deny, path="/health").blocked
    assert not decide(deny, path="/health", host="a.example").blocked


TRAVERSAL = "/public/%2e%2e/admin"


def test_no_encoding_of_the_path_evades_a_block_or_stretches_a_permit() -> None:
    deny = rule("deny", ast.Block(), when=is_("path", "/admin*"))
    for path in ("/admin", "/%61dmin", "//admin", "/./admin", TRAVERSAL, "/x/..%2fadmin"):
        assert decide(deny, path=path).blocked, path
    only_public = (
        rule("allow", ast.Permit(), when=is_("path", "/public/*"), weight=200),
        rule("rest", ast.Block()),
    )
    assert decide(*only_public, path="/public/a%20b").rule == "allow"
    assert decide(*only_public, path=TRAVERSAL).rule == "rest"
    outside = ast.Not(is_("path", "/public/*"), MARK)
    assert decide(rule("deny", ast.Block(), when=outside), path=TRAVERSAL).blocked
    public = is_("path", "/public/*")
    assert decide(rule("deny", ast.Block(), unless=public), path=TRAVERSAL).blocked
    assert not decide(rule("deny", ast.Block(), unless=public), path="/public/x").blocked


def test_an_unknown_fact_counts_for_a_denying_rule_only() -> None:
    by_root = is_("principal.user", "root")
    for condition in (by_root, ast.Not(by_root, MARK)):
        assert decide(rule("deny", ast.Block(), when=condition)).blocked
        assert decide(rule("tag", ast.Tag(("t",)), when=condition)).hits == ()
        assert decide(rule("allow", ast.Permit(), when=condition)).rule is None
        assert decide(rule("deny", ast.Block(), unless=condition)).blocked
        assert decide(rule("tag", ast.Tag(("t",)), unless=condition)).hits == ()
    known = ast.All((by_root, is_("path", "/other")), MARK)
    assert not decide(rule("deny", ast.Block(), when=known)).blocked


def test_an_unknown_host_finds_the_indexed_denying_rules() -> None:
    rules = generation(
        rule("deny", ast.Block(), when=is_("host", "b.test")),
        rule("allow", ast.Permit(), when=is_("host", "c.test"), weight=300),
    )
    unknown = facts()
    unknown.unknown = frozenset({"host"})
    assert rules.decide(REQUEST, unknown).rule == "deny"
    assert rules.decide(REQUEST, facts()).rule is None


def test_records_carry_what_the_rule_is() -> None:
    ruling = generation(
        rule(
            "deny",
            ast.Block(),
            ast.Log("why"),
            ast.Tag(("flow",)),
            severity="high",
            tags=("pci",),
            sublayer="edge",
        ),
        number=12,
        sublayers=(("edge", 7),),
    ).decide(REQUEST, facts())
    (hit,) = ruling.hits
    assert (hit.layer, hit.verdict, hit.rule, hit.policy) == (REQUEST, "block", "deny", "house")
    assert (hit.generation, hit.sublayer, hit.severity) == (12, "edge", "high")
    assert (hit.tags, hit.detail, hit.shadow, hit.veto) == (("pci", "flow"), "why", False, False)
    assert ruling.tags == ("flow",)  # a rule's own tags describe it, they are not put on flows


def test_the_interest_mask() -> None:
    rules = generation(
        rule("a", ast.Block(), when=is_("host", "a.test"), unless=is_("path", "/x")),
        rule(
            "b", ast.Log(), when=ast.Not(is_("content_type.sniffed", "x/y"), MARK), layer=RESPONSE
        ),
    )
    assert [layer for layer in Layer if rules.wants(layer)] == [REQUEST, RESPONSE]
    assert rules.wants_field(REQUEST, "path")
    assert rules.wants_field(RESPONSE, "content_type.sniffed")
    assert not rules.wants_field(REQUEST, "content_type.sniffed")
    assert not rules.wants_field(Layer.STREAM, "host")
    assert rules.decide(Layer.STREAM, facts()).verdict is RuleVerdict.PERMIT


def test_what_the_rules_ask_of_the_proxy() -> None:
    banner = ast.InjectBanner("<p>hi</p>")
    assert generation().protocols == frozenset()
    assert generation(rule("a", banner, layer=RESPONSE)).protocols == {Protocol.HTTP1}
    shadow = generation(rule("a", banner, layer=RESPONSE, shadow=True))
    assert shadow.protocols == frozenset()
    hello = rule("b", ast.Block(), layer=Layer.TLS_CLIENT_HELLO)
    assert generation(rule("a", ast.Log()), hello).protocols == {Protocol.HTTP1, Protocol.TLS}


def test_anomaly_actions_later_entries_win_and_globs_count() -> None:
    first = ast.PolicyFile(
        "1.yaml", "1", "", (), anomalies=(("http1.*", "repair"), ("http1.bare_lf", "refuse"))
    )
    second = ast.PolicyFile("2.yaml", "2", "", (), anomalies=(("http1.te_*", "refuse"),))
    rules = compile_policies([first, second], 1)
    assert rules.anomaly_action("http1.bare_lf") == "refuse"
    assert rules.anomaly_action("http1.obs_fold") == "repair"
    assert rules.anomaly_action("http1.te_and_cl") == "refuse"
    assert rules.anomaly_action("tls.nobody_knows") == "refuse"


def test_a_generation_describes_itself_and_does_not_change() -> None:
    files = [
        ast.PolicyFile(
            "1.yaml", "one", "", (rule("z", ast.Log()), rule("y", ast.Log(), weight=900))
        ),
        ast.PolicyFile(
            "2.yaml", "two", "", (rule("x", ast.Log()),), on_reload=OnReload.REAUTHORIZE
        ),
    ]
    rules = compile_policies(files, 4)
    assert (rules.number, rules.rules, rules.rule_ids) == (4, 3, ("z", "y", "x"))
    assert (rules.policies, rules.on_reload) == (("one", "two"), OnReload.REAUTHORIZE)
    assert compile_policies([], 1).on_reload is OnReload.KEEP
    with pytest.raises(FrozenInstanceError):
        rules.number = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        rules.layers[Layer.STREAM] = rules.layers[REQUEST]  # type: ignore[index]


def test_rules_about_a_name_and_the_names_above_it_are_all_found_in_order() -> None:
    hosts = ("*.test", "y.x.a.test", "*.a.test", "*.x.a.test", "other.test", "*.y.x.a.test")
    found = decide(
        *(rule(host, ast.Log(), when=is_("host", host)) for host in hosts),
        rule("several", ast.Log(), when=is_("host", "*.test", "y.x.a.test", "*.a.test")),
        rule("any", ast.Log()),
        host="Y.x.a.test",
    )
    assert [hit.rule for hit in found.hits] == [*hosts[:4], "several", "any"]


def test_ten_thousand_rules_about_other_hosts_cost_nothing() -> None:
    def rules(count: int) -> Generation:
        return generation(
            *(
                rule(
                    f"r{i}",
                    ast.Block(),
                    when=ast.All(
                        (is_("host", f"h{i}.test", f"*.x{i}.test"), is_("path", "/a*")), MARK
                    ),
                )
                for i in range(count)
            )
        )

    few, many = rules(10), rules(10_000)
    assert many.decide(REQUEST, facts("/a", "h9999.test")).rule == "r9999"
    assert many.decide(REQUEST, facts("/a", "deep.in.x7777.test")).rule == "r7777"
    assert not many.decide(REQUEST, facts("/a", "x7777.test")).blocked

    def calls(asked: Generation) -> int:
        """Python functions entered by one decision, caches warm: no clock is asked."""
        known = facts("/a/b", "www.elsewhere.test")
        asked.decide(REQUEST, known)
        entered = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal entered
            entered += event == "call"

        sys.setprofile(count)
        try:
            asked.decide(REQUEST, known)
        finally:
            sys.setprofile(None)
        return entered

    assert calls(many) <= calls(few) + 2  # linear would be thousands more


def test_a_shared_condition_is_evaluated_once_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    import proxy.policy.operators as operators

    def counting(pattern: str, **kind: Any) -> Any:
        return lambda value: asked.append(pattern) or False  # type: ignore[func-returns-value]

    monkeypatch.setattr(operators, "compile_regex", counting)
    slow = ast.Test("url", None, (Compare(Op.REGEX, "x.*y"),), MARK)
    same = ast.Test("url", None, (Compare(Op.REGEX, "x.*y"),), ast.Mark("p.yaml", 9, 9))
    rules = generation(*(rule(f"r{i}", ast.Log(), when=(slow, same)[i % 2]) for i in range(50)))
    rules.decide(REQUEST, facts())
    assert len(asked) == 1
