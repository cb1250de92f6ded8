"""What a flow's life leaves behind: events and counters, and that the two agree."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from proxy.account.ledger import Accounts, FlowAccount, FlowOutcome
from proxy.account.metrics import Counters
from proxy.account.sinks import MemorySink
from proxy.limits import Cause, OnException
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
from proxy.records import (
    AnomalySeen,
    Decided,
    Detected,
    Discarded,
    ExceptionApplied,
    ExchangeEnded,
    Record,
    Uninspected,
)

DOCUMENTATION = Path(__file__).parents[3] / "deploy" / "events.md"

BLOCK = Decided(
    Layer.HTTP_REQUEST, "block", "no-admin", "workstation", 4, severity="high", exchange=1
)
EXCHANGE = ExchangeEnded(
    number=1,
    protocol=Protocol.HTTP1,
    outcome="blocked",
    generation=4,
    method=b"POST",
    host="a.test",
    target=b"/login?token=s3cret",
    version=b"1.1",
    status=403,
    upstream_status=200,
    request_bytes=12,
    response_bytes=34,
    request_content_type="text/plain",
    response_content_type="text/html",
    user_agent=b"curl/8.5\x1b[2J",
    seconds=0.25,
    rule="no-admin",
    rules=("no-admin", "banner"),
    shadow_rules=("maybe",),
    edits=("headers",),
    tags=("t",),
    detail="because",
)
EVERY_RECORD: tuple[Record, ...] = (
    BLOCK,
    Decided(Layer.STREAM, "block", "s", "p", 4, shadow=True, veto=True, tags=("x",), detail="d"),
    Decided(Layer.AUTH_CONNECT, "permit", "again", "p", 4, reauthorize=True),
    Detected(Protocol.TLS, "a.test", ("h2", "http/1.1")),
    AnomalySeen("http1.host_missing", Direction.OUTBOUND, "refuse", "no Host", 1),
    Discarded(Direction.INBOUND, 77, "scan"),
    ExceptionApplied(Cause.PARSE_ERROR, OnException.CLOSED, "http", "bad chunk"),
    Uninspected(Direction.INBOUND, 99, "permit_ahead"),
    EXCHANGE,
)


@dataclass(frozen=True)
class Reload:
    ok: bool = True
    generation: int = 4
    reason: str = "files"
    problems: tuple[str, ...] = ()
    seconds: float = 0.5
    wall: float = 1_700_000_000.0
    rules: int = 12


class Ledger:
    """Accounts on clocks that stand still until told, and what they wrote."""

    def __init__(self, *, queries: bool = False) -> None:
        self.now = 100.0
        self.sink = MemorySink()
        self.counters = Counters()
        self.accounts = Accounts(
            self.counters,
            self.sink,
            lambda: 1_700_000_000.0 + self.now,
            clock=lambda: self.now,
            queries=queries,
        )

    def flow(self, **changes: Any) -> FlowAccount:
        return self.accounts.open_flow(flow_info(**changes))

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.sink.events

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """What is not zero, by label values in the alphabetical order of their labels."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.counters.expose()[0].decode())
            for sample in family.samples
            if sample.name == name and sample.value
        }


def flow_info(**changes: Any) -> FlowInfo:
    redirect = RedirectInfo(
        provider="nft",
        original_dst=Endpoint("192.0.2.7", 443),
        client=Endpoint("10.0.0.9", 51000),
        dst_name="a.test",
        principal=Principal(
            pid=4711,
            process_start=1_690_000_000.0,
            exe="/usr/bin/curl (deleted)",
            uid=0,
            user="root",
            cgroup="/user.slice",
            container="c0ffee",
            confidence=Confidence.EXACT,
            comm="curl",
            package="snap:curl",
        ),
        redirect_to=Endpoint("192.0.2.8", 8443),
    )
    values: dict[str, Any] = {"id": "f1", "redirect": redirect, "opened_at": 1_700_000_100.0}
    return FlowInfo(**(values | changes))


def test_the_flow_record_tells_the_whole_flow() -> None:
    ledger = Ledger()
    ledger.accounts.reloaded(Reload(generation=3))
    account = ledger.flow(protocol=Protocol.TLS, sni="a.test", alpn=("h2",), tags=["t1"])
    account.count(Direction.OUTBOUND, 10)
    account.count(Direction.INBOUND, 2000)
    account.count(Direction.OUTBOUND, 5)
    account.record(Uninspected(Direction.INBOUND, 1500, "permit_ahead"))
    account.record(Decided(Layer.AUTH_CONNECT, "permit", "ok", "p", 3))
    ledger.now += 2.5
    account.close(FlowOutcome.CLOSED, "")
    closing = ledger.events[-1]
    assert closing == closing | {
        "schema": "sluicegate.event/1",
        "@timestamp": "2023-11-14T22:15:02.500000Z",
        "event.action": "ENDPOINT_CLOSURE",
        "event.outcome": "success",
        "event.duration": 2_500_000_000,
        "sluicegate.outcome": "closed",
        "source.ip": "10.0.0.9",
        "source.port": 51000,
        "source.bytes": 15,
        "destination.ip": "192.0.2.7",
        "destination.port": 443,
        "destination.bytes": 2000,
        "destination.domain": "a.test",
        "network.protocol": "tls",
        "network.type": "ipv4",
        "tls.client.server_name": "a.test",
        "destination.nat.ip": "192.0.2.8",
        "destination.nat.port": 8443,
        "process.pid": 4711,
        "process.start": "2023-07-22T04:26:40Z",
        "process.executable": "/usr/bin/curl",
        "process.name": "curl",
        "user.id": "0",
        "user.name": "root",
        "container.id": "c0ffee",
        "sluicegate.principal.cgroup": "/user.slice",
        "sluicegate.principal.package": "snap:curl",
        "sluicegate.principal.deleted": True,
        "sluicegate.principal.confidence": "exact",
        "sluicegate.uninspected_bytes": 1500,
        "sluicegate.rules": ["ok"],
        "sluicegate.policy.generation": 3,
        "tags": ["t1"],
    }


def test_a_flow_ends_once() -> None:
    ledger = Ledger()
    account = ledger.flow()
    assert ledger.samples("sluicegate_flows_open") == {(): 1}
    account.close(FlowOutcome.RESET, "RST from the client")
    account.close(FlowOutcome.ERROR, "again")
    assert [e["sluicegate.outcome"] for e in ledger.events] == ["reset"]
    assert ledger.samples("sluicegate_flows_total") == {("reset", "unknown"): 1}
    assert ledger.samples("sluicegate_flows_open") == {}


def test_what_is_not_known_is_left_out() -> None:
    ledger = Ledger()
    redirect = RedirectInfo("static", Endpoint("2001:db8::1", 80), Endpoint("::1", 5))
    ledger.flow(redirect=redirect).close(FlowOutcome.CLOSED, "")
    (closing,) = ledger.events
    assert closing["network.type"] == "ipv6"
    assert not {key for key in closing if key.startswith(("process.", "user.", "container."))}
    assert "destination.domain" not in closing


def test_what_is_known_not_to_be_there_is_left_out_too() -> None:
    ledger = Ledger()
    nobody = Principal(comm="cu\x1b[2Jrl", container="", package="", confidence=Confidence.LIKELY)
    redirect = RedirectInfo("ebpf", Endpoint("192.0.2.1", 80), Endpoint("::1", 5), principal=nobody)
    ledger.flow(redirect=redirect).close(FlowOutcome.CLOSED, "")
    (closing,) = ledger.events
    told = {
        key
        for key in closing
        if key.startswith(("process.", "user.", "container.", "sluicegate.p"))
    }
    assert told == {
        "process.name",
        "sluicegate.protocol",
        "sluicegate.provider",
        "sluicegate.policy.generation",
        "sluicegate.principal.confidence",
    }
    assert closing["process.name"] == "cu\\x1b[2Jrl"
    assert "destination.nat.ip" not in closing


def test_no_metric_says_who_connected_or_whereto() -> None:
    ledger = Ledger()
    account = ledger.flow()
    account.established()
    for record in EVERY_RECORD:
        account.record(record)
    account.close(FlowOutcome.CLOSED, "")
    exposed = ledger.counters.expose()[0].decode()
    for private in ("curl", "4711", "root", "c0ffee", "user.slice", "192.0.2.", "a.test"):
        assert private not in exposed


def test_a_name_that_never_resolved_is_a_domain_not_an_address() -> None:
    ledger = Ledger()
    redirect = RedirectInfo("explicit", Endpoint("nowhere.test", 80), Endpoint("::1", 5))
    ledger.flow(redirect=redirect).close(FlowOutcome.FAILED, "not resolved")
    (closing,) = ledger.events
    assert closing["destination.domain"] == "nowhere.test"
    assert "destination.ip" not in closing


def test_records_follow_a_destination_and_a_protocol_that_change() -> None:
    ledger = Ledger()
    info = flow_info()
    account = ledger.accounts.open_flow(info)
    account.record(BLOCK)
    info.protocol = Protocol.HTTP1
    info.redirect = RedirectInfo("explicit", Endpoint("192.0.2.8", 80), Endpoint("::1", 5))
    account.record(BLOCK)
    before, after = ledger.events
    assert (before["destination.ip"], before["sluicegate.protocol"]) == ("192.0.2.7", "unknown")
    assert (after["destination.ip"], after["sluicegate.protocol"]) == ("192.0.2.8", "http1")


@pytest.mark.parametrize(
    ("verdict", "shadow", "action", "outcome", "kind"),
    [
        ("block", False, "CLASSIFY_DROP", "failure", "alert"),
        ("redirect", False, "CLASSIFY_DROP", "failure", "alert"),
        ("block", True, "CLASSIFY_ALLOW", "success", "alert"),
        ("permit", False, "CLASSIFY_ALLOW", "success", "event"),
        ("edit", False, "CLASSIFY_ALLOW", "success", "event"),
    ],
)
def test_a_decision_says_what_became_of_the_traffic(
    verdict: str, shadow: bool, action: str, outcome: str, kind: str
) -> None:
    ledger = Ledger()
    ledger.flow().record(Decided(Layer.HTTP_REQUEST, verdict, "r", "p", 4, shadow=shadow))
    (event,) = ledger.events
    assert event["event.action"] == action
    assert event["event.outcome"] == outcome
    assert event["event.kind"] == kind
    assert event["sluicegate.verdict"] == verdict
    assert event["sluicegate.shadow"] is shadow
    assert (event["rule.id"], event["rule.ruleset"]) == ("r", "p")


def test_an_exchange_keeps_no_query_by_default_and_nothing_unescaped() -> None:
    ledger = Ledger()
    ledger.flow().record(EXCHANGE)
    (event,) = ledger.events
    assert event["url.path"] == "/login"
    assert event["url.query"] == "[redacted]"
    assert "s3cret" not in str(event)
    assert event["user_agent.original"] == "curl/8.5\\x1b[2J"
    assert event["http.response.status_code"] == 403
    assert event["event.duration"] == 250_000_000


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a?b=c", {"url.path": "/a", "url.query": "b=c"}),
        (b"/a?", {"url.path": "/a", "url.query": ""}),
        (b"/a?b?c", {"url.path": "/a", "url.query": "b?c"}),
        (b"http://u:pw@h.test/p?q", {"url.path": "/p", "url.query": "q"}),
        (b"http://u:pw@h.test?q", {"url.path": "/", "url.query": "q"}),
        (b"u:pw@h.test:443", {"url.path": "h.test:443"}),
        (b"*", {"url.path": "*"}),
        (b"", {}),
        (b"/\xff\n", {"url.path": "/\\xff\\x0a"}),
    ],
)
def test_target_forms(target: bytes, expected: dict[str, str]) -> None:
    ledger = Ledger(queries=True)
    record = ExchangeEnded(1, Protocol.HTTP1, "forwarded", 1, host="u:pw@h.test", target=target)
    ledger.flow().record(record)
    (event,) = ledger.events
    assert {key: value for key, value in event.items() if key in expected} == expected
    assert "pw" not in str(event)


def test_a_recognised_flow_is_told_at_once_unless_its_exchanges_tell_it() -> None:
    ledger = Ledger()
    ledger.flow().record(Detected(Protocol.HTTP1))
    ledger.flow().record(Detected(Protocol.TLS, "a.test"))
    assert [e["event.action"] for e in ledger.events] == ["DETECTED"]
    assert ledger.samples("sluicegate_detected_total") == {("http1",): 1, ("tls",): 1}


def test_refused_connections_and_exception_policies_outside_flows() -> None:
    ledger = Ledger()
    ledger.accounts.exception(Cause.NO_REDIRECT_INFO, OnException.CLOSED)
    ledger.accounts.refused(Endpoint("10.0.0.9", 5), "not_redirected", "who are you\x07")
    policy, refusal = ledger.events
    assert policy["sluicegate.exception.cause"] == "no_redirect_info"
    assert refusal["event.action"] == "CLASSIFY_DROP"
    assert refusal["sluicegate.reason"] == "not_redirected"
    assert refusal["message"] == "who are you\\x07"
    assert ledger.samples("sluicegate_refused_total") == {("not_redirected",): 1}
    assert ledger.samples("sluicegate_exception_policy_total") == {
        ("closed", "no_redirect_info"): 1
    }


def test_a_failed_reload_tells_every_problem() -> None:
    ledger = Ledger()
    problems = tuple(f"a.yaml:{n}:1: wrong" for n in range(60))
    ledger.accounts.reloaded(Reload(ok=False, problems=problems))
    (event,) = ledger.events
    assert (event["event.action"], event["event.outcome"]) == ("POLICY_RELOAD", "failure")
    assert event["sluicegate.policy.problem_count"] == 60
    assert event["sluicegate.policy.problems"][0] == "a.yaml:0:1: wrong"
    assert len(event["sluicegate.policy.problems"]) == 50


def test_without_a_sink_only_counters_move() -> None:
    counters = Counters()
    accounts = Accounts(counters, None, lambda: 0.0)
    account = accounts.open_flow(flow_info())
    for record in EVERY_RECORD:
        account.record(record)
    accounts.refused(Endpoint("::1", 1), "self", "")
    accounts.reloaded(Reload())
    accounts.service_event("SERVICE_START")
    account.established()
    account.close(FlowOutcome.CLOSED, "")
    assert counters.exchanges["http1", "blocked"] == 1


@given(st.lists(st.sampled_from(EVERY_RECORD), max_size=30))
def test_counters_and_events_agree(records: list[Record]) -> None:
    ledger = Ledger()
    account = ledger.flow()
    for record in records:
        account.record(record)
    account.close(FlowOutcome.CLOSED, "")
    seen = Counter(event["event.action"] for event in ledger.events)
    assert sum(ledger.counters.decisions.values()) == (
        seen["CLASSIFY_DROP"] + seen["CLASSIFY_ALLOW"]
    )
    assert sum(ledger.counters.exchanges.values()) == seen["EXCHANGE"]
    assert sum(ledger.counters.anomalies.values()) == seen["ANOMALY"]
    assert sum(ledger.counters.exceptions.values()) == seen["EXCEPTION_POLICY"]
    assert sum(ledger.counters.detected.values()) == seen["DETECTED"]
    closing = ledger.events[-1]
    assert closing["sluicegate.exchanges"] == seen["EXCHANGE"]
    assert closing["sluicegate.discarded_bytes"] == 77 * seen["STREAM_DISCARD"]
    assert closing["sluicegate.uninspected_bytes"] == sum(ledger.counters.uninspected.values())


def test_every_field_and_action_is_documented() -> None:
    ledger = Ledger()
    account = ledger.flow(protocol=Protocol.HTTP1, sni="a.test", alpn=("h2",), tags=["t"])
    account.established()
    for record in EVERY_RECORD:
        account.record(record)
    account.close(FlowOutcome.CLOSED, "done")
    ledger.accounts.refused(Endpoint("::1", 1), "self", "x")
    ledger.accounts.reloaded(Reload(ok=False, problems=("p",)))
    ledger.accounts.service_event("SERVICE_START", version="1")
    ledger.accounts.service_event("SERVICE_STOP", version="1")
    ledger.accounts.service_event("REDIRECT_HEALTH", state="lost", detail="gone")
    text = DOCUMENTATION.read_text()
    documented = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    written = {key for event in ledger.events for key in event}
    actions = {event["event.action"] for event in ledger.events}
    assert written | actions == documented
