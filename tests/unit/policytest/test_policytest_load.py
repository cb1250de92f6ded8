"""Tests that cannot be right are refused with their places, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proxy.errors import PolicyError
from proxy.policy import jsonschema as exported
from proxy.policy.document import read_document
from proxy.policy.positions import Complaints
from proxy.policy.store import check_directory
from proxy.policytest.load import load_suites
from tests.unit.policytest.policytest_case import POLICY

GOOD = "tests:\n  - {name: a, expect: {verdict: permit}}\n"


def problems(directory: Path, tests: str, policy: str = POLICY) -> list[str]:
    (directory / "p.yaml").write_text(policy, encoding="utf-8")
    (directory / "p_test.yaml").write_text(tests, encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        load_suites(directory)
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


def in_test(text: str) -> str:
    return f"tests:\n- name: a\n  {text}\n"


@pytest.mark.parametrize(
    ("tests", "problem"),
    [
        (
            in_test("expct: {verdict: permit}\n  expect: {verdict: block}"),
            "p_test.yaml:3:3: unknown key 'expct' (did you mean 'expect'?)",
        ),
        (in_test("given: {}"), "p_test.yaml:2:3: the key 'expect' is missing"),
        (in_test("expect: {}"), "p_test.yaml:3:11: nothing is expected"),
        (
            in_test("expect: {verdict: pemit}"),
            "p_test.yaml:3:21: unknown verdict 'pemit' (did you mean 'permit'?)",
        ),
        (
            in_test("expect: {anomalies: [http1.te_and_c]}"),
            "p_test.yaml:3:24: unknown anomaly 'http1.te_and_c' (did you mean 'http1.te_and_cl'?)",
        ),
        (
            in_test("given: {request: {header: {A: b}}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:21: unknown key 'header' in request (did you mean 'headers'?)",
        ),
        (
            in_test("given: {request: {headers: {A: 1}}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:34: the number 1",
        ),
        (
            in_test("given: {request: {url: a.test/x}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:26: 'a.test/x' is not a URL of plain HTTP",
        ),
        (
            in_test("given: {request: {url: 'https://a.test/x'}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:26: 'https://a.test/x' is not a URL of plain HTTP",
        ),
        (
            in_test("given: {request: {}, tls: {}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:10: one of a request with its response, tls, and stream",
        ),
        (
            in_test("given: {stream: [{client: a, server: b}]}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:20: a turn is exactly one of client, server and wait",
        ),
        (
            in_test("given: {response: {body: {base64: '?'}}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:37: this is not base64",
        ),
        (
            in_test(
                "given: {tls: {}, request: {body: {text: xx, repeat: 134217729}}}\n  expect: {}"
            ),
            "p_test.yaml:3:36: that is more than 256 MiB",
        ),
        (
            in_test("given: {response: {body: {file: no.html}}}\n  expect: {verdict: permit}"),
            "p_test.yaml:2:3: a file of this test cannot be read",
        ),
        (
            in_test("given: {response: {body: {file: ../up}}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:35: path '../up' leaves the policy directory",
        ),
        (
            in_test("given: {at: noon}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:15: 'noon' is not a date and time",
        ),
        (
            in_test("given: {connection: {dst: here}}\n  expect: {verdict: permit}"),
            "p_test.yaml:3:29: 'here' is not ADDRESS:PORT",
        ),
        (
            in_test("expect: {response: {headers: {X-A: {regex: '('}}}}"),
            "p_test.yaml:3:46:",
        ),
        (GOOD + GOOD.split("\n", 1)[1], "p_test.yaml:3:5: a second test 'a'"),
        ("tests: yes\n", "p_test.yaml:1:8: 'yes' as tests, expected a list"),
        ("test: []\n", "p_test.yaml:1:1: unknown key 'test' (did you mean 'tests'?)"),
        ("- a\n", "p_test.yaml:1:1: a list"),
        (
            f"policies: [q.yaml]\n{GOOD}",
            "p_test.yaml:1:12: there is no policy file 'q.yaml' in the directory",
        ),
        ("tests: [\n", "p_test.yaml:2:1: not YAML"),
    ],
)
def test_a_mistake_has_its_place(tmp_path: Path, tests: str, problem: str) -> None:
    found = problems(tmp_path, tests)
    assert any(one.startswith(problem) for one in found), found


def test_mistakes_of_several_tests_come_together(tmp_path: Path) -> None:
    found = problems(tmp_path, in_test("expect: {}") + "- name: b\n  expect: {statu: 1}\n")
    assert [one.split(": ")[0] for one in found] == ["p_test.yaml:3:11", "p_test.yaml:5:12"]


def test_mistakes_of_the_policies_show_too(tmp_path: Path) -> None:
    found = problems(tmp_path, GOOD, POLICY.replace("auth_connect", "auth_conect", 1))
    assert "p.yaml" in found[0]
    assert "did you mean 'auth_connect'?" in found[0]


def test_tests_inside_a_policy_are_read_and_placed(tmp_path: Path) -> None:
    text = f"{POLICY}{GOOD}"
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    (suite,) = load_suites(tmp_path)
    (case,) = suite.tests
    assert case.mark.line == text.count("\n")


def test_without_a_word_all_policies_of_the_directory_are_in_force(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\npolicy: a\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("version: 1\npolicy: b\n", encoding="utf-8")
    (tmp_path / "b_test.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "c_test.yml").write_text(f"policies: [a.yaml]\n{GOOD}", encoding="utf-8")
    found = {Path(suite.file).name: suite.generation.policies for suite in load_suites(tmp_path)}
    assert found == {"b_test.yaml": ("a", "b"), "c_test.yml": ("a",)}


def test_one_file_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"version: 1\npolicy: a\n{GOOD}", encoding="utf-8")
    (tmp_path / "b.yaml").write_text(f"version: 1\npolicy: b\n{GOOD}", encoding="utf-8")
    (tmp_path / "b_test.yaml").write_text(GOOD, encoding="utf-8")

    def found(name: str) -> list[tuple[str, tuple[str, ...]]]:
        suites = load_suites(tmp_path / name)
        return [(Path(suite.file).name, suite.generation.policies) for suite in suites]

    assert found("b.yaml") == [("b.yaml", ("b",)), ("b_test.yaml", ("b",))]
    assert found("b_test.yaml") == [("b_test.yaml", ("a", "b"))]


@pytest.mark.parametrize("name", ["no", "no.yaml", "no_test.yaml"])
def test_what_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.yaml").write_text(POLICY, encoding="utf-8")
    with pytest.raises(PolicyError, match="there is no such file or directory"):
        load_suites(tmp_path / name)


SHIPPED = Path(__file__).parents[3] / "policies"


def data(path: Path) -> Any:
    document = read_document(path.read_bytes(), Complaints(path.name))
    assert document is not None
    return document.data


def test_the_committed_schema_of_tests_is_current() -> None:
    text = (SHIPPED / "tests.schema.json").read_text(encoding="utf-8")
    assert text == json.dumps(exported.tests_schema(), indent=2, sort_keys=True) + "\n", (
        "write it anew: sluicegate schema --tests > policies/tests.schema.json"
    )


def test_the_schema_takes_what_ships_and_refuses_what_it_can() -> None:
    validator = jsonschema.Draft202012Validator(exported.tests_schema())
    for path in sorted(SHIPPED.rglob("*_test.yaml")):
        assert not list(validator.iter_errors(data(path))), path
        first = path.read_text(encoding="utf-8").splitlines()[0]
        where = first.partition("$schema=")[2]
        assert (path.parent / where).resolve() == SHIPPED / "tests.schema.json"
    for wrong in ({"tests": [{"name": "a"}]}, {"tests": [], "test": []}, {"policies": []}):
        assert list(validator.iter_errors(wrong)), wrong


def test_the_service_takes_a_policy_whose_tests_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"{POLICY}tests: [{{nmae: a}}]\n", encoding="utf-8")
    (tmp_path / "p_test.yaml").write_text("nonsense: [", encoding="utf-8")
    assert check_directory(tmp_path).problems == ()
