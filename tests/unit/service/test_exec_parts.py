"""The parts of `sluicegate exec` that need no privileges: paths, variables, sums."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.account.sinks import MemorySink
from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.service import exec_cgroup
from proxy.service.exec import ways_of
from proxy.service.exec_environment import proxy_environment
from proxy.service.exec_summary import Tally, summary_lines


def test_a_cgroup_outside_of_our_namespace_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_cgroup.cgroups, "path_of", lambda: "/../other")
    with pytest.raises(RedirectError, match="outside of this cgroup namespace"):
        exec_cgroup.locate()


def test_the_ways_in_from_best_to_least() -> None:
    assert ways_of("auto")[-2:] == ("nft", "env")
    assert ways_of("nft") == ("nft",)
    assert ways_of("env") == ("env",)


def test_variables_for_a_proxy() -> None:
    told = proxy_environment(Endpoint("127.0.0.1", 3128), include_loopback=False)
    assert told["http_proxy"] == told["HTTPS_PROXY"] == told["ALL_PROXY"] == "http://127.0.0.1:3128"
    assert "127.0.0.1" in told["no_proxy"]
    assert proxy_environment(Endpoint("::1", 1), include_loopback=True)["NO_PROXY"] == ""


def record(action: str, **fields: Any) -> dict[str, Any]:
    return {"event.action": action, **{k.replace("__", "."): v for k, v in fields.items()}}


def flow(port: int, outcome: str = "closed", **fields: Any) -> dict[str, Any]:
    return record(
        "ENDPOINT_CLOSURE",
        sluicegate__outcome=outcome,
        sluicegate__protocol="http1",
        source__bytes=10,
        destination__bytes=100,
        sluicegate__uninspected_bytes=3,
        destination__ip="192.0.2.1",
        destination__port=port,
        **fields,
    )


def decided(rule: str, verdict: str, *, shadow: bool = False) -> dict[str, Any]:
    return record(
        "CLASSIFY_DROP",
        rule__id=rule,
        sluicegate__layer="http_request",
        sluicegate__verdict=verdict,
        sluicegate__shadow=shadow,
    )


def test_what_was_seen_is_summed_up_and_passed_on() -> None:
    sink = MemorySink()
    tally = Tally(sink)
    seen = [
        flow(80, process__executable="/usr/bin/curl"),
        flow(80, "blocked"),
        record("EXCHANGE", sluicegate__outcome="forwarded", sluicegate__edits=["headers"]),
        record("EXCHANGE", sluicegate__outcome="blocked"),
        decided("no-admin", "block"),
        decided("no-admin", "block"),
        decided("trial", "block", shadow=True),
        record("CLASSIFY_DROP", sluicegate__reason="not_redirected"),
        record("ANOMALY", sluicegate__anomaly="http1.te_and_cl"),
        record(
            "EXCEPTION_POLICY",
            sluicegate__exception__cause="undecided",
            sluicegate__exception__action="closed",
        ),
        record("SERVICE_STOP"),
    ]
    for event in seen:
        tally.put(event)
    assert sink.events == seen
    assert summary_lines(tally) == [
        "connections  2 (closed 1, blocked 1); 20 bytes out, 200 in",
        "exchanges    2 (forwarded 1, blocked 1)",
        "rule         no-admin (http_request): block, 2 times",
        "rule         trial (http_request): would have been block, once",
        "edits        headers 1",
        "to           192.0.2.1 port 80 2",
        "from         /usr/bin/curl 1",
        "refused      not_redirected 1",
        "anomalies    http1.te_and_cl 1",
        "exceptions   undecided: closed 1",
        "uninspected  6 bytes passed without being looked into",
    ]
    assert tally.as_dict()["rules"][0] == {
        "rule": "no-admin",
        "layer": "http_request",
        "verdict": "block",
        "shadow": False,
        "hits": 2,
    }


def test_sums_do_not_grow_with_what_is_visited() -> None:
    tally = Tally()
    for port in range(1, 1500):
        tally.put(flow(port))
    assert len(tally.destinations) == 1001
    assert tally.destinations["(others)"] == 499
