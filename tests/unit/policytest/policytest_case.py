"""Shared by the tests of policy tests: a policy with one of each, and how to run one test on it."""

from __future__ import annotations

from pathlib import Path

from proxy.policytest.load import load_suites
from proxy.policytest.run import Options, Report, Result, run_suites

POLICY = """\
version: 1
policy: p
rules:
  - {id: no-admin, layer: http_request, when: {path: /admin*}, then: {block: {status: 451}}}
  - {id: rst, layer: http_request, when: {path: /rst}, then: {block: {how: reset}}}
  - {id: quiet, layer: http_request, when: {path: /quiet}, then: {block: {how: drop}}}
  - {id: moved, layer: http_request, when: {path: /old}, then: {redirect: "http://new.test/"}}
  - {id: fine, layer: http_request, when: {path: /fine}, then: {permit: true, tag: good}}
  - {id: late, layer: http_request, when: {time: "22:00-06:00"}, then: {tag: night}}
  - {id: would, layer: http_request, mode: shadow, when: {path: /w}, then: {block: true}}
  - id: mark
    layer: http_request
    when: {header.X-Mark: {exists: true}}
    then: {headers: {set: {X-Marked: "yes"}, remove: X-Mark}}
  - {id: no-img, layer: http_response, when: {content_type: image/*}, then: {block: {status: 403}}}
  - {id: by-bytes, layer: http_response, when: {content_type.sniffed: image/png}, then: {log: png}}
  - {id: no-telnet, layer: auth_connect, when: {dst.port: 23}, then: {block: true}}
  - id: no-root
    layer: auth_connect
    when: {principal.uid: 0, client.port: 7}
    then: {block: {how: drop}}
  - {id: named, layer: auth_connect, when: {dst.host: db.test}, then: {tag: db}}
  - {id: seen-before, layer: auth_connect, when: {tag: trusted}, then: {tag: again}}
  - {id: no-ads, layer: tls_client_hello, when: {sni: ads.test}, then: {block: true}}
"""


def run(
    directory: Path, tests: str, *, policy: str = POLICY, cuts: int = 2, pattern: str = ""
) -> Report:
    """The report of a directory with this policy and these tests."""
    (directory / "p.yaml").write_text(policy, encoding="utf-8")
    (directory / "p_test.yaml").write_text(tests, encoding="utf-8")
    return run_suites(load_suites(directory), Options(cuts, 0, pattern), lambda result: None)


def one(directory: Path, given: str, expect: str, *, policy: str = POLICY) -> Result:
    """The result of one test, both parts in YAML's flow style."""
    text = f"tests:\n- name: it\n  given: {given}\n  expect: {expect}\n"
    (result,) = run(directory, text, policy=policy).results
    return result


def changed(result: Result) -> list[str]:
    """The lines of a failure's diff that differ."""
    assert result.diff[:2] == ("--- expected", "+++ seen") or not result.diff
    return [line for line in result.diff[2:] if line[0] in "+-"]
