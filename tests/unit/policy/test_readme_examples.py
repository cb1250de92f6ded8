"""policies/README.md: its examples do what it says, and it names everything that there is."""

from __future__ import annotations

import datetime
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.anomalies import ANOMALIES
from proxy.content.scan import StreamScanner
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import (
    Confidence,
    Direction,
    Endpoint,
    FlowInfo,
    Layer,
    Principal,
    Protocol,
    RedirectInfo,
)
from proxy.policy import ast
from proxy.policy.actions import LAYERS_OF
from proxy.policy.ast import ListType, OnReload, Op
from proxy.policy.compile import compile_policies
from proxy.policy.document import read_document
from proxy.policy.facts import BodyFacts, Facts
from proxy.policy.fields import FIELDS
from proxy.policy.files import DirectoryFiles
from proxy.policy.generation import Generation
from proxy.policy.load import parse_policy
from proxy.policy.positions import Complaints
from proxy.policy.ruling import Ruling

POLICIES = Path(__file__).parents[3] / "policies"
TEXT = (POLICIES / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EDIT_NAMES: dict[type, str] = {
    ast.Headers: "headers",
    ast.RewriteUrl: "rewrite_url",
    ast.InjectBanner: "inject_banner",
    ast.Replace: "replace_body",
    ast.RemoveBody: "remove_body",
    ast.SetBody: "set_body",
}
BODIES = (Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY)


def read(text: str) -> Any:
    complaints = Complaints("README.md")
    document = read_document(text.encode(), complaints)
    assert document is not None, complaints.all
    assert not complaints.all
    return document.data


def examples() -> list[Any]:
    """(policy, given, expect) for each case of each pair of blocks."""
    blocks = list(BLOCK.finditer(TEXT))
    assert len(blocks) % 2 == 0
    found = []
    for policy, cases in zip(blocks[::2], blocks[1::2], strict=True):
        line = TEXT.count("\n", 0, cases.start()) + 2
        for number, case in enumerate(read(cases[1]), start=1):
            name = f"line{line}-{number}"
            found.append(pytest.param(policy[1], case["given"], case["expect"], id=name))
    return found


def generation(text: str) -> Generation:
    if not re.search(r"^version:", text, re.MULTILINE):
        text = f"version: 1\npolicy: example\n{text}"
    files = DirectoryFiles(POLICIES / "examples")
    loaded = parse_policy("README.md", text.encode(), files.read, files.list_folder)
    return compile_policies([loaded], 1)


# --- what is given -------------------------------------------------------------------------


def fields(headers: dict[str, str]) -> tuple[Field, ...]:
    return tuple(Field(k.encode(), k.lower().encode(), v.encode()) for k, v in headers.items())


def request(given: dict[str, Any]) -> RequestHead:
    method, _, url = given.get("request", "GET http://x.test/").partition(" ")
    host, slash, target = url.removeprefix("http://").partition("/")
    headers = {"Host": host, **given.get("headers", {})}
    return RequestHead(
        b"1.1", fields(headers), method=method.encode(), target=(slash + target).encode()
    )


def flow(given: dict[str, Any]) -> FlowInfo:
    names = ("pid", "exe", "uid", "user", "cgroup", "container", "comm", "package")
    known = {name: given[name] for name in names if name in given}
    confidence = Confidence(given.get("confidence", "exact" if known else "none"))
    info = RedirectInfo(
        provider=given.get("provider", "nft"),
        original_dst=Endpoint.parse(given.get("dst", "192.0.2.1:80")),
        client=Endpoint.parse(given.get("client", "192.0.2.200:1024")),
        dst_name=given.get("dst_host"),
        principal=Principal(confidence=confidence, **known),
        redirect_to=Endpoint.parse(given["redirect_to"]) if "redirect_to" in given else None,
        loopback=given.get("loopback"),
    )
    return FlowInfo(
        id="f",
        redirect=info,
        opened_at=0.0,
        protocol=Protocol(given.get("protocol", "http1")),
        sni=given.get("sni"),
        alpn=tuple(given.get("alpn", ())),
    )


def layer_of(given: dict[str, Any]) -> Layer:
    if "layer" in given:
        return Layer(given["layer"])
    if "status" in given:
        return Layer.HTTP_RESPONSE
    return Layer.HTTP_REQUEST if "request" in given else Layer.AUTH_CONNECT


def facts(given: dict[str, Any], layer: Layer) -> Facts:
    at = datetime.datetime.fromisoformat(given.get("at", "2026-11-25 12:00"))
    answer = None
    if "status" in given:
        answer = ResponseHead(b"1.1", fields(given.get("response_headers", {})), given["status"])
    labels = {direction.label: direction for direction in Direction}
    return Facts(
        flow=flow(given),
        wall=at.timestamp(),
        request=request(given) if layer.startswith("http_") else None,
        response=answer,
        direction=labels.get(given.get("direction", "")),
        sniffed=given.get("sniffed"),
        reauthorize=given.get("reauthorize", False),
    )


def body(made: Generation, given: dict[str, Any], facts: Facts, layer: Layer) -> BodyFacts:
    """What would be known of the content; `more`: more of it may come."""
    watch = made.watch(layer, facts)
    content = given["body"].encode()
    found = frozenset[int]()
    if watch is not None:
        scanner = StreamScanner(watch.patterns)
        scanner.feed(content)
        scanner.finish()
        found = scanner.found
    digest = None if given.get("more") else hashlib.sha256(content).hexdigest()
    return BodyFacts(found, len(content), digest, complete=not given.get("more"))


def edit_name(edit: object, layer: Layer) -> str:
    return "replace" if layer is Layer.STREAM else EDIT_NAMES[type(edit)]


def outcome(ruling: Ruling, expect: dict[str, Any]) -> dict[str, Any]:
    """What came out, in the words of an `expect`."""
    said = expect.get("action", {})
    return {
        "verdict": ruling.verdict.value,
        "rule": ruling.rule,
        "hard": ruling.hard,
        "veto": ruling.veto,
        "rules": [hit.rule for hit in ruling.hits if not hit.shadow],
        "shadow": [hit.rule for hit in ruling.hits if hit.shadow],
        "edits": [edit_name(planned.edit, ruling.layer) for planned in ruling.edits],
        "tags": list(ruling.tags),
        "redirect": str(ruling.redirect).lower(),
        "action": {key: getattr(ruling.action, key) for key in said},
    }


@pytest.mark.parametrize(("policy", "given", "expect"), examples())
def test_example(policy: str, given: dict[str, Any], expect: dict[str, Any]) -> None:
    made = generation(policy)
    if "anomaly" in given:
        assert made.anomaly_action(given["anomaly"]) == expect["anomaly"]
        return
    layer = layer_of(given)
    known = facts(given, layer)
    if layer in BODIES:
        known.body = body(made, given, known, layer)
    found = outcome(made.decide(layer, known), expect)
    assert {key: found[key] for key in expect} == expect


# --- what is named -------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
def test_every_condition_is_listed_and_used_in_an_example(field: str) -> None:
    name = f"{field}.NAME" if FIELDS[field].takes_arg else field
    assert f"`{name}`" in TEXT
    used = rf"[{{\s]{re.escape(field)}{'[.][A-Za-z]' if FIELDS[field].takes_arg else ': '}"
    assert any(re.search(used, block) for block in BLOCK.findall(TEXT)[::2])


@pytest.mark.parametrize("action", LAYERS_OF)
def test_every_action_is_described_and_used_in_an_example(action: str) -> None:
    assert re.search(rf"^### .*\b{action}\b", TEXT, re.MULTILINE)
    assert any(re.search(rf"\b{action}: ", block) for block in BLOCK.findall(TEXT)[::2])


@pytest.mark.parametrize("word", [*Op, *ListType, *OnReload, *Layer])
def test_every_operator_list_type_and_layer_is_named(word: str) -> None:
    assert f"`{word}`" in TEXT


def test_every_anomaly_is_documented_as_it_is() -> None:
    row = re.compile(r"\| `[a-z0-9]+\.\w+` \| .* \| [0-9]{3} \| (yes|no) \| \w+ \|")
    rows = [line for line in TEXT.splitlines() if row.fullmatch(line)]
    assert rows == [
        f"| `{anomaly.id}` | {anomaly.doc} | {anomaly.client_status} |"
        f" {'yes' if anomaly.repairable else 'no'} | {anomaly.default} |"
        for anomaly in ANOMALIES.values()
    ]
