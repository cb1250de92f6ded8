"""The verb: what it prints, its exit codes, coverage, choice of tests, and cuts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.callouts.protocol import ProtocolStage
from proxy.cli import main
from proxy.contract import Block, Permit, StreamData, Verdict
from proxy.model import Direction
from tests.unit.policytest.policytest_case import POLICY, changed, one, run

TESTS = """\
tests:
  - name: the administration is closed
    given: {request: {url: "http://a.test/admin"}}
    expect: {verdict: block, rule: no-admin}
  - name: pages are open
    given: {request: {url: "http://a.test/"}}
    expect: {verdict: permit, rules: []}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "p_test.yaml").write_text(TESTS, encoding="utf-8")
    return tmp_path


def test_tests_that_hold(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "ok      the administration is closed",
        "ok      pages are open",
        "2 tests, 2 ok, 0 failed",
        "rules covered: 1 of 15 (7%)",
    ]
    assert f"  never seen to act: moved ({directory}/p.yaml:7)" in lines
    assert not any("no-admin" in line for line in lines)


def test_a_failure_is_exit_code_1_and_shows_what_and_where(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = TESTS.replace("verdict: permit", "verdict: redirect, status: 302")
    (directory / "p_test.yaml").write_text(wrong, encoding="utf-8")
    assert main(["test", str(directory), "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["FAILED  pages are open", f"        {directory}/p_test.yaml:5:5"]
    assert "        -verdict: redirect" in lines
    assert "        +verdict: permit" in lines
    assert "        +status: 200" in lines
    assert "2 tests, 1 ok, 1 failed" in lines


def test_json_says_the_same(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(directory), "--json", "--seed", "7", "--cuts", "1"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["seed"], report["cuts"]) == (True, 7, 1)
    assert [test["name"] for test in report["tests"]] == [
        "the administration is closed",
        "pages are open",
    ]
    assert report["coverage"]["covered"] == 1
    missing = {rule["id"]: rule for rule in report["coverage"]["missing"]}
    assert missing["moved"]["mark"]["line"] == 7
    assert "no-admin" not in missing


def test_a_choice_by_name(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(directory), "-k", "PAGES"]) == 0
    assert "1 test, 1 ok, 0 failed" in capsys.readouterr().out


def test_no_test_is_not_a_success(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(directory), "-k", "nothing"]) == 1
    assert "there is no test whose name has 'nothing'" in capsys.readouterr().err
    (directory / "p_test.yaml").unlink()
    assert main(["test", str(directory)]) == 1
    assert "there is no test in" in capsys.readouterr().err


def test_coverage_can_be_demanded(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(directory), "--min-coverage", "6.5"]) == 0
    assert main(["test", str(directory), "--min-coverage", "50%"]) == 1
    assert "6.7% of the rules are covered, 50% are wanted" in capsys.readouterr().err


def test_mistakes_in_tests_are_exit_code_1(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "p_test.yaml").write_text(TESTS.replace("expect", "epect"), encoding="utf-8")
    assert main(["test", str(directory)]) == 1
    assert "did you mean 'expect'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--cuts", "-1"], ["--cuts", "x"], ["--min-coverage", "101"], []]
)
def test_usage_is_exit_code_2(directory: Path, arguments: list[str]) -> None:
    path = [str(directory)] if arguments else []
    with pytest.raises(SystemExit) as caught:
        main(["test", *path, *arguments])
    assert caught.value.code == 2


# --- coverage ------------------------------------------------------------------------------


def covered(tmp_path: Path, tests: str, policy: str) -> dict[str, tuple[bool, bool]]:
    report = run(tmp_path, tests, policy=policy)
    return {rule.id: (rule.acts, rule.idles) for rule in report.rules}


ORDERED = """\
version: 1
policy: p
rules:
  - {id: first, layer: http_request, when: {path: /a}, then: {permit: true}}
  - {id: second, layer: http_request, when: {path: /b}, then: {tag: b}}
  - {id: always, layer: http_response, then: {tag: c}}
  - {id: shade, layer: http_response, mode: shadow, when: {status: 404}, then: {block: true}}
"""


def ask(path: str) -> str:
    given = f'{{request: {{url: "http://a.test{path}"}}}}'
    return f"  - {{name: {path}, given: {given}, expect: {{verdict: permit}}}}\n"


def test_a_rule_behind_the_one_that_decided_was_not_asked(tmp_path: Path) -> None:
    assert covered(tmp_path, f"tests:\n{ask('/a')}", ORDERED) == {
        "first": (True, False),
        "second": (False, False),
        "always": (True, True),
        "shade": (False, True),
    }


def test_what_acts_in_one_test_and_not_in_another(tmp_path: Path) -> None:
    found = covered(tmp_path, f"tests:\n{ask('/a')}{ask('/b')}{ask('/c')}", ORDERED)
    assert (found["first"], found["second"]) == ((True, True), (True, True))


def test_a_shadow_rule_that_would_have_acted_is_covered(tmp_path: Path) -> None:
    tests = "tests:\n- {name: a, given: {response: {status: 404}}, expect: {verdict: permit}}\n"
    assert covered(tmp_path, tests, ORDERED)["shade"] == (True, False)


def test_each_sublayer_of_a_connection_is_asked_up_to_its_own_decision(tmp_path: Path) -> None:
    policy = """\
version: 1
policy: p
sublayers: {top: 200}
rules:
  - {id: t1, layer: auth_connect, sublayer: top, when: {dst.port: 80}, then: {permit: true}}
  - {id: t2, layer: auth_connect, sublayer: top, when: {dst.port: 81}, then: {block: true}}
  - {id: d1, layer: auth_connect, when: {dst.port: 82}, then: {block: true}}
"""
    found = covered(tmp_path, f"tests:\n{ask('/')}", policy)
    assert found == {"t1": (True, False), "t2": (False, False), "d1": (False, True)}


# --- cuts ----------------------------------------------------------------------------------


def test_an_outcome_that_depends_on_the_cut_is_told_as_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classify = ProtocolStage.classify

    def forgetful(self: ProtocolStage, data: StreamData) -> Verdict:
        if data.direction is Direction.INBOUND and len(data.data) == 1 and data.data == b"!":
            return Block(1)
        return classify(self, data)

    monkeypatch.setattr(ProtocolStage, "classify", forgetful)
    result = one(tmp_path, '{stream: [{server: "220 hi!"}]}', '{to_client: "220 hi!"}')
    assert result.unsteady == "byte by byte"
    assert not result.ok
    assert any("streams" in line for line in changed(result))
    assert main(["test", str(tmp_path)]) == 1
    assert "this is a bug of Sluicegate" in capsys.readouterr().out


def test_random_cuts_are_those_of_their_seed() -> None:
    from proxy.policytest.cuts import all_cuts, byte_by_byte

    data = bytes(range(256))

    def pieces(seed: int) -> list[list[bytes]]:
        return [list(cut(data)) for _, cut in all_cuts("name", len(data), 4, seed)]

    assert pieces(1) == pieces(1)
    assert pieces(1) != pieces(2)
    assert all(b"".join(cut) == data for cut in pieces(3))
    assert len({tuple(cut) for cut in pieces(1)}) == 5
    assert len(byte_by_byte(bytes(1_000_000))) <= 20_000


BODIES = """\
version: 1
policy: p
rules:
  - {id: up, layer: http_request_body, when: {body: SECRET}, then: {block: {how: reset}}}
  - {id: down, layer: http_response_body, when: {body: SECRET}, then: {block: {how: reset}}}
"""


@pytest.mark.parametrize(
    "given",
    [
        "{request: {method: PUT, body: {text: 'some text SECRET', repeat: 9}}}",
        "{request: {method: PUT, body: 'SECRET', encoding: gzip, framing: chunked}}",
        "{response: {body: {text: 'some text SECRET', repeat: 9}, framing: close}}",
    ],
)
def test_how_much_passed_before_a_reset_is_no_bug(tmp_path: Path, given: str) -> None:
    """The one is found with all of it in hand, the other when most of it has gone."""
    result = one(tmp_path, given, "{verdict: reset}", policy=BODIES)
    assert result.ok, result


def test_what_is_expected_is_expected_in_every_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is whole in order and leaks in another cut is shown as what it is: not as expected."""
    classify = ProtocolStage.classify

    def leaky(self: ProtocolStage, data: StreamData) -> Verdict:
        if data.direction is Direction.OUTBOUND and data.offset > 100 and len(data.data) == 1:
            return Permit(1)
        return classify(self, data)

    monkeypatch.setattr(ProtocolStage, "classify", leaky)
    given = f"{{request: {{method: PUT, body: {'x' * 100}SECRET}}}}"
    result = one(tmp_path, given, "{to_server: {not_contains: SECRET}}", policy=BODIES)
    assert result.unsteady == "byte by byte"
    assert any(line == "-to_server does not contain SECRET" for line in changed(result))


def test_a_callout_that_fails_is_never_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ProtocolStage, data: StreamData) -> Verdict:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(ProtocolStage, "classify", broken)
    result = one(tmp_path, "{request: {}}", "{verdict: refuse, server_sees_nothing: true}")
    assert not result.ok
    assert any("oops" in line for line in changed(result))
