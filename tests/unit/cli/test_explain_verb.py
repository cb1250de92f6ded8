"""`sluicegate explain`: a described exchange, and a flow that was seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.account import events
from proxy.account.escape import printable
from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, Protocol, RedirectInfo
from proxy.records import AnomalySeen, Decided, ExchangeEnded
from proxy.verbs.flow_events import octets

POLICY = """version: 1
policy: web
rules:
  - {id: no-exe, layer: http_request, when: {path: "*.exe"}, then: {block: {status: 403}}}
  - id: not-curl
    layer: http_request
    when: {principal.exe: "*/curl", path: /private}
    then: {block: true}
  - {id: clean, layer: http_request, then: {headers: {remove: X-Token, set: {X-Seen: "yes"}}}}
  - {id: old-tls, layer: tls_client_hello, when: {sni: old.example}, then: {block: true}}
  - {id: key, layer: http_request, when: {query: "*key=*"}, then: {log: true}}
  - {id: auth, layer: http_request, when: {header.Authorization: "basic *"}, then: {log: true}}
  - {id: gone, layer: http_response, when: {status: 404}, then: {tag: missing}}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    (directory / "web.yaml").write_text(POLICY, encoding="utf-8")
    return directory


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICEGATE_CONFIG", raising=False)


Capture = pytest.CaptureFixture[str]


def explain(policies: Path, *arguments: str) -> int:
    return cli.main(["explain", "--policies", str(policies), *arguments])


def explained(capsys: Capture, policies: Path, *arguments: str) -> dict[str, Any]:
    assert explain(policies, "--json", *arguments) == cli.OK
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def rules(answer: dict[str, Any], layer: str) -> dict[str, str]:
    (found,) = (step for step in answer["layers"] if step["layer"] == layer)
    return {rule["rule"]: rule["fate"] for rule in found["rules"]}


# --- an exchange that is described


def test_a_blocked_request_is_told_with_the_rule_its_place_and_the_value(
    capsys: Capture, policies: Path
) -> None:
    assert explain(policies, "--url", "http://a.test/setup.exe?x=1") == cli.OK
    out = capsys.readouterr().out
    assert "GET http://a.test/setup.exe?x=1" in out
    assert "http_request: block by no-exe" in out
    assert "path is '/setup.exe' (*.exe)" in out
    assert f"{policies}/web.yaml:4:46" in out
    assert "not asked: no-exe at http_request blocks the message" in out
    assert "outcome: the message does not pass: block with status 403 (no-exe" in out
    assert "\x1b" not in out


def test_the_head_that_goes_on_is_shown(capsys: Capture, policies: Path) -> None:
    url = ("--url", "http://a.test/", "--header", "X-Token: t", "--header", "Accept: */*")
    answer = explained(capsys, policies, *url)
    assert answer["verdict"] == "permit"
    (head,) = answer["heads"]
    assert head["after"] == ["GET / HTTP/1.1", "Host: a.test", "Accept: */*", "X-Seen: yes"]


def test_a_program_that_is_not_given_is_unknown_and_a_rule_that_denies_matches(
    capsys: Capture, policies: Path
) -> None:
    url = ("--url", "http://a.test/private")
    unknown = explained(capsys, policies, *url)
    assert (unknown["rule"], rules(unknown, "http_request")["not-curl"]) == ("not-curl", "decides")
    other = explained(capsys, policies, *url, "--app", "/usr/bin/wget")
    assert (other["rule"], rules(other, "http_request")["not-curl"]) == (None, "no_match")


def test_a_response_that_is_not_given_is_left_open(capsys: Capture, policies: Path) -> None:
    url = ("--url", "http://a.test/")
    answer = explained(capsys, policies, *url)
    assert rules(answer, "http_response") == {"gone": "depends"}
    assert answer["left_open"] == ["gone at http_response needs status: tag missing"]
    given = explained(capsys, policies, *url, "--status", "404")
    assert rules(given, "http_response") == {"gone": "acts"}


def test_https_is_what_its_client_hello_shows(capsys: Capture, policies: Path) -> None:
    answer = explained(capsys, policies, "--url", "https://old.example/x")
    assert (answer["rule"], answer["layer"]) == ("old-tls", "tls_client_hello")
    assert [step["layer"] for step in answer["layers"]] == ["tls_client_hello"]


def test_the_method_follows_the_body_and_files_are_read(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    (tmp_path / "form").write_bytes(b"a=1")
    url = ("--url", "http://a.test/", "--body", f"@{tmp_path / 'form'}")
    assert explained(capsys, policies, *url)["question"].startswith("POST http://a.test/ ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "nothing to explain"),
        (("--url", "ftp://a.test/"), "expected http:// or https://"),
        (("--url", "http:///x"), "names no host"),
        (("--url", "http://a.test/", "--header", "no colon"), "write NAME:VALUE"),
        (("--url", "http://a.test/", "--dst", "nowhere"), "is not ADDRESS:PORT"),
        (("--url", "http://a.test/", "--time", "noon"), "is not a time"),
        (("--url", "http://a.test/", "--body", "@/nowhere/at/all"), "No such file"),
        (("--flow", "f1", "--events", "/nowhere/at/all"), "No such file"),
        (("--flow", "f1"), "--events FILE"),
    ],
)
def test_what_cannot_be_explained_is_usage_in_one_sentence(
    arguments: tuple[str, ...], complaint: str, capsys: Capture, policies: Path
) -> None:
    assert explain(policies, *arguments) == cli.USAGE
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_policies_that_are_wrong_are_findings_with_their_places(
    capsys: Capture, policies: Path
) -> None:
    (policies / "bad.yaml").write_text("version: 1\npolicy: bad\nrules: 1\n", encoding="utf-8")
    assert explain(policies, "--url", "http://a.test/") == cli.FINDINGS
    assert "bad.yaml:3:8: " in capsys.readouterr().out


def test_rules_that_do_not_match_are_counted_where_they_are_many(
    capsys: Capture, policies: Path
) -> None:
    many = "".join(
        f"  - {{id: r{n}, layer: http_request, when: {{path: /{n}}}, then: {{block: true}}}}\n"
        for n in range(40)
    )
    text = f"version: 1\npolicy: many\nrules:\n{many}"
    (policies / "web.yaml").write_text(text, encoding="utf-8")
    assert explain(policies, "--url", "http://a.test/7") == cli.OK
    out = capsys.readouterr().out
    assert "and 39 rules that do not match (--all shows them)" in out
    assert "r7" in out
    assert explain(policies, "--url", "http://a.test/7", "--all") == cli.OK
    assert capsys.readouterr().out.count(", wanted /") == 39


# --- a flow that was seen


FLOW = FlowInfo(
    id="f-1",
    redirect=RedirectInfo(
        provider="nft",
        original_dst=Endpoint("192.0.2.1", 80),
        client=Endpoint("192.0.2.99", 40000),
        principal=Principal(exe="/usr/bin/wget", uid=1000, confidence=Confidence.EXACT),
    ),
    opened_at=0.0,
    protocol=Protocol.HTTP1,
)


def exchange(number: int, target: bytes, **known: Any) -> events.Event:
    record = ExchangeEnded(
        number=number,
        protocol=Protocol.HTTP1,
        outcome=known.pop("outcome", "forwarded"),
        generation=3,
        method=b"GET",
        host="a.test",
        target=target,
        version=b"1.1",
        **known,
    )
    context = events.flow_context(FLOW)
    return events.exchange(1000.0 + number, context, record, queries=False)


def write(path: Path, *written: events.Event) -> str:
    lines = [json.dumps(event, default=lambda value: value.isoformat()) for event in written]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def decided(rule: str) -> events.Event:
    record = Decided(Layer.HTTP_REQUEST, "block", rule, "web", 3, exchange=1)
    return events.decided(1000.5, events.flow_context(FLOW), record)


def test_a_flow_is_told_and_its_exchanges_explained(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    anomaly = AnomalySeen("http1.chunk_ext", events_direction(), "repair")
    path = write(
        tmp_path / "events.jsonl",
        decided("no-exe"),
        exchange(1, b"/a.exe", outcome="blocked", status=403, rule="no-exe", rules=("no-exe",)),
        exchange(2, b"/b", status=404, upstream_status=404, rules=("clean", "gone")),
        events.anomaly(1003.0, events.flow_context(FLOW), anomaly),
        events.event(1004.0, "SERVICE_STOP", "success"),
    )
    assert explain(policies, "--flow", "f-1", "--events", path) == cli.OK
    out = capsys.readouterr().out
    assert "flow f-1: 192.0.2.99:40000 to 192.0.2.1:80, http1, /usr/bin/wget" in out
    assert "http_request: block, rule no-exe of web, generation 3" in out
    assert "GET http://a.test/a.exe, blocked with 403, decided by no-exe" in out
    assert "http1.chunk_ext: repair, outbound" in out
    assert "SERVICE_STOP" not in out
    assert "by the policies on disk now: exchange 1" in out
    assert "outcome: the message does not pass: block with status 403 (no-exe" in out
    assert "http_response: permit (no rule decides), tags missing" in out
    assert "acted then" not in out
    assert "acts now" not in out


def events_direction() -> Any:
    from proxy.model import Direction

    return Direction.OUTBOUND


def test_what_records_do_not_hold_is_left_open_and_never_absent(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "e.jsonl", exchange(1, b"/b?key=secret", upstream_status=200))
    answer = explained(capsys, policies, "--flow", "f-1", "--events", path)
    (one,) = answer["explained"]
    fates = rules(one, "http_request")
    assert (fates["key"], fates["auth"]) == ("depends", "depends")
    assert fates["no-exe"] == "no_match"
    assert fates["not-curl"] == "no_match"
    assert any("no header values" in note for note in answer["notes"])


def test_rules_that_acted_then_and_not_now_are_named(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "e.jsonl", exchange(1, b"/b", rules=("clean", "removed-since")))
    (one,) = explained(capsys, policies, "--flow", "f-1", "--events", path)["explained"]
    assert one["differences"] == ["acted then, and does not now: removed-since"]


def test_a_reload_since_is_told(capsys: Capture, policies: Path, tmp_path: Path) -> None:
    reload = events.event(2000.0, "POLICY_RELOAD", "success")
    reload["sluicegate.policy.generation"] = 5
    path = write(tmp_path / "e.jsonl", exchange(1, b"/b"), reload)
    notes = explained(capsys, policies, "--flow", "f-1", "--events", path)["notes"]
    assert "the policies have changed since: generation 3 decided then, 5 was the last one" in notes


def test_a_connection_without_exchanges_is_explained_by_its_client_hello(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    context = events.flow_context(FLOW) | {"sluicegate.protocol": "tls"}
    closure = events.event(1000.0, "ENDPOINT_CLOSURE", "failure")
    closure |= {**context, "tls.client.server_name": "old.example"}
    path = write(tmp_path / "e.jsonl", closure)
    (one,) = explained(capsys, policies, "--flow", "f-1", "--events", path)["explained"]
    assert one["rule"] == "old-tls"


def test_a_flow_without_records_is_a_finding(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "e.jsonl", exchange(1, b"/b"))
    assert explain(policies, "--flow", "f-2", "--events", path) == cli.FINDINGS
    assert "no record of the flow f-2" in capsys.readouterr().err


def test_lines_that_are_no_records_are_counted(
    capsys: Capture, policies: Path, tmp_path: Path
) -> None:
    path = tmp_path / "e.jsonl"
    write(path, exchange(1, b"/b"))
    path.write_bytes(path.read_bytes() + b'{"sluicegate.flow.id": "f-1", \n["f-1"]\n\xff f-1\n')
    notes = explained(capsys, policies, "--flow", "f-1", "--events", str(path))["notes"]
    assert "3 lines of the file could not be read" in notes


@pytest.mark.parametrize(
    "raw", [b"/plain", b"/\x00\x1f\x7f", b"/\xff\xfe", "/é\u202e\U000e0001".encode(), b"/\\x41\\"]
)
def test_escaping_of_records_is_undone(raw: bytes) -> None:
    assert octets(printable(raw)) == raw


# --- the connection ------------------------------------------------------------------------

CONNECTION = """version: 1
policy: connection
rules:
  - {id: moved, layer: connect_redirect, when: {dst.port: 5432}, then: {redirect_to: 10.0.9.7}}
  - {id: new-net, layer: auth_connect, when: {dst.ip: 10.0.9.0/24}, then: {tag: new}}
  - {id: own, layer: auth_connect, when: {loopback: true}, then: {tag: own}}
  - {id: caught, layer: auth_connect, when: {redirected: true}, then: {tag: caught}}
  - {id: again, layer: auth_connect, when: {reauthorize: true}, then: {tag: again}}
  - {id: named, layer: auth_connect, when: {principal.name: nc}, then: {tag: nc}}
  - {id: packed, layer: auth_connect, when: {principal.package: "snap:*"}, then: {tag: snap}}
  - {id: guess, layer: auth_connect, when: {principal.confidence: likely}, then: {tag: guess}}
"""


def tags_of(answer: dict[str, Any]) -> list[str]:
    return [tag for layer in answer["layers"] for tag in layer.get("tags", ())]


@pytest.mark.parametrize(
    ("arguments", "tags", "left_open"),
    [
        (("--dst", "10.0.0.7:5432"), ["new"], {"own", "caught"}),
        (("--dst", "10.0.0.7:80", "--loopback"), ["own"], {"caught"}),
        (("--dst", "127.0.0.1:80", "--provider", "nft"), ["own", "caught"], set()),
        (("--dst", "127.0.0.1:80", "--provider", "explicit"), ["own"], set()),
        (("--dst", "127.0.0.1:80", "--provider", "static", "--comm", "nc"), ["own", "nc"], set()),
        (
            (
                "--dst",
                "127.0.0.1:80",
                "--provider",
                "static",
                "--reauthorize",
                "--package",
                "snap:a",
            ),
            ["own", "again", "snap"],
            set(),
        ),
        (
            ("--dst", "[::1]:80", "--provider=static", "--app=/bin/nc", "--confidence=likely"),
            ["own", "nc", "guess"],
            set(),
        ),
    ],
)
def test_a_connection_with_what_is_known_of_it(
    tmp_path: Path,
    capsys: Capture,
    arguments: tuple[str, ...],
    tags: list[str],
    left_open: set[str],
) -> None:
    (tmp_path / "connection.yaml").write_text(CONNECTION, encoding="utf-8")
    answer = explained(capsys, tmp_path, *arguments)
    assert tags_of(answer) == tags
    assert {rule.partition(" ")[0] for rule in answer["left_open"]} == left_open


def test_where_a_rule_sends_it_is_told(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "connection.yaml").write_text(CONNECTION, encoding="utf-8")
    assert explain(tmp_path, "--dst", "10.0.0.7:5432") == cli.OK
    out = capsys.readouterr().out
    assert "redirect to 10.0.9.7" in out
    assert "to 10.0.0.7:5432" in out
