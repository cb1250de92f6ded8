"""What a good file becomes: rules, conditions, actions, lists, with defaults filled in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.ast import Compare, ListType, Mark, OnReload, Op
from proxy.policy.load import parse_policy

HEAD = "version: 1\npolicy: p\n"
FILES = {
    "lists/ads.txt": b"ads.example\n",
    "pages/no.html": b"\xef\xbb\xbf<h1>${reason}</h1>",
    "pages/latin1.html": b"<h1>\xe9</h1>",
    "pages/big.html": b"x" * 65537,
}


def load(text: str) -> ast.PolicyFile:
    return parse_policy("p.yaml", text.encode(), lambda path: FILES[path])


def only_rule(body: str) -> ast.Rule:
    return load(f"{HEAD}rules:\n- {body}\n").rules[0]


def when(text: str, layer: str = "http_response") -> ast.Condition | None:
    found = only_rule(f"{{id: r, layer: {layer}, when: {text}, then: {{log: true}}}}").when
    return unmarked(found) if found is not None else None


M = Mark("", 0, 0)


def unmarked(condition: ast.Condition) -> ast.Condition:
    match condition:
        case ast.Test():
            return replace(condition, mark=M)
        case ast.Not():
            return ast.Not(unmarked(condition.part), M)
        case ast.All() | ast.AnyOf():
            return type(condition)(tuple(map(unmarked, condition.parts)), M)


def is_(field: str, *values: object, arg: str | None = None) -> ast.Test:
    return ast.Test(field, arg, (Compare(Op.IS, values),), M)


def then(text: str, layer: str = "http_request") -> ast.Action:
    actions = only_rule(f"{{id: r, layer: {layer}, then: {text}}}").then
    assert len(actions) == 1
    return actions[0]


def test_a_rule_takes_the_defaults_of_its_file() -> None:
    file = load(
        HEAD + "sublayers: {early: 500}\n"
        "defaults: {mode: shadow, on_reload: reauthorize, severity: high, sublayer: early,"
        " weight: 7}\n"
        "rules:\n- {id: a, layer: stream, then: {log: true}}\n"
        "- {id: b, layer: stream, then: {log: true}, mode: enforce, severity: low, weight: 0,"
        " sublayer: default}\n"
    )
    a, b = file.rules
    assert (a.shadow, a.severity, a.sublayer, a.weight) == (True, "high", "early", 7)
    assert (b.shadow, b.severity, b.sublayer, b.weight) == (False, "low", "default", 0)
    assert file.on_reload is OnReload.REAUTHORIZE
    assert file.sublayers == (("early", 500),)


def test_a_rule_knows_its_place_and_its_words() -> None:
    rule = only_rule(
        "{id: r-1.x, layer: auth_connect, description: D, tags: [a, b], then: {log: m}}"
    )
    assert rule.mark == Mark("p.yaml", 4, 3)
    assert (rule.id, rule.layer, rule.description) == ("r-1.x", Layer.AUTH_CONNECT, "D")
    assert rule.tags == ("a", "b")
    assert rule.when is None
    assert rule.then == (ast.Log("m"),)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("{host: A.Example.}", is_("host", "a.example")),
        (
            "{host: ['*.x.test', 'api-?.x.test', '2001:DB8:0::1']}",
            is_("host", "*.x.test", "api-?.x.test", "2001:db8::1"),
        ),
        (
            "{dst.ip: ['10.0.0.0/8', '2001:DB8:0::/32', '::ffff:1.2.3.4']}",
            is_("dst.ip", "10.0.0.0/8", "2001:db8::/32", "::ffff:102:304"),
        ),
        ("{dst.port: [25, 8000-8080]}", is_("dst.port", 25, (8000, 8080))),
        ("{status: 0x1F4}", is_("status", 500)),
        ("{path: [404, yes, 1.0, 0x10]}", is_("path", "404", "yes", "1.0", "0x10")),
        ("{time: [9:00-17:30, '22:00 - 24:00']}", is_("time", "09:00-17:30", "22:00-24:00")),
        ("{weekday: [Mon, SUN]}", is_("weekday", "mon", "sun")),
        ("{header.X-Forwarded-For: 10.*}", is_("header", "10.*", arg="X-Forwarded-For")),
        ("{request.header.A: b}", is_("request.header", "b", arg="A")),
        ("{response.header.A: b}", is_("response.header", "b", arg="A")),
        ("{cookie.sid: b}", is_("cookie", "b", arg="sid")),
        (
            "{content_length: {gt: 1, le: 5, exists: true}}",
            ast.Test(
                "content_length",
                None,
                (Compare(Op.GT, 1), Compare(Op.LE, 5), Compare(Op.EXISTS, True)),
                M,
            ),
        ),
        (
            "{path: {regex: '^/a', is: [/a*]}}",
            ast.Test("path", None, (Compare(Op.REGEX, "^/a"), Compare(Op.IS, ("/a*",))), M),
        ),
        ("{path: /a, status: 200}", ast.All((is_("path", "/a"), is_("status", 200)), M)),
        (
            "{any: [{path: /a}, {not: {path: /b}}]}",
            ast.AnyOf((is_("path", "/a"), ast.Not(is_("path", "/b"), M)), M),
        ),
        ("{all: [{path: /a}, {path: /b, status: 1-199}]}", None),
    ],
)
def test_conditions(text: str, condition: ast.Condition | None) -> None:
    if condition is None:
        with pytest.raises(Exception, match="1 as status, expected 100 to 599"):
            when(text)
    else:
        assert when(text) == condition


def test_a_list_and_a_macro_are_used_by_name() -> None:
    file = load(
        HEAD + "lists: {l: {type: domain, values: [B.test, a.test, b.test], file: lists/ads.txt}}\n"
        "macros: {inner: {host: {in: l}}, outer: {not: {macro: inner}}}\n"
        "rules: [{id: r, layer: http_request, when: {macro: outer}, except: {path: /x},"
        " then: {log: true}}]\n"
    )
    assert file.lists == (
        ast.ListDef(
            "l", ListType.DOMAIN, ("b.test", "a.test", "ads.example"), Mark("p.yaml", 3, 12)
        ),
    )
    test = ast.Test("host", None, (Compare(Op.IN, "l"),), M)
    found, unless = file.rules[0].when, file.rules[0].unless
    assert found is not None
    assert unmarked(found) == ast.Not(test, M)
    assert unless is not None
    assert unmarked(unless) == is_("path", "/x")


@pytest.mark.parametrize(
    ("layer", "text", "action"),
    [
        ("auth_connect", "{permit: true}", ast.Permit(hard=False)),
        ("auth_connect", "{permit: {hard: true}}", ast.Permit(hard=True)),
        ("auth_connect", "{block: true}", ast.Block(hard=True, how="reset")),
        ("auth_connect", "{block: {hard: false, how: drop}}", ast.Block(hard=False, how="drop")),
        ("http_request", "{block: true}", ast.Block(how="page", status=403)),
        ("http_request", "{block: {how: reset}}", ast.Block(how="reset")),
        (
            "http_response",
            "{block: {status: 451, reason: No., page: pages/no.html}}",
            ast.Block(how="page", status=451, reason="No.", page="<h1>${reason}</h1>"),
        ),
        ("http_request", "{redirect: '/blocked?u=${url}'}", ast.Redirect("/blocked?u=${url}")),
        (
            "http_request",
            "{redirect: {to: 'https://${host}${path}', status: 308}}",
            ast.Redirect("https://${host}${path}", 308),
        ),
        (
            "http_request",
            "{headers: {remove: Via, rename: {A: B}, replace: {name: C, regex: '(x)', by: '<\\1>'},"
            " set: {Host: h.test}, add: {Content-Type: text/plain}}}",
            ast.Headers(
                remove=("Via",),
                rename=(("A", "B"),),
                replace=(ast.HeaderReplace("C", "(x)", r"<\1>"),),
                set=(("Host", "h.test"),),
                add=(("Content-Type", "text/plain"),),
            ),
        ),
        ("http_request", "{rewrite_url: {path: /a, query: ''}}", ast.RewriteUrl("/a", "")),
        (
            "http_request",
            "{rewrite_url: {regex: '^/v(.)', by: '/w\\1'}}",
            ast.RewriteUrl(None, None, "^/v(.)", r"/w\1"),
        ),
        ("http_response", "{inject_banner: <p>x</p>}", ast.InjectBanner("<p>x</p>")),
        (
            "http_response",
            "{inject_banner: {html: x, at: head_end}}",
            ast.InjectBanner("x", at="head_end"),
        ),
        ("stream", "{tag: a}", ast.Tag(("a",))),
        ("stream", "{tag: [a, b:c]}", ast.Tag(("a", "b:c"))),
        ("endpoint_closure", "{log: true}", ast.Log("")),
    ],
)
def test_actions(layer: str, text: str, action: ast.Action) -> None:
    assert then(text, layer) == action


def test_actions_keep_the_order_in_which_they_are_written() -> None:
    rule = only_rule(
        "{id: r, layer: http_request, then: {tag: a, headers: {remove: A}, log: x, permit: true}}"
    )
    assert [type(action) for action in rule.then] == [ast.Tag, ast.Headers, ast.Log, ast.Permit]


@pytest.mark.parametrize(
    ("page", "message"), [("latin1", "is not UTF-8"), ("big", "has 65537 bytes")]
)
def test_a_page_that_cannot_be_shown_is_refused(page: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        then(f"{{block: {{page: pages/{page}.html}}}}")


def test_a_file_without_rules_permits_everything() -> None:
    assert load(HEAD).rules == ()


def test_later_anomalies_come_later() -> None:
    file = load(HEAD + "anomalies: {'http1.*': repair, http1.obs_fold: refuse}\n")
    assert file.anomalies == (("http1.*", "repair"), ("http1.obs_fold", "refuse"))


def test_aliases_repeat_conditions() -> None:
    file = load(
        HEAD + "rules:\n"
        "- {id: a, layer: http_request, when: &w {path: /x}, then: &t {block: true}}\n"
        "- {id: b, layer: http_request, when: *w, then: *t}\n"
    )
    assert file.rules[0].when == file.rules[1].when
    assert file.rules[0].then == file.rules[1].then
