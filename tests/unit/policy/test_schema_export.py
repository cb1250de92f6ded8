"""policy.schema.json: current, valid, takes what the loader takes, refuses what it can refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proxy.policy.document import read_document
from proxy.policy.fields import FIELDS
from proxy.policy.jsonschema import policy_schema
from proxy.policy.positions import Complaints
from proxy.policy.then import Then

POLICIES = Path(__file__).parents[3] / "policies"
SCHEMA = policy_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
HEAD = "version: 1\npolicy: p\n"


def data(text: bytes) -> Any:
    document = read_document(text, Complaints("p.yaml"))
    assert document is not None
    return document.data


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data(text.encode()))]


def test_the_committed_schema_is_current() -> None:
    text = (POLICIES / "policy.schema.json").read_text(encoding="utf-8")
    assert text == json.dumps(SCHEMA, indent=2, sort_keys=True) + "\n", (
        "write it anew: sluicegate schema > policies/policy.schema.json"
    )


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "path",
    sorted(set(POLICIES.rglob("*.yaml")) - set(POLICIES.rglob("*_test.yaml"))),
    ids=lambda path: str(path.relative_to(POLICIES)),
)
def test_shipped_policies_are_valid(path: Path) -> None:
    assert not list(VALIDATOR.iter_errors(data(path.read_bytes())))


def test_every_condition_can_be_completed_and_has_words() -> None:
    condition = SCHEMA["$defs"]["Condition"]
    plain = {name for name, spec in FIELDS.items() if not spec.takes_arg}
    assert set(condition["properties"]) == plain | {"all", "any", "not", "macro"}
    assert len(condition["patternProperties"]) == len(FIELDS) - len(plain)
    for body in (*condition["properties"].values(), *condition["patternProperties"].values()):
        assert body["description"]


def test_every_action_has_words() -> None:
    actions = SCHEMA["$defs"]["Then"]["properties"]
    assert set(actions) == set(Then.model_fields)


def rule(when: str, then: str = "{log: true}") -> str:
    return f"{HEAD}rules: [{{id: r, layer: http_request, when: {when}, then: {then}}}]\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        rule("{path: [/a, 404, true]}"),
        rule("{dst.port: [25, 8000-8080]}"),
        rule("{header.User-Agent: {regex: x, exists: true}}"),
        rule("{all: [{not: {macro: m}}, {any: [{weekday: mon}]}]}"),
        rule("{path: /}", "{permit: true}"),
        rule("{path: /}", "{block: {status: 204}}"),
        rule("{path: /}", "{redirect: /x}"),
        rule("{path: /}", "{headers: {remove: A, replace: {name: A, regex: x, by: y}}}"),
        rule("{path: /}", "{tag: a, log: words}"),
        rule("{path: /}", "{replace_body: {a: b}, inject_banner: {text: x, frames: true}}"),
        rule("{path: /}", "{replace_body: [{regex: x, by: y}, {literal: x, by: ''}]}"),
        rule("{path: /}", "{replace: {literal: x, by: y, direction: inbound}}"),
        rule("{path: /}", "{set_body: x, remove_body: true, respond: 503}"),
        rule("{path: /}", "{respond: {status: 503, headers: {A: b}, template_file: a.html}}"),
        rule("{path: /}", "{map_local: {prefix: /a/, dir: a, missing: pass}}"),
        rule("{path: /}", "{block: {hold: 64KiB}}"),
        rule("{body: [x, y], body.size: {gt: 5}, body.sha256: {in: known}}"),
        rule("{body: {regex: x, in: words}}"),
        HEAD + "anomalies: {'http1.*': refuse, http1.obs_fold: repair}\n",
        HEAD + "lists: {a: {type: cidr, values: [10.0.0.0/8]}}\nmacros: {m: {path: /}}\n",
    ],
)
def test_what_is_right(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\n",
        HEAD + "ruls: []\n",
        HEAD + "lists: {a b: {type: cidr, values: []}}\n",
        HEAD + "lists: {a: {type: domian, values: []}}\n",
        HEAD + "anomalies: {http1.obsfold: refuse}\n",
        HEAD + "sublayers: {a: -1}\n",
        rule("{pth: /}"),
        rule("{}"),
        rule("{header: x}"),
        rule("{all: {path: /}}"),
        rule("{path: {gt: 3}}"),
        rule("{weekday: monday}"),
        rule("{dst.port: many}"),
        rule("{path: /}", "{}"),
        rule("{path: /}", "{blok: true}"),
        rule("{path: /}", "{permit: false}"),
        rule("{path: /}", "{block: {how: drp}}"),
        rule("{path: /}", "{redirect: {to: /x, status: 200}}"),
        rule("{path: /}", "{remove_body: false}"),
        rule("{path: /}", "{respond: {status: 700}}"),
        rule("{path: /}", "{map_local: {missing: maybe}}"),
        rule("{path: /}", "{set_body: {txt: x}}"),
        rule("{path: /}", "{replace_body: []}"),
        rule("{body: {gt: 5}}"),
        rule("{body.sha256: abc}"),
    ],
)
def test_what_is_wrong(text: str) -> None:
    assert errors(text)
