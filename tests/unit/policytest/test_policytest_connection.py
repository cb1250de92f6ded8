"""What a test can give of a connection, and what it can expect of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policytest.policytest_case import one

POLICY = """\
version: 1
policy: p
rules:
  - id: moved
    layer: connect_redirect
    when: {dst.port: 5432, principal.name: psql}
    then: {redirect_to: "127.0.0.1:6432"}
  - {id: own, layer: auth_connect, when: {loopback: true}, then: {tag: own}}
  - {id: far, layer: auth_connect, when: {loopback: false}, then: {tag: far}}
  - {id: caught, layer: auth_connect, when: {redirected: true}, then: {tag: caught}}
  - {id: snap, layer: auth_connect, when: {principal.package: "snap:*"}, then: {tag: snap}}
  - {id: bare, layer: auth_connect, when: {principal.container: {exists: false}}, then: {tag: bare}}
  - {id: guess, layer: auth_connect, when: {principal.confidence: likely}, then: {tag: guess}}
"""


@pytest.mark.parametrize(
    ("connection", "expect"),
    [
        (
            '{dst: "10.0.0.7:5432", principal: {exe: /usr/bin/psql}}',
            '{redirected_to: "127.0.0.1:6432", rules: [moved, own], tags: [own]}',
        ),
        (
            '{dst: "10.0.0.7:5432", principal: {comm: psql, confidence: likely}}',
            '{redirected_to: "127.0.0.1:6432", tags: [own, guess]}',
        ),
        (
            '{dst: "10.0.0.7:5432", principal: {exe: /usr/bin/nc}}',
            "{redirected_to: nothing, tags: [far]}",
        ),
        ('{dst: "192.0.2.9:80", loopback: true}', "{tags: [own]}"),
        ('{dst: "[::1]:80", provider: nft}', "{tags: [own, caught]}"),
        ("{provider: explicit}", "{tags: [far]}"),
        ("{principal: {package: snap:firefox}}", "{tags: [far, snap]}"),
        ("{principal: {cgroup: /user.slice}}", "{tags: [far, bare]}"),
        ("{principal: {container: ''}}", "{tags: [far, bare]}"),
    ],
)
def test_a_connection(tmp_path: Path, connection: str, expect: str) -> None:
    result = one(tmp_path, f"{{connection: {connection}}}", expect, policy=POLICY)
    assert result.ok, result.diff


def test_where_it_went_is_shown(tmp_path: Path) -> None:
    result = one(
        tmp_path,
        '{connection: {dst: "10.0.0.7:5432", principal: {exe: /usr/bin/psql}}}',
        "{redirected_to: nothing}",
        policy=POLICY,
    )
    assert "-redirected_to: nothing" in result.diff
    assert "+redirected_to: 127.0.0.1:6432" in result.diff
