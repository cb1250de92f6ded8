"""Lint: what it says, and that it says nothing of what is fine."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.heads import Field, RequestHead
from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, Protocol, RedirectInfo
from proxy.policy.build import PolicyText, compile_all, load_all
from proxy.policy.facts import Facts
from proxy.policy.generation import Generation
from proxy.policy.lint import Finding, Level, lint

POLICIES = Path(__file__).parents[3] / "policies"


def no_file(path: str, limit: int = 0) -> bytes:
    raise FileNotFoundError(path)


def checked(*texts: str) -> tuple[list[Finding], Generation]:
    files = [
        PolicyText(f"{name}.yaml", f"version: 1\npolicy: {name}\n{text}".encode())
        for name, text in zip("abc", texts, strict=False)
    ]
    loaded = load_all(files, no_file)
    generation = compile_all(loaded, 1)
    return list(lint(loaded, generation, files)), generation


def found(*texts: str) -> list[tuple[str, str | None]]:
    """(id, rule) of every warning."""
    return [(f.id, f.rule) for f in checked(*texts)[0] if f.level is Level.WARNING]


def rules(*lines: str) -> str:
    return "rules:\n" + "".join(f"  - {{{line}}}\n" for line in lines)


REQUEST, RESPONSE = "layer: http_request", "layer: http_response"
LOG, BLOCK, PERMIT = "then: {log: true}", "then: {block: true}", "then: {permit: true}"


# --- unreachable


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("when: {host: a.test}", "when: {host: A.test}"),
        ("when: {host: [a.test, b.test]}", "when: {host: b.test, method: GET}"),
        ("when: {header.X-A: {exists: true}}", "when: {header.x-a: b}"),
        ("when: {dst.port: {gt: 100}}", "when: {dst.port: [200, 300-400]}"),
        ("when: {dst.port: 1-99}", "when: {dst.port: [5-50, 99]}"),
        ("when: {not: {host: a.test}}", "when: {all: [{path: /x}, {not: {host: a.test}}]}"),
        ("when: {any: [{host: a.test}, {path: /x}]}", "when: {path: /x}"),
        ("when: {host: a.test}, except: {path: /x}", "when: {host: a.test}, except: {path: /x}"),
    ],
)
def test_a_rule_that_another_one_always_comes_before(first: str, second: str) -> None:
    text = rules(f"id: a, {REQUEST}, {first}, {BLOCK}", f"id: b, {REQUEST}, {second}, {LOG}")
    assert ("lint.unreachable", "b") in found(text)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"when: {{host: a.test, method: GET}}, {BLOCK}", "when: {host: a.test}"),
        (f"when: {{host: a.test}}, {LOG}", "when: {host: a.test}"),
        (f"when: {{host: a.test}}, mode: shadow, {BLOCK}", "when: {host: a.test}"),
        (f"when: {{host: a.test}}, except: {{path: /x}}, {BLOCK}", "when: {host: a.test}"),
        (f"when: {{tag: t}}, {BLOCK}", "when: {tag: t}"),
        (f"when: {{path: /x}}, {PERMIT}", "when: {path: /x}"),
        (f"when: {{host: a.test}}, weight: 1, {BLOCK}", "when: {host: a.test}"),
        (f"when: {{header.X-A: a}}, {BLOCK}", "when: {header.X-B: a}"),
        (f"when: {{cookie.a: a}}, {BLOCK}", "when: {cookie.A: a}"),
        (f"when: {{dst.port: 1-99}}, {BLOCK}", "when: {dst.port: 50-150}"),
    ],
)
def test_a_rule_that_may_be_asked_is_not_called_unreachable(first: str, second: str) -> None:
    text = rules(f"id: a, {REQUEST}, {first}", f"id: b, {REQUEST}, {second}, {LOG}")
    assert [name for name, _ in found(text) if name == "lint.unreachable"] == []


def test_a_permit_does_not_hide_a_block_that_counts_the_unknown_as_matched() -> None:
    one, two = f"when: {{dst.ip: 192.0.2.1}}, {PERMIT}", f"when: {{dst.ip: 192.0.2.1}}, {BLOCK}"
    text = rules(f"id: a, {REQUEST}, {one}", f"id: b, {REQUEST}, {two}")
    assert found(text) == []


def test_lists_of_the_same_name_in_two_files_are_two_lists() -> None:
    lists = "lists: {{l: {{type: domain, values: [{}.test]}}}}\n"
    rule = f"{REQUEST}, when: {{host: {{in: l}}}}, {BLOCK}"
    one = lists.format("a") + rules(f"id: a, {rule}")
    assert found(one, lists.format("b") + rules(f"id: b, {rule}")) == []
    assert found(lists.format("a") + rules(f"id: a, {rule}", f"id: b, {rule}")) == [
        ("lint.unreachable", "b")
    ]


def test_what_stands_behind_a_rule_about_everything_is_told_once() -> None:
    behind = [f"id: r{n}, {REQUEST}, when: {{path: /{n}}}, {LOG}" for n in range(9)]
    findings, _ = checked(rules(f"id: a, {REQUEST}, {PERMIT}", *behind))
    (finding,) = findings
    assert (finding.id, finding.rule) == ("lint.unreachable", "a")
    assert "r0, r1, r2, r3, r4 and 4 more" in finding.message


def test_at_connection_layers_only_the_own_sublayer_is_hidden() -> None:
    layer = f"layer: auth_connect, when: {{dst.port: 22}}, {BLOCK}"
    text = "sublayers: {other: 50}\n" + rules(
        f"id: a, {layer}", f"id: b, sublayer: other, {layer}", f"id: c, {layer}"
    )
    assert found(text) == [("lint.unreachable", "c")]


# --- never


@pytest.mark.parametrize(
    "condition",
    [
        "{all: [{host: a.test}, {host: b.test}]}",
        "{all: [{host: '*.a.test'}, {host: '*.b.test'}]}",
        "{status: {gt: 500, lt: 400}}",
        "{status: {gt: 200, lt: 201}}",
        "{status: 200, not: {status: 200}}",
        "{header.X-A: a, any: [{header.x-a: {exists: false}}]}",
        "{all: [{dst.port: 1-10}, {dst.port: 11}]}",
    ],
)
def test_conditions_that_contradict_themselves(condition: str) -> None:
    assert found(rules(f"id: a, {RESPONSE}, when: {condition}, {LOG}")) == [("lint.never", "a")]


@pytest.mark.parametrize(
    "condition",
    [
        "{all: [{host: '*.test'}, {host: 'a.*'}]}",
        "{all: [{path: /a}, {path: /b}]}",
        "{path: /a, not: {path: /a}}",
        "{all: [{header.X-A: a}, {header.X-A: b}]}",
        "{status: {ge: 500, le: 500}}",
        "{any: [{host: a.test}, {host: b.test}]}",
        "{all: [{host: a.test}, {not: {host: b.test}}]}",
        "{all: [{tag: a}, {tag: b}]}",
    ],
)
def test_conditions_that_can_hold(condition: str) -> None:
    assert found(rules(f"id: a, {RESPONSE}, when: {condition}, {LOG}")) == []


def test_an_exception_that_always_holds() -> None:
    text = rules(f"id: a, {REQUEST}, when: {{host: a.test}}, except: {{host: a.test}}, {BLOCK}")
    assert found(text) == [("lint.never", "a")]


def test_a_principal_that_the_provider_does_not_tell() -> None:
    either = "any: [{principal.uid: 0}, {path: /x}]"
    text = rules(
        f"id: a, {REQUEST}, when: {{provider: nft, principal.exe: /bin/a}}, {PERMIT}",
        f"id: b, {REQUEST}, when: {{provider: nft, not: {{principal.user: root}}}}, {BLOCK}",
        f"id: c, {REQUEST}, when: {{provider: nft, {either}}}, {LOG}",
        f"id: d, {REQUEST}, when: {{provider: [nft, ebpf], principal.exe: /bin/b}}, {PERMIT}",
        f"id: e, {REQUEST}, when: {{principal.exe: /bin/c}}, {PERMIT}",
        f"id: f, {REQUEST}, when: {{provider: nft, principal.confidence: none}}, {BLOCK}",
    )
    assert found(text) == [("lint.principal", "a"), ("lint.principal", "b")]


def test_the_same_twice() -> None:
    text = rules(
        f"id: a, {REQUEST}, when: {{all: [{{host: a.test}}, {{host: A.test}}]}}, {LOG}",
        f"id: b, {REQUEST}, when: {{path: /x}}, {LOG}",
        f"id: c, {REQUEST}, when: {{path: /x}}, {LOG}",
    )
    assert found(text) == [("lint.repeated", "a"), ("lint.duplicate", "c")]


def test_an_exception_that_never_holds_leaves_the_rule_as_it_is() -> None:
    unless = "except: {all: [{host: a.test}, {host: b.test}]}"
    text = rules(f"id: a, {REQUEST}, when: {{path: /x}}, {unless}, {LOG}")
    assert found(text) == [("lint.never_excepted", "a")]


# --- edits that fight


HEADERS = "then: {{headers: {{{}}}}}".format


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (HEADERS("set: {X-A: '1'}"), HEADERS("set: {x-a: '2'}")),
        (HEADERS("set: {X-A: '1'}"), HEADERS("remove: X-*")),
        (HEADERS("add: {X-A: '1'}"), HEADERS("remove: X-A")),
        ("then: {inject_banner: {html: a}}", "then: {inject_banner: {html: b}}"),
        ("then: {replace_body: {literal: a, by: b}}", "then: {set_body: {text: x}}"),
        ("then: {remove_body: true}", "then: {inject_banner: {html: a}}"),
    ],
)
def test_edits_of_which_one_undoes_the_other(first: str, second: str) -> None:
    names = {
        name
        for name, _ in found(rules(f"id: a, {RESPONSE}, {first}", f"id: b, {RESPONSE}, {second}"))
    }
    assert names == {"lint.fight"}


def test_a_body_that_is_set_twice_and_a_url_that_is_rewritten_twice() -> None:
    for then in ("{rewrite_url: {path: /x}}", "{rewrite_url: {query: ''}}"):
        text = rules(
            f"id: a, {REQUEST}, then: {then}", f"id: b, {REQUEST}, then: {then}, tags: [x]"
        )
        assert ("lint.fight", "b") in found(text)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            HEADERS("set: {X-A: '1'}"),
            HEADERS("set: {X-A: '1'}") + ", tags: [x], when: {status: 200}",
        ),
        (HEADERS("remove: X-A"), HEADERS("set: {X-A: '1'}")),
        (HEADERS("set: {X-A: '1'}"), HEADERS("set: {X-A: '2'}") + ", mode: shadow"),
        (
            HEADERS("set: {X-A: '1'}") + ", when: {content_type: text/html}",
            HEADERS("set: {X-A: '2'}") + ", when: {content_type: text/css}",
        ),
        (
            HEADERS("set: {X-A: '1'}") + ", when: {host: a.test}",
            HEADERS("set: {X-A: '2'}") + ", except: {host: a.test}",
        ),
        (
            "then: {inject_banner: {html: a}}",
            "then: {inject_banner: {html: b, at: body_end}}",
        ),
        (
            "then: {headers: {set: {X-A: '1'}}, permit: true}, when: {host: a.test}",
            HEADERS("set: {X-A: '2'}"),
        ),
    ],
)
def test_edits_that_get_on_with_each_other(first: str, second: str) -> None:
    assert found(rules(f"id: a, {RESPONSE}, {first}", f"id: b, {RESPONSE}, {second}")) == []


# --- regular expressions


@pytest.mark.parametrize("pattern", [".*exe", "^.*exe", "(?i).*exe"])
def test_a_pattern_that_begins_with_anything(pattern: str) -> None:
    text = rules(f"id: a, {REQUEST}, when: {{path: {{regex: '{pattern}'}}}}, {LOG}")
    assert found(text) == [("lint.regex_idle", "a")]


@pytest.mark.parametrize("pattern", ["exe.*", ".*?", ".*", "a|.*b", "^[.]*b"])
def test_a_pattern_that_means_what_it_says(pattern: str) -> None:
    text = rules(f"id: a, {REQUEST}, when: {{path: {{regex: '{pattern}'}}}}, {LOG}")
    assert found(text) == []


def test_a_pattern_of_an_edit_may_begin_with_anything() -> None:
    then = "then: {rewrite_url: {regex: '.*/x', by: /y}}"
    assert found(rules(f"id: a, {REQUEST}, {then}")) == []


def test_patterns_that_are_large_or_hold_much_back() -> None:
    text = rules(
        f"id: a, {REQUEST}, when: {{path: {{regex: '\\pL{{100}}'}}}}, {LOG}",
        "id: b, layer: http_response_body, when: {body: {regex: 'a[bc]{0,999}[de]{0,99}f'}}, "
        + BLOCK,
    )
    assert found(text) == [("lint.regex_large", "a"), ("lint.held_back", "b")]


# --- cost


def costs(text: str) -> list[str]:
    findings, _ = checked(text)
    return [f"{f.message} {f.advice}" for f in findings if f.id == "lint.cost"]


def test_a_rule_about_bodies_says_what_it_makes_pass_through() -> None:
    layer = "layer: http_response_body"
    all_, html = costs(
        rules(
            f"id: a, {layer}, when: {{body: x}}, {BLOCK}",
            f"id: b, {layer}, when: {{body: y, content_type: text/html}}, {BLOCK}",
        )
    )
    assert "every response body of every host is decoded, searched, never offloaded" in all_
    assert "add host or content_type" in all_
    assert "every response body where content_type is text/html is decoded" in html
    assert "add host" not in html


def test_costs_are_no_warnings_and_cheap_rules_have_none() -> None:
    text = rules(
        f"id: a, {RESPONSE}, when: {{content_type.sniffed: image/png}}, {BLOCK}",
        "id: b, layer: stream, then: {replace: {literal: a, by: b}}",
        f"id: c, {REQUEST}, when: {{host: a.test}}, {BLOCK}",
    )
    first, second = costs(text)
    assert "every response of every host is held until the first bytes of its body" in first
    assert "every byte of every flow is searched" in second
    assert "dst.port" in second
    assert found(text) == []


# --- unused


def test_what_nothing_uses() -> None:
    text = """sublayers: {used: 5, idle: 6}
macros: {inner: {host: a.test}, outer: {macro: inner}, idle: {path: /x}}
lists: {idle: {type: domain, values: [a.test]}}
defaults: {sublayer: used}
rules:
  - {id: a, layer: http_request, when: {macro: outer}, then: {log: true}}
"""
    findings, _ = checked(text)
    assert [(f.id, f.mark.line, f.mark.column) for f in findings] == [
        ("lint.unused", 3, 22),
        ("lint.unused", 4, 56),
        ("lint.unused", 5, 15),
    ]


def test_a_sublayer_may_be_used_by_another_file() -> None:
    used = rules(f"id: a, {REQUEST}, sublayer: s, when: {{path: /x}}, {LOG}")
    assert found("sublayers: {s: 5}\nrules: []\n", used) == []


# --- soundness


TESTS = st.one_of(
    st.sampled_from(["method: GET", "path: /x", "path: [/x, /y]", "host: a.test", "tag: t"]),
    st.sampled_from(["dst.port: 80", "dst.port: {gt: 79}", "principal.exe: /bin/a"]),
    st.sampled_from(["header.X-A: {exists: false}", "host: [a.test, b.test]", "host: b.test"]),
)
CONDITIONS = st.recursive(
    TESTS.map(lambda test: f"{{{test}}}"),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda c: f"{{all: [{', '.join(c)}]}}"),
        st.lists(inner, min_size=1, max_size=2).map(lambda c: f"{{any: [{', '.join(c)}]}}"),
        inner.map(lambda c: f"{{not: {c}}}"),
    ),
    max_leaves=3,
)


@st.composite
def policies(draw: st.DrawFn) -> str:
    lines = []
    for number in range(draw(st.integers(2, 5))):
        line = f"id: r{number}, {REQUEST}, when: {draw(CONDITIONS)}"
        line += f", {draw(st.sampled_from([LOG, BLOCK, PERMIT, 'then: {tag: t}']))}"
        if draw(st.integers(0, 2)) == 0:
            line += f", except: {draw(CONDITIONS)}"
        if draw(st.integers(0, 5)) == 0:
            line += ", mode: shadow"
        lines.append(line)
    return rules(*lines)


def all_facts() -> list[Facts]:
    """Every combination that the conditions above can tell apart."""
    made = []
    for exe in (None, "/bin/a", "/bin/b"):
        confidence = Confidence.NONE if exe is None else Confidence.EXACT
        for port in (79, 80, 81):
            redirect = RedirectInfo(
                "nft",
                Endpoint("192.0.2.1", port),
                Endpoint("192.0.2.2", 1),
                principal=Principal(exe=exe, confidence=confidence),
            )
            flow = FlowInfo("f", redirect, 0.0, Protocol.HTTP1)
            for host in (b"a.test", b"b.test", b"c.test"):
                for target in (b"/x", b"/y", b"/z", b"/%78", b"/y/../x"):
                    fields = (Field(b"Host", b"host", host),)
                    head = RequestHead(b"1.1", fields, method=b"GET", target=target)
                    made.append(Facts(flow, 0.0, head))
                    more = (*fields, Field(b"X-A", b"x-a", b""))
                    head = RequestHead(b"1.1", more, method=b"PUT", target=target)
                    made.append(Facts(flow, 0.0, head))
    return made


FACTS = all_facts()


@settings(max_examples=120, deadline=None)
@given(policies())
def test_what_is_called_unreachable_or_impossible_never_acts(text: str) -> None:
    findings, generation = checked(text)
    named = {
        f.rule
        for f in findings
        if f.id == "lint.never" or (f.id == "lint.unreachable" and "is never asked" in f.message)
    }
    acted = {
        hit.rule
        for facts in (FACTS if named else ())
        for hit in generation.decide(Layer.HTTP_REQUEST, facts).hits
    }
    assert not named & acted


# --- what ships


@pytest.mark.parametrize("directory", [POLICIES, POLICIES / "examples"])
def test_what_ships_has_no_warning(directory: Path) -> None:
    from proxy.policy.files import DirectoryFiles

    files = DirectoryFiles(directory)
    texts = files.policies()
    loaded = load_all(texts, files.read, files.list_folder)
    findings = lint(loaded, compile_all(loaded, 1), texts)
    assert [str(f) for f in findings if f.level is Level.WARNING] == []


def test_ten_thousand_rules_do_not_compare_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.policy.lint import order

    asked = 0
    original = order.hides

    def counting(*arguments: object) -> bool:
        nonlocal asked
        asked += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(order, "hides", counting)
    lines = [f"id: r{n}, {REQUEST}, when: {{host: h{n}.test}}, {BLOCK}" for n in range(3000)]
    assert found(rules(*lines)) == []
    assert asked < 100
