"""Every mistake has its place, says what was found, and names what was probably meant."""

from __future__ import annotations

import pytest

from proxy.errors import PolicyError, Problem
from proxy.policy.load import parse_policy

HEAD = "version: 1\npolicy: p\n"


def read_file(path: str) -> bytes:
    files = {"lists/ads.txt": b"ads.example\nnot a domain\n", "page.html": b"<h1>No</h1>"}
    if path not in files:
        raise FileNotFoundError(2, "No such file or directory")
    return files[path]


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as caught:
        parse_policy("p.yaml", text.encode(), read_file)
    return caught.value.problems


def only(text: str) -> str:
    found = [str(problem) for problem in problems(text)]
    assert len(found) == 1, found
    return found[0]


def rule(
    *, layer: str = "http_request", when: str = "{path: /x}", then: str = "{log: true}"
) -> str:
    return f"{HEAD}rules:\n- id: r\n  layer: {layer}\n  when: {when}\n  then: {then}\n"


# --- the file ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n", "p.yaml:1:1: a list, expected a mapping of keys"),
        ("hello\n", "p.yaml:1:1: 'hello', expected a mapping of keys"),
        ("policy: p\n", "p.yaml:1:1: the key 'version' is missing"),
        ("version: 2\npolicy: p\n", "p.yaml:1:10: the number 2 as version, expected 1"),
        ("version: '1'\npolicy: p\n", "p.yaml:1:10: '1' as version, expected 1"),
        ("version: 1\npolicy: a b\n", "p.yaml:2:9: 'a b' as policy, expected a name"),
        (HEAD + "ruels: []\n", "p.yaml:3:1: unknown key 'ruels' (did you mean 'rules'?)"),
        (HEAD + "rules: {}\n", "p.yaml:3:8: a mapping as rules, expected a list of rules"),
        (HEAD + "rules: [7]\n", "p.yaml:3:9: the number 7 as a rule, expected a mapping"),
        (HEAD + "defaults: {mode: shadwo}\n", "unknown mode 'shadwo' (did you mean 'shadow'?)"),
        (HEAD + "defaults: {weight: 70000}\n", "p.yaml:3:20: the number 70000 as weight"),
        (HEAD + "defaults: {on_relaod: keep}\n", "(did you mean 'on_reload'?)"),
        (HEAD + "sublayers: {a: x}\n", "p.yaml:3:16: 'x' as a, expected a whole number"),
        (HEAD + "anomalies: {http1.obsfold: refuse}\n", "(did you mean 'http1.obs_fold'?)"),
        (HEAD + "anomalies: {'smtp.*': refuse}\n", "p.yaml:3:13: no anomaly matches 'smtp.*'"),
        (HEAD + "anomalies: {http1.obs_fold: repiar}\n", "(did you mean 'repair'?)"),
        (
            HEAD + "anomalies: {http1.space_before_colon: repair}\n",
            "p.yaml:3:39: http1.space_before_colon cannot be repaired",
        ),
    ],
)
def test_mistakes_of_a_file(text: str, expected: str) -> None:
    assert expected in only(text)


# --- lists and macros ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (
            "{a: {type: domian, values: []}}",
            "3:19: unknown list type 'domian' (did you mean 'domain'",
        ),
        ("{a: {type: domain}}", "3:12: a list without entries"),
        ("{a: {type: cidr, values: [10.0.0.1/8]}}", "3:34: '10.0.0.1/8' has bits set beyond"),
        ("{a: {type: cidr, values: [10.0.0]}}", "3:34: '10.0.0' is not an address or CIDR block"),
        ("{a: {type: hash, values: [abc]}}", "3:34: 'abc' is not a digest"),
        ("{a: {type: domain, values: ['http://x.test/']}}", "(a host alone: x.test)"),
        ("{a: {type: domain, values: [bücher.example]}}", "xn--bcher-kva.example"),
        (
            "{a: {type: domain, values: [1]}}",
            'the number 1 as values, expected text (quote it: "1")',
        ),
        ("{a: {type: domain, file: ../x}}", "3:33: path '../x' leaves the policy directory"),
        ("{a: {type: domain, file: /etc/hosts}}", "path '/etc/hosts' leaves the policy directory"),
        ("{a: {type: domain, file: lists/no.txt}}", "3:33: cannot read lists/no.txt: No such file"),
        ("{a: {type: domain, file: lists/ads.txt}}", "lists/ads.txt:2:1: 'not a domain' is not"),
        (
            "{a: {type: domain, flie: x, values: []}}",
            "unknown key 'flie' in a (did you mean 'file'?)",
        ),
    ],
)
def test_mistakes_of_lists(lists: str, expected: str) -> None:
    assert expected in only(f"{HEAD}lists: {lists}\n")


def test_a_macro_in_a_circle_is_named_with_its_way() -> None:
    text = HEAD + "macros: {a: {macro: b}, b: {any: [{macro: c}]}, c: {not: {macro: a}}}\n"
    assert "macro a uses itself: a > b > c > a" in only(text)


def test_a_macro_is_checked_where_it_is_used() -> None:
    text = HEAD + (
        "macros: {m: {any: [{path: /x}, {dst.port: 1}]}}\n"
        "rules: [{id: r, layer: auth_connect, when: {macro: m}, then: {log: true}}]\n"
    )
    found = only(text)
    assert found.startswith("p.yaml:4:52: macro m tests path, which is not known at auth_connect")


def test_macros_that_double_each_other_are_refused_quickly() -> None:
    lines = ["  m0: {any: [{path: /x}, {path: /y}]}"]
    lines += [f"  m{i}: {{any: [{{macro: m{i - 1}}}, {{macro: m{i - 1}}}]}}" for i in range(1, 60)]
    found = problems(HEAD + "macros:\n" + "\n".join(lines) + "\n")
    assert any("at most 20000" in str(problem) for problem in found)


# --- conditions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{pth: /x}", "6:10: unknown condition 'pth' (did you mean 'path'?)"),
        ("{user_agent: x}", "(did you mean 'header.User-Agent'?)"),
        ("{domain: x.test}", "(did you mean 'host'?)"),
        ("{frobnicate: x}", "6:10: unknown condition 'frobnicate' (policies/README.md"),
        (
            "{status: 200}",
            "6:10: status is not known at http_request (it is at http_response or"
            " http_response_body)",
        ),
        ("{sni: a.test}", "sni is not known at http_request (it is at stream"),
        ("{header: x}", "6:10: header needs a name (write header.NAME)"),
        ("{'header.User Agent': x}", "did you mean 'User-Agent'?"),
        ("[{path: /x}]", "6:9: a list as a condition, expected a mapping (write all: [...]"),
        ("yes", "6:9: 'yes' as a condition, expected a mapping"),
        ("{}", "6:9: an empty condition"),
        ("{all: {path: /x}}", "6:15: `all` needs a list of conditions"),
        ("{any: []}", "6:15: `any` needs a list of conditions"),
        ("{not: [path]}", "6:15: a list as a condition"),
        ("{macro: nix}", "6:17: there is no macro named 'nix' (there is none)"),
        ("{path: []}", "6:16: an empty list for path"),
        ("{path: ''}", "6:16: an empty text"),
        ("{path: {}}", "6:16: path is compared with nothing"),
        ("{path: {regx: x}}", "6:17: path has no operator 'regx' (did you mean 'regex'?)"),
        ("{path: {gt: 3}}", "6:17: path has no operator 'gt' (it has is, in, regex or exists)"),
        ("{path: {exists: 1}}", "6:25: the number 1 behind exists, expected true or false"),
        ("{path: {regex: 'a(b'}}", "bad regular expression: missing ) in 'a(b'"),
        ("{path: {regex: 'a[z-b]c'}}", "invalid character class range at character 3: 'z-b'"),
        ("{path: {regex: '(?=x)y'}}", "at character 1: '(?=' (RE2 has no look-around"),
        (r"{path: {regex: '(a)\1'}}", "RE2 has no back-references"),
        ("{path: {in: a}}", "6:21: there is no list named 'a' (there is none)"),
        ("{path: {in: [a]}}", "6:21: `in` needs the name of a list (values go directly behind"),
        ("{host: 'a.test:80'}", "(a host has no port: write host: a.test and dst.port: 80)"),
        ("{host: 'a b'}", "6:16: 'a b' is not a host name"),
        ("{host: [a.test, {b: c}]}", "6:25: one value of host must be a text or a number"),
        ("{dst.ip: 10.0.0.300}", "6:18: '10.0.0.300' is not an address or CIDR block"),
        ("{dst.port: 65536}", "6:20: 65536 as dst.port, expected 0 to 65535"),
        ("{dst.port: true}", "6:20: true as dst.port, expected a whole number"),
        ("{dst.port: 9-8}", "6:20: range 9-8 is empty (write 8-9)"),
        ("{dst.port: {gt: x}}", "6:25: 'x' as dst.port, expected a whole number"),
        ("{content_length: 1e3}", "the number 1000.0 as content_length, expected a whole number"),
        ("{time: 25:00-26:00}", "6:16: '25:00-26:00' is not a span of time"),
        ("{weekday: tues}", "6:19: 'tues' is not one of its values (did you mean 'tue'?)"),
        ("{direction: inbond}", "(did you mean 'inbound'?)"),
        ("{method: null}", "6:10: method has no value"),
        ("{path: [null]}", "6:17: no value"),
    ],
)
def test_mistakes_of_conditions(when: str, expected: str) -> None:
    assert expected in only(rule(when=when))


def test_status_classes_are_written_as_ranges() -> None:
    found = only(rule(layer="http_response", when="{status: 5xx}"))
    assert "write 500-599" in found


def test_a_list_must_be_of_the_fields_kind() -> None:
    text = HEAD + (
        "lists: {ads: {type: domain, values: [a.test]}}\nrules:\n- id: r\n  layer: auth_connect\n"
        "  when: {dst.ip: {in: ads}, dst.host: {in: asd}}\n  then: {block: true}\n"
    )
    found = [str(problem) for problem in problems(text)]
    assert found == [
        "p.yaml:7:23: list 'ads' is a domain list (dst.ip needs a cidr list)",
        "p.yaml:7:44: there is no list named 'asd' (did you mean 'ads'?)",
    ]


def test_a_list_named_as_a_value_is_recognised() -> None:
    text = HEAD + (
        "lists: {finance: {type: cidr, values: [10.0.0.0/8]}}\n"
        "rules: [{id: r, layer: auth_connect, when: {dst.ip: finance}, then: {log: true}}]\n"
    )
    assert "(for the list write {in: finance})" not in only(text)  # the address hint comes first
    assert "'finance' is not an address" in only(text)


# --- actions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "then", "expected"),
    [
        (
            "http_request",
            "{blok: true}",
            "7:10: unknown key 'blok' in then (did you mean 'block'?)",
        ),
        ("http_request", "{}", "7:9: a rule that does nothing"),
        ("http_request", "block", "7:9: 'block' as then, expected a mapping"),
        ("http_request", "{block: false}", "7:17: block: false (leave the action out"),
        (
            "http_request",
            "{block: {status: 99}}",
            "7:26: the number 99 as status, expected at least 200",
        ),
        (
            "http_request",
            "{block: {how: drp}}",
            "unknown way to block 'drp' (did you mean 'drop'?)",
        ),
        (
            "http_request",
            "{block: {hard: true}}",
            "7:18: block is neither hard nor soft at http_request",
        ),
        ("http_request", "{block: {how: reset, status: 403}}", "7:30: status has no effect at"),
        ("http_request", "{block: {page: no.html}}", "7:24: cannot read no.html: No such file"),
        ("http_request", "{block: {page: a/../../b}}", "leaves the policy directory"),
        (
            "http_request",
            "{block: true, permit: true}",
            "7:23: permit is never reached: block ends",
        ),
        ("connect_redirect", "{redirect_to: db.example}", "'db.example' is not ADDRESS:PORT"),
        ("connect_redirect", "{redirect_to: 'db.example:80'}", "an address, not a name"),
        ("connect_redirect", "{redirect_to: '10.0.0.1:0'}", "is not where a connection can go"),
        ("connect_redirect", "{redirect_to: '10.0.0.1:70000'}", "is not ADDRESS:PORT"),
        ("connect_redirect", "{redirect_to: '2001:db8::1:80:x'}", "is not ADDRESS:PORT"),
        ("connect_redirect", "{redirect_to: 0.0.0.0}", "is not the address of one machine"),
        ("connect_redirect", "{redirect_to: '224.0.0.1:80'}", "is not the address of one machine"),
        ("auth_connect", "{redirect_to: 10.0.0.1}", "(it is at connect_redirect)"),
        ("connect_redirect", "{permit: true, redirect_to: 10.0.0.1}", "permit ends the rule"),
        ("http_request", "{redirect: {to: /x, status: 300}}", "7:37: the number 300 as status"),
        ("http_request", "{redirect: 'ftp://x.test/'}", "'ftp://x.test/' is not a redirect target"),
        ("http_request", "{redirect: //evil.test}", "is not a redirect target"),
        ("http_request", "{redirect: 'https://a.test/?u=${ulr}'}", "(did you mean 'url'?)"),
        ("http_request", "{headers: {}}", "7:19: headers changes nothing"),
        (
            "http_request",
            "{headers: {remove: Connection}}",
            "Connection cannot be changed by policy",
        ),
        (
            "http_request",
            "{headers: {remove: [X, Host]}}",
            "7:32: Host can be set or replaced only",
        ),
        ("http_request", "{headers: {remove: 'Content-*'}}", "Content-* covers content-length too"),
        ("http_request", "{headers: {remove: 'Proxy-A*'}}", "Proxy-A* covers proxy-* too"),
        ("http_request", "{headers: {remove: '*'}}", "'*' would remove every header"),
        (
            "http_request",
            "{headers: {set: {Content-Length: '3'}}}",
            "7:26: Content-Length cannot be",
        ),
        (
            "http_request",
            "{headers: {add: {Host: x.test}}}",
            "7:26: Host can be set or replaced only",
        ),
        ("http_request", "{headers: {rename: {A: TE}}}", "7:32: TE cannot be changed by policy"),
        ("http_request", "{headers: {set: {User Agent: x}}}", "did you mean 'User-Agent'?"),
        ("http_request", '{headers: {set: {A: "b\\r\\nC: d"}}}', "a header value with '\\r'"),
        ("http_request", '{headers: {set: {A: "b\\0"}}}', "a header value with '\\x00'"),
        (
            "http_request",
            "{headers: {set: {A: 7}}}",
            'the number 7 as A, expected text (quote it: "7")',
        ),
        (
            "http_request",
            "{headers: {replace: {name: A, regex: '(', by: x}}}",
            "bad regular expression",
        ),
        (
            "http_request",
            "{headers: {replace: {name: A, regex: x, by: '\\1'}}}",
            "the pattern has 0 groups",
        ),
        (
            "http_request",
            "{headers: {replace: {name: A, regex: x}}}",
            "the key 'by' is missing in replace",
        ),
        ("http_request", "{rewrite_url: {path: x}}", "'x' is not a path (begins with /"),
        ("http_request", "{rewrite_url: {regex: x}}", "7:23: regex and by go together"),
        ("http_request", "{rewrite_url: {}}", "rewrite_url changes nothing"),
        (
            "http_request",
            "{inject_banner: x}",
            "7:10: inject_banner is not possible at http_request",
        ),
        ("http_response", "{inject_banner: {html: x, at: head}}", "(did you mean 'head_end'?)"),
        (
            "http_response",
            "{rewrite_url: {path: /}}",
            "rewrite_url is not possible at http_response",
        ),
        ("auth_connect", "{redirect: /x}", "(it is at http_request or http_response)"),
        ("auth_connect", "{block: {status: 403}}", "7:18: status has no effect at auth_connect"),
        ("auth_connect", "{block: {how: page}}", "7:23: a page is not possible at auth_connect"),
        ("endpoint_closure", "{block: true}", "block is not possible at endpoint_closure"),
        ("http_request", "{tag: a b}", "7:15: 'a b' as tag, expected a name"),
        ("http_request", "{log: 3}", "7:15: the number 3 as log, expected text"),
    ],
)
def test_mistakes_of_actions(layer: str, then: str, expected: str) -> None:
    when = "{path: /x}" if layer.startswith("http") else "{dst.port: 1}"
    assert expected in only(rule(layer=layer, when=when, then=then))


# --- together ------------------------------------------------------------------------------


def test_the_second_rule_of_an_id_is_named_with_the_place_of_the_first() -> None:
    text = HEAD + (
        "rules:\n- {id: a, layer: stream, then: {log: true}}\n"
        "- {id: a, layer: stream, then: {log: true}}\n"
    )
    assert only(text) == "p.yaml:5:8: rule id 'a' is taken (by p.yaml:4:8)"


def test_all_mistakes_are_told_at_once_in_the_order_of_their_places() -> None:
    text = """\
version: 1
policy: p
desciption: x
lists: {a: {type: domian, values: []}}
rules:
- id: one
  layer: http_requst
  then: {block: {status: 999}}
- id: two
  layer: auth_connect
  when: {dst.port: x, pth: y}
  then: {headers: {remove: Host}}
  weigth: 3
- 5
"""
    found = [str(problem) for problem in problems(text)]
    places = " ".join(":".join(line.split(":")[1:3]) for line in found)
    assert places == "3:1 4:19 7:10 8:26 11:20 11:23 12:10 12:28 13:3 14:3"


def test_nothing_but_the_mistake_is_complained_of() -> None:
    """A broken list or macro does not make its users wrong too."""
    text = HEAD + (
        "lists: {a: {type: domian, values: []}}\n"
        "macros: {m: {pth: /x}}\n"
        "rules: [{id: r, layer: http_request, when: {host: {in: a}, macro: m},"
        " then: {log: true}}]\n"
    )
    found = [str(problem) for problem in problems(text)]
    assert len(found) == 2
    assert "domian" in found[0]
    assert "pth" in found[1]
