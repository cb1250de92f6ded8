"""Explaining a decision: it says what the decision was, and why, in the rule's own words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, Protocol, RedirectInfo
from proxy.policy import ast
from proxy.policy.compile import compile_policies
from proxy.policy.explain import Explainer, Fate, LayerTrace
from proxy.policy.explain_case import Case, Step, explain_case
from proxy.policy.explain_parts import value_of
from proxy.policy.facts import Facts
from proxy.policy.load import parse_policy

POLICIES = Path(__file__).parents[3] / "policies"
HEAD = "version: 1\npolicy: p\n"


def no_file(path: str) -> bytes:
    raise FileNotFoundError(path)


def explainer(*texts: str) -> Explainer:
    files = tuple(
        parse_policy(f"{name}.yaml", f"version: 1\npolicy: {name}\n{text}".encode(), no_file)
        for name, text in zip("abc", texts, strict=False)
    )
    return Explainer(files, compile_policies(files, 1))


def flow(port: int = 80, exe: str | None = None, **known: object) -> FlowInfo:
    confidence = Confidence.NONE if exe is None else Confidence.EXACT
    redirect = RedirectInfo(
        provider="nft",
        original_dst=Endpoint("192.0.2.1", port),
        client=Endpoint("192.0.2.99", 40000),
        principal=Principal(exe=exe, confidence=confidence),
    )
    protocol = known.get("protocol", Protocol.HTTP1)
    assert isinstance(protocol, Protocol)
    return FlowInfo("f", redirect, 0.0, protocol)


def fields(headers: dict[str, str]) -> tuple[Field, ...]:
    return tuple(Field(k.encode(), k.lower().encode(), v.encode()) for k, v in headers.items())


def get(path: str = "/", host: str = "a.test", method: str = "GET", **headers: str) -> RequestHead:
    lines = fields({"Host": host, **{k.replace("_", "-"): v for k, v in headers.items()}})
    return RequestHead(b"1.1", lines, method=method.encode(), target=path.encode())


def at_request(rules: str, request: RequestHead, exe: str | None = None) -> LayerTrace:
    return explainer(rules).explain(Layer.HTTP_REQUEST, Facts(flow(exe=exe), 0.0, request))


def fates(trace: LayerTrace) -> dict[str, Fate]:
    return {rule.rule.id: rule.fate for rule in trace.rules}


def why(trace: LayerTrace, rule: str) -> list[str]:
    (found,) = (t for t in trace.rules if t.rule.id == rule)
    return [reason.words for reason in found.reasons]


def places(trace: LayerTrace, rule: str) -> list[tuple[int, int]]:
    (found,) = (t for t in trace.rules if t.rule.id == rule)
    return [(reason.mark.line, reason.mark.column) for reason in found.reasons]


RULES = """rules:
  - {id: host, layer: http_request, when: {host: "*.example"}, then: {block: true}}
  - id: two
    layer: http_request
    when: {method: GET, path: "/admin*"}
    then: {block: true}
  - {id: all, layer: http_request, then: {log: true}}
"""


# --- reasons


def test_a_rule_that_does_not_match_says_what_it_saw_and_what_it_wanted_and_where() -> None:
    trace = at_request(RULES, get("/x"))
    assert fates(trace) == {"host": Fate.NO_MATCH, "two": Fate.NO_MATCH, "all": Fate.ACTS}
    assert why(trace, "host") == ["host is 'a.test', wanted *.example"]
    assert why(trace, "two") == ["path is '/x', wanted /admin*"]
    assert places(trace, "two") == [(7, 25)]
    assert why(trace, "all") == ["it has no condition"]


def test_a_rule_that_matches_says_everything_that_it_rests_on() -> None:
    trace = at_request(RULES, get("/admin/users"))
    assert fates(trace)["two"] is Fate.DECIDES
    assert why(trace, "two") == ["method is 'GET'", "path is '/admin/users' (/admin*)"]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("{not: {method: GET}}", ["method is 'GET', wanted not GET"]),
        ("{header.X-A: {exists: true}}", ["header.X-A is absent, wanted present"]),
        ("{header.User-Agent: {exists: false}}", ["header.User-Agent is 'curl', wanted absent"]),
        ("{path: {regex: '[.]exe$'}}", ["path is '/x', wanted /[.]exe$/"]),
        ("{dst.port: [25, 587, 1000-2000]}", ["dst.port is 80, wanted 25 or 587 or 1000-2000"]),
        ("{dst.port: {gt: 100, lt: 200}}", ["dst.port is 80, wanted > 100 and < 200"]),
        (
            "{any: [{method: POST}, {path: /y}]}",
            ["method is 'GET', wanted POST", "path is '/x', wanted /y"],
        ),
        (
            "{all: [{method: GET}, {not: {any: [{path: /y}, {path: /x}]}}]}",
            ["path is '/x', wanted not /x"],
        ),
        ("{time: 22:00-23:00}", ["time is 00:00, wanted 22:00-23:00"]),
    ],
)
def test_reasons_of_every_kind_of_condition(condition: str, words: list[str]) -> None:
    rules = f"rules: [{{id: r, layer: http_request, when: {condition}, then: {{log: true}}}}]"
    midnight = Facts(flow(), _local_midnight(), get("/x", User_Agent="curl"))
    trace = explainer(rules).explain(Layer.HTTP_REQUEST, midnight)
    assert why(trace, "r") == words


def _local_midnight() -> float:
    from datetime import datetime

    return datetime(2026, 11, 23).timestamp()


def test_an_exception_is_the_reason_and_says_so() -> None:
    rules = """rules:
  - {id: r, layer: http_request, when: {method: GET}, except: {path: /ok}, then: {block: true}}
"""
    trace = at_request(rules, get("/ok"))
    assert fates(trace) == {"r": Fate.NO_MATCH}
    assert why(trace, "r") == ["except: path is '/ok'"]
    applied = at_request(rules, get("/no"))
    assert why(applied, "r") == ["method is 'GET'", "except: path is '/no', not /ok"]


def test_values_from_the_wire_are_shown_printable() -> None:
    trace = at_request(
        "rules: [{id: r, layer: http_request, when: {header.X-A: b}, then: {log: true}}]",
        get(X_A="\u202e\x1b[31m" + "z" * 1000),
    )
    (words,) = why(trace, "r")
    assert words.isprintable()
    assert len(words) < 300
    assert "\\u202e" in words


# --- fates


def test_what_stands_behind_a_block_is_not_reached_and_says_by_which_rule() -> None:
    trace = at_request(RULES, get("/admin", host="a.example"))
    assert fates(trace) == {
        "host": Fate.DECIDES,
        "two": Fate.NOT_REACHED,
        "all": Fate.NOT_REACHED,
    }
    assert [(t.by, t.applies) for t in trace.rules[1:]] == [("host", True), ("host", True)]


def test_a_shadow_rule_ends_nothing() -> None:
    trace = at_request(
        """rules:
  - {id: s, layer: http_request, mode: shadow, then: {block: true}}
  - {id: r, layer: http_request, then: {permit: true}}
""",
        get(),
    )
    assert fates(trace) == {"s": Fate.SHADOW, "r": Fate.DECIDES}


def test_an_unknown_principal_matches_for_a_rule_that_denies_and_for_no_other() -> None:
    rules = """rules:
  - {id: p, layer: http_request, when: {principal.exe: "*/curl"}, then: {tag: curl}}
  - {id: b, layer: http_request, when: {not: {principal.exe: "*/curl"}}, then: {block: true}}
"""
    trace = at_request(rules, get())
    assert fates(trace) == {"p": Fate.UNKNOWN, "b": Fate.DECIDES}
    assert why(trace, "b") == ["principal.exe is unknown, wanted not */curl"]
    known = at_request(rules, get(), exe="/usr/bin/curl")
    assert fates(known) == {"p": Fate.ACTS, "b": Fate.NO_MATCH}


def test_sublayers_are_arbitrated_and_the_overridden_say_by_whom() -> None:
    rules = """sublayers: {company: 1000, team: 500}
rules:
  - {id: soft, layer: auth_connect, sublayer: company, then: {block: {hard: false}}}
  - {id: late, layer: auth_connect, sublayer: company, weight: 1, then: {permit: true}}
  - {id: team, layer: auth_connect, sublayer: team, then: {permit: true}}
"""
    trace = explainer(rules).explain(Layer.AUTH_CONNECT, Facts(flow(), 0.0))
    assert fates(trace) == {
        "soft": Fate.OVERRIDDEN,
        "late": Fate.NOT_REACHED,
        "team": Fate.DECIDES,
    }
    assert [t.by for t in trace.rules] == ["team", "soft", None]


def test_a_tag_of_an_earlier_rule_is_seen() -> None:
    trace = at_request(
        """rules:
  - {id: put, layer: http_request, then: {tag: seen}}
  - {id: use, layer: http_request, when: {tag: seen}, then: {block: true}}
""",
        get(),
    )
    assert fates(trace) == {"put": Fate.ACTS, "use": Fate.DECIDES}


def test_equal_conditions_of_two_rules_keep_their_own_places() -> None:
    rules = """rules:
  - {id: one, layer: http_request, when: {path: /x}, then: {log: true}}
  - {id: two, layer: http_request, when: {path: /x}, then: {log: true}}
"""
    trace = at_request(rules, get("/"))
    assert places(trace, "one")[0][0] == 4
    assert places(trace, "two")[0][0] == 5


def test_lists_are_those_of_the_rules_own_file() -> None:
    text = """lists: {{hosts: {{type: domain, values: [{0}.test]}}}}
rules: [{{id: {0}, layer: http_request, when: {{host: {{in: hosts}}}}, then: {{log: true}}}}]
"""
    made = explainer(text.format("a"), text.format("b"))
    trace = made.explain(Layer.HTTP_REQUEST, Facts(flow(), 0.0, get(host="b.test")))
    assert fates(trace) == {"a": Fate.NO_MATCH, "b": Fate.ACTS}


# --- what is left open


def test_a_rule_that_rests_on_what_was_not_told_does_not_decide() -> None:
    rules = """rules:
  - {id: b, layer: http_request, when: {dst.ip: 192.0.2.0/24}, then: {block: true}}
  - {id: n, layer: http_request, when: {dst.ip: 192.0.2.0/24, method: PUT}, then: {block: true}}
  - {id: e, layer: http_request, then: {headers: {remove: X-A}}}
"""
    facts = Facts(flow(), 0.0, get())
    trace = explainer(rules).explain(Layer.HTTP_REQUEST, facts, frozenset({"dst.ip"}))
    assert fates(trace) == {"b": Fate.DEPENDS, "n": Fate.NO_MATCH, "e": Fate.ACTS}
    assert not trace.ruling.blocked
    assert [planned.rule for planned in trace.ruling.edits] == ["e"]


def test_a_header_can_be_left_open_by_its_name() -> None:
    rules = """rules:
  - {id: a, layer: http_request, when: {header.X-A: "1"}, then: {block: true}}
  - {id: b, layer: http_request, when: {header.X-B: "1"}, then: {block: true}}
"""
    facts = Facts(flow(), 0.0, get())
    trace = explainer(rules).explain(Layer.HTTP_REQUEST, facts, frozenset({"header.x-a"}))
    assert fates(trace) == {"a": Fate.DEPENDS, "b": Fate.NO_MATCH}


# --- the way through the layers


def steps(rules: str, case: Case) -> list[Step]:
    return list(explain_case(explainer(rules), case))


EVERYWHERE = "rules:" + "".join(
    f"\n  - {{id: {layer.value}, layer: {layer.value}, then: {{tag: {layer.value}}}}}"
    for layer in (
        Layer.CONNECT_REDIRECT,
        Layer.AUTH_CONNECT,
        Layer.FLOW_ESTABLISHED,
        Layer.STREAM,
        Layer.TLS_CLIENT_HELLO,
        Layer.HTTP_REQUEST,
        Layer.HTTP_RESPONSE,
        Layer.ENDPOINT_CLOSURE,
    )
)


def test_an_exchange_meets_the_layers_in_their_order_and_keeps_its_tags() -> None:
    case = Case(flow(), 0.0, get(), ResponseHead(b"1.1", (), status=200))
    met = [step.layer.value for step in steps(EVERYWHERE, case)]
    assert met == [
        "connect_redirect",
        "auth_connect",
        "flow_established",
        "stream",
        "http_request",
        "http_response",
        "endpoint_closure",
    ]
    assert case.flow.tags == met


def test_tls_shows_its_client_hello_and_no_messages() -> None:
    met = [s.layer for s in steps(EVERYWHERE, Case(flow(protocol=Protocol.TLS), 0.0))]
    assert met[-3:] == [Layer.STREAM, Layer.TLS_CLIENT_HELLO, Layer.ENDPOINT_CLOSURE]


def test_behind_a_block_nothing_is_asked_but_the_end() -> None:
    block = EVERYWHERE.replace("{tag: auth_connect}", "{block: true}")
    asked = {s.layer: s.why for s in steps(block, Case(flow(), 0.0, get()))}
    assert asked.pop(Layer.CONNECT_REDIRECT) == ""
    assert asked.pop(Layer.AUTH_CONNECT) == ""
    assert asked.pop(Layer.ENDPOINT_CLOSURE) == ""
    assert set(asked.values()) == {"auth_connect at auth_connect blocks the connection"}


def test_without_a_response_its_rules_depend_or_are_ruled_out_by_the_request() -> None:
    rules = """rules:
  - {id: s, layer: http_response, when: {status: 404}, then: {block: true}}
  - {id: o, layer: http_response, when: {status: 404, host: b.test}, then: {block: true}}
  - {id: h, layer: http_response, when: {request.header.X-A: {exists: false}}, then: {log: true}}
"""
    (step,) = steps(rules, Case(flow(), 0.0, get()))
    assert step.trace is not None
    assert fates(step.trace) == {"s": Fate.DEPENDS, "o": Fate.NO_MATCH, "h": Fate.ACTS}
    assert step.why == "no response is given"


def test_a_body_that_is_given_is_searched_and_one_that_is_not_leaves_its_rules_open() -> None:
    rules = r"""rules:
  - {id: a, layer: http_response, then: {tag: x}}
  - {id: s, layer: http_response_body, when: {header.X-A: "1", body: no}, then: {log: true}}
  - {id: n, layer: http_response_body, when: {body: {regex: '\bsecret\b'}}, then: {block: true}}
  - {id: l, layer: http_response_body, when: {body.size: {gt: 5}}, then: {log: true}}
"""
    response = ResponseHead(b"1.1", (), status=200)
    case = Case(flow(), 0.0, get(), response, response_body=b"a secret")
    _, step = steps(rules, case)
    assert step.trace is not None
    assert fates(step.trace) == {"s": Fate.NO_MATCH, "n": Fate.DECIDES, "l": Fate.NOT_REACHED}
    assert why(step.trace, "n") == ["body holds /\\bsecret\\b/"]
    _, harmless = steps(rules, replace(case, response_body=b"harmless"))
    assert harmless.trace is not None
    assert fates(harmless.trace)["l"] is Fate.ACTS
    assert why(harmless.trace, "n") == ["body does not hold /\\bsecret\\b/"]
    _, unknown = steps(rules, replace(case, response_body=None))
    assert unknown.trace is not None
    assert fates(unknown.trace) == {"s": Fate.NO_MATCH, "n": Fate.DEPENDS, "l": Fate.DEPENDS}


def test_patterns_are_found_by_what_decides_without_the_rules_that_depend() -> None:
    """The first rule's pattern is number 0 with it and gone without it."""
    rules = """rules:
  - {id: d, layer: http_request_body, when: {header.X-A: "1", body: one}, then: {block: true}}
  - {id: n, layer: http_request_body, when: {body: two}, then: {block: true}}
"""
    case = Case(flow(), 0.0, get(), request_body=b"one two", unknown=frozenset({"header.x-a"}))
    (step,) = steps(rules, case)
    assert step.trace is not None
    assert fates(step.trace) == {"d": Fate.DEPENDS, "n": Fate.DECIDES}
    assert step.trace.ruling.rule == "n"


def test_local_files_that_have_no_answer_are_a_reason() -> None:
    rule = "{id: m, layer: http_request, then: {map_local: {path: /l/a.txt, file: a.txt}}}"
    text = f"version: 1\npolicy: p\nrules: [{rule}]\n".encode()
    files = (parse_policy("p.yaml", text, lambda path, *limit: b"x"),)
    made = Explainer(files, compile_policies(files, 1))
    trace = made.explain(Layer.HTTP_REQUEST, Facts(flow(), 0.0, get("/l/b.txt")))
    assert fates(trace) == {"m": Fate.NO_MATCH}
    (words,) = why(trace, "m")
    assert words.endswith("has no answer to this path")
    there = made.explain(Layer.HTTP_REQUEST, Facts(flow(), 0.0, get("/l/a.txt")))
    assert fates(there) == {"m": Fate.DECIDES}


# --- it is what decides


TESTS = st.sampled_from(
    [
        "method: GET",
        "path: /x",
        "host: a.test",
        "principal.exe: /bin/a",
        "tag: t",
        "dst.port: 80",
        "header.X-A: {exists: false}",
        "path: {regex: x}",
    ]
)
CONDITIONS = st.recursive(
    TESTS.map(lambda t: f"{{{t}}}"),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda c: f"{{all: [{', '.join(c)}]}}"),
        st.lists(inner, min_size=1, max_size=3).map(lambda c: f"{{any: [{', '.join(c)}]}}"),
        inner.map(lambda c: f"{{not: {c}}}"),
    ),
    max_leaves=5,
)
HTTP_THEN = st.sampled_from(
    ["{block: true}", "{permit: true}", "{tag: t}", "{log: true}", "{headers: {remove: X-A}}"]
)
SOFT, HARD = "{block: {hard: false}}", "{permit: {hard: true}}"
CONNECTION_THEN = st.sampled_from(["{block: true}", SOFT, "{permit: true}", HARD, "{tag: t}"])


@st.composite
def policies(draw: st.DrawFn, layer: Layer) -> str:
    then = CONNECTION_THEN if layer is Layer.AUTH_CONNECT else HTTP_THEN
    conditions = (
        CONDITIONS
        if layer is Layer.HTTP_REQUEST
        else st.sampled_from(
            ["{dst.port: 80}", "{principal.exe: /bin/a}", "{tag: t}", "{not: {dst.port: 80}}"]
        )
    )
    rules = []
    for number in range(draw(st.integers(1, 6))):
        rule = f"id: r{number}, layer: {layer.value}, weight: {draw(st.integers(1, 3))}"
        rule += f", when: {draw(conditions)}, then: {draw(then)}"
        if draw(st.booleans()):
            rule += f", except: {draw(conditions)}"
        if draw(st.integers(0, 4)) == 0:
            rule += ", mode: shadow"
        rule += f", sublayer: {draw(st.sampled_from(['default', 'other']))}"
        rules.append(f"  - {{{rule}}}\n")
    return "sublayers: {other: 500}\nrules:\n" + "".join(rules)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), layer=st.sampled_from([Layer.HTTP_REQUEST, Layer.AUTH_CONNECT]))
def test_the_account_is_the_decision(data: st.DataObject, layer: Layer) -> None:
    """Which rules hit, what decides and each condition's value: as the generation has them."""
    made = explainer(data.draw(policies(layer)))
    exe = data.draw(st.sampled_from([None, "/bin/a", "/bin/b"]))
    request = get(data.draw(st.sampled_from(["/x", "/y"]))) if layer is Layer.HTTP_REQUEST else None
    facts = Facts(flow(data.draw(st.sampled_from([80, 443])), exe), 0.0, request)
    trace = made.explain(layer, facts)
    ruling = made.generation.decide(layer, facts)
    assert trace.ruling == ruling
    acted = (Fate.ACTS, Fate.SHADOW, Fate.DECIDES)
    assert [t.rule.id for t in trace.rules if t.fate in acted] == [h.rule for h in ruling.hits]
    assert [t.rule.id for t in trace.rules if t.fate is Fate.DECIDES] == (
        [ruling.rule] if ruling.rule else []
    )
    for rule in trace.rules:
        assert rule.reasons
        value = value_of(rule.when, rule.unless)
        denies = any(isinstance(action, ast.Block) for action in rule.rule.then)
        assert rule.applies is (denies if value is None else value)


def test_the_shipped_policies_can_be_explained() -> None:
    files = tuple(
        parse_policy(path.name, path.read_bytes(), lambda name: (POLICIES / name).read_bytes())
        for path in sorted(POLICIES.glob("base*e.yaml"))
    )
    made = Explainer(files, compile_policies(files, 1))
    blocked = made.explain(Layer.AUTH_CONNECT, Facts(flow(23), 0.0))
    assert blocked.ruling.rule == "baseline-telnet"
    assert fates(blocked)["baseline-telnet"] is Fate.DECIDES
