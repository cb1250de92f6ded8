"""Every expectation holds where it is met, and fails with both sides shown where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policytest.policytest_case import changed, one

ADMIN = '{request: {url: "http://a.test/admin?x=1"}}'
PAGE = '{response: {headers: {Content-Type: text/html, X-Two: [a, b]}, body: "one\\ntwo\\n"}}'


def url(path: str, more: str = "") -> str:
    return f'{{request: {{url: "http://a.test{path}"{more}}}}}'


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("{}", "{verdict: permit, rules: [], anomalies: [], tags: [], edits: []}"),
        (ADMIN, "{verdict: block, rule: no-admin, status: 451, server_sees_nothing: true}"),
        (url("/rst"), "{verdict: block, rule: rst, server_sees_nothing: true}"),
        (url("/rst"), "{verdict: reset}"),
        (url("/quiet"), "{verdict: drop}"),
        (url("/old"), "{verdict: redirect, status: 302, response: {headers: {Location: "
                      "'http://new.test/'}}}"),
        (url("/fine"), "{verdict: permit, rule: fine, rules: [fine], tags: [good]}"),
        (url("/w"), "{verdict: permit, rules: [], shadow_rules: [would]}"),
        (url("/", ", headers: {X-Mark: a}"), "{verdict: permit, rule: mark, edits: [headers]}"),
        (url("/", ", headers: {X-Mark: a}"),
         "{request: {headers: {X-Marked: {regex: '^y'}, X-Mark: {exists: false}}}}"),
        (PAGE, "{response: {headers: {x-two: [a, b], Content-Type: {exists: true}}}}"),
        (PAGE, "{response: {body_contains: one, body_not_contains: [three, four]}}"),
        (PAGE, '{response: {status: 200, body: "one\\ntwo\\n"}}'),
        ("{response: {headers: {Content-Type: image/png}, body: x}}",
         "{verdict: block, rule: no-img, status: 403, response: {body_not_contains: x-y}}"),
        ('{connection: {dst: "192.0.2.1:23"}}', "{verdict: reset, rule: no-telnet}"),
        ('{connection: {principal: {uid: 0}, client: "10.0.0.5:7"}}',
         "{verdict: drop, rule: no-root}"),
        ("{tls: {sni: ads.test}}", "{verdict: reset, rule: no-ads, protocol: tls}"),
        ("{tls: {sni: a.test}}", "{verdict: permit, protocol: tls}"),
    ],
)  # fmt: skip
def test_it_holds(tmp_path: Path, given: str, expect: str) -> None:
    result = one(tmp_path, given, expect)
    assert result.ok, result


@pytest.mark.parametrize(
    ("given", "expect", "lines"),
    [
        (ADMIN, "{verdict: permit}", ["-verdict: permit", "+verdict: block"]),
        (ADMIN, "{verdict: reset}", ["-verdict: reset", "+verdict: block"]),
        (url("/rst"), "{verdict: drop}", ["-verdict: drop", "+verdict: block, by reset"]),
        (ADMIN, "{rule: moved}", ["-rule: moved", "+rule: no-admin"]),
        ("{}", "{rule: moved}", ["-rule: moved", "+rules: []"]),
        (url("/fine"), "{rules: [fine, mark]}", ["-rules: [fine, mark]", "+rules: [fine]"]),
        (ADMIN, "{not_rules: [no-admin]}", ["-not_rules: [no-admin]", "+acted: [no-admin]"]),
        (url("/w"), "{shadow_rules: []}", ["-shadow_rules: []", "+shadow_rules: [would]"]),
        (ADMIN, "{status: 403}", ["-status: 403", "+status: 451"]),
        (url("/rst"), "{status: 403}", ["-status: 403", "+status: nothing"]),
        (url("/fine"), "{tags: []}", ["-tags: []", "+tags: [good]"]),
        ("{}", "{anomalies: [http1.te_and_cl]}",
         ["-anomalies: [http1.te_and_cl]", "+anomalies: []"]),
        ("{}", "{edits: [banner]}", ["-edits: [banner]", "+edits: []"]),
        ("{}", "{protocol: tls}", ["-protocol: tls", "+protocol: opaque"]),
        (ADMIN, "{request: {path: /}}",
         ["-request: at the server", "+request: none reached the server"]),
        (url("/rst"), "{response: {status: 403}}",
         ["-response: at the client", "+response: none reached the client"]),
        (url("/a?b"), "{request: {path: /a, method: PUT}}",
         ["-request.method: PUT", "-request.path: /a", "+request.method: GET",
          "+request.path: /a?b"]),
        (PAGE, "{response: {headers: {X-Two: b}}}",
         ["-response.headers.X-Two: b", "+response.headers.X-Two: a, b (2 fields)"]),
        (PAGE, "{response: {headers: {X-No: {exists: true}}}}",
         ["-response.headers.X-No: there", "+response.headers.X-No: absent"]),
        (PAGE, "{response: {headers: {X-Two: {exists: false}}}}",
         ["-response.headers.X-Two: absent", "+response.headers.X-Two: a, b"]),
        (PAGE, "{response: {headers: {X-Two: {regex: '^b'}}}}",
         ["-response.headers.X-Two: /^b/", "+response.headers.X-Two: a, b"]),
        (PAGE, '{response: {body: "one\\n2\\n"}}',
         ["-response.body: 6 bytes", "+response.body: 8 bytes", "-  2", "+  two"]),
        (PAGE, "{response: {body_contains: three}}",
         ["-response.body contains three", "+response.body: 8 bytes", "+  one", "+  two", "+  "]),
        (PAGE, "{response: {body_not_contains: two}}",
         ["-response.body does not contain two", "+response.body: 8 bytes", "+  one", "+  two",
          "+  "]),
        ('{stream: [client: "hi"]}', "{to_server: ho}",
         ["-  ho", "+  hi"]),
        ('{stream: [client: "hi"]}', "{server_sees_nothing: true}",
         ["-server_sees_nothing: true", "+server sees: hi"]),
    ],
)  # fmt: skip
def test_a_failure_shows_both_sides(
    tmp_path: Path, given: str, expect: str, lines: list[str]
) -> None:
    result = one(tmp_path, given, expect)
    assert not result.ok
    shown = changed(result)
    assert sorted(shown) == sorted(lines)


def test_a_failure_names_what_acted_and_where_the_test_stands(tmp_path: Path) -> None:
    result = one(tmp_path, ADMIN, "{verdict: permit}")
    assert (Path(result.mark.file).name, result.mark.line) == ("p_test.yaml", 2)
    assert "rules that acted: no-admin" in result.notes


def test_bytes_that_look_the_same_are_told_apart(tmp_path: Path) -> None:
    given = '{response: {body: {base64: "YQD/XA=="}}}'  # a NUL 0xff backslash
    shown = changed(one(tmp_path, given, "{response: {body: 'a\\x00\\xff\\'}}"))
    assert "-  a\\\\x00\\\\xff\\\\" in shown
    assert "+  a\\x00\\xff\\\\" in shown


def test_a_long_body_is_shown_where_it_differs(tmp_path: Path) -> None:
    (tmp_path / "long.bin").write_bytes(b"x" * 9000 + b"HERE" + b"y" * 9000)
    (tmp_path / "other.bin").write_bytes(b"x" * 9000 + b"THERE" + b"y" * 9000)
    given = "{response: {body: {file: long.bin}}}"
    shown = "\n".join(changed(one(tmp_path, given, "{response: {body: {file: other.bin}}}")))
    assert "-response.body: 18005 bytes, from byte 8800" in shown
    assert "THERE" in shown
    assert "xHERE" in shown
    assert len(shown) < 10_000


def test_a_response_cut_short_is_not_a_body_that_matches(tmp_path: Path) -> None:
    given = '{response: {headers: {Content-Length: "9"}, body: short, framing: close}}'
    result = one(tmp_path, given, "{response: {body: short}}")
    assert "-response: complete" in changed(result)


def test_a_principal_that_nobody_gave_is_pointed_out(tmp_path: Path) -> None:
    policy = (
        "version: 1\npolicy: p\nrules: [{id: no-x, layer: auth_connect,"
        " when: {principal.exe: /bin/x}, then: {block: true}}]\n"
    )
    result = one(tmp_path, "{request: {}}", "{verdict: permit}", policy=policy)
    assert any(note.startswith("principal: not given") for note in result.notes)
    given = "{connection: {principal: {exe: /bin/y}}, request: {}}"
    assert one(tmp_path, given, "{verdict: permit}", policy=policy).ok
