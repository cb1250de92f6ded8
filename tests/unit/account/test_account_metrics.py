"""The exposition: the metrics there are, their labels, and that counting shows in it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from proxy.account.metrics import NAMED_RULES, OTHER, Counters, FlowOutcome
from proxy.anomalies import ANOMALIES
from proxy.limits import Cause, OnException
from proxy.model import Layer, Protocol

# The contract with dashboards and alerts: name -> labels.
PROMISED = {
    "sluicegate_build_info": {"version"},
    "sluicegate_policy_generation": set(),
    "sluicegate_policy_last_reload_successful": set(),
    "sluicegate_policy_last_reload_success_timestamp_seconds": set(),
    "sluicegate_policy_reload_total": {"result"},
    "sluicegate_flows_open": set(),
    "sluicegate_flows_total": {"protocol", "outcome"},
    "sluicegate_exchanges_total": {"protocol", "outcome"},
    "sluicegate_bytes_total": {"direction"},
    "sluicegate_decisions_total": {"layer", "verdict", "rule"},
    "sluicegate_decision_seconds_bucket": {"le"},
    "sluicegate_anomalies_total": {"anomaly"},
    "sluicegate_exception_policy_total": {"cause", "action"},
    "sluicegate_uninspected_bytes_total": {"reason"},
    "sluicegate_detected_total": {"protocol"},
    "sluicegate_refused_total": {"reason"},
    "sluicegate_accept_errors_total": set(),
    "sluicegate_buffered_bytes": set(),
    "sluicegate_events_dropped_total": set(),
    "sluicegate_loop_lag_seconds_bucket": {"le"},
}


def samples(counters: Counters) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and label values, the latter in the alphabetical order of their labels."""
    text = counters.expose()[0].decode()
    return {
        (sample.name, tuple(v for _, v in sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def test_every_promised_metric_is_there_with_its_labels() -> None:
    counters = Counters()
    counters.decided(Layer.STREAM, "block", "r", shadow=False)
    text = counters.expose()[0].decode()
    found = {s.name: set(s.labels) for f in parse_text(text) for s in f.samples}
    ours = {name: labels for name, labels in found.items() if name.startswith("sluicegate_")}
    side = ("_sum", "_count", "_created")
    assert {n: v for n, v in ours.items() if not n.endswith(side)} == PROMISED
    assert "process_resident_memory_bytes" in found


def test_closed_sets_are_there_at_zero() -> None:
    found = samples(Counters())
    for anomaly in ANOMALIES:
        assert found["sluicegate_anomalies_total", (anomaly,)] == 0
    for cause in Cause:
        for action in OnException:
            assert found["sluicegate_exception_policy_total", (action.value, cause.value)] == 0
    for protocol in Protocol:
        for outcome in FlowOutcome:
            assert found["sluicegate_flows_total", (outcome.value, protocol.value)] == 0


def test_rules_beyond_the_first_500_are_other_and_names_stay() -> None:
    counters = Counters()
    counters.set_rules(f"r{i}" for i in range(NAMED_RULES + 1))
    counters.set_rules(["newcomer", "r7"])
    for rule in ("r0", "r500", "newcomer", "r7"):
        counters.decided(Layer.HTTP_REQUEST, "block", rule, shadow=False)
    name = "sluicegate_decisions_total"
    found = {key[1][1]: value for key, value in samples(counters).items() if key[0] == name}
    assert found == {"r0": 1, OTHER: 2, "r7": 1}


def test_shadow_decisions_are_told_apart() -> None:
    counters = Counters()
    counters.set_rules(["r"])
    counters.decided(Layer.HTTP_REQUEST, "block", "r", shadow=True)
    counters.decided(Layer.HTTP_REQUEST, "block", "r", shadow=False)
    found = samples(counters)
    assert found["sluicegate_decisions_total", ("http_request", "r", "shadow_block")] == 1
    assert found["sluicegate_decisions_total", ("http_request", "r", "block")] == 1


def test_words_from_outside_the_closed_sets_make_no_series() -> None:
    counters = Counters()
    before = len(samples(counters))
    for i in range(1000):
        counters.anomaly(f"made.up.{i}")
        counters.refused(f"reason {i}")
        counters.uninspected_bytes(f"reason {i}", 10)
        counters.decided(Layer.STREAM, f"verdict {i}", f"rule {i}", shadow=False)
        counters.exchange_ended(Protocol.HTTP1, f"outcome {i}")
    found = samples(counters)
    assert len(found) - before == 2  # one decision, one exchange, both _other
    assert found["sluicegate_anomalies_total", (OTHER,)] == 1000
    assert found["sluicegate_uninspected_bytes_total", (OTHER,)] == 10_000


def test_a_failed_reload_keeps_generation_and_time_of_the_last_good_one() -> None:
    counters = Counters()
    counters.reloaded(True, 3, 1000.0)
    counters.reloaded(False, 3, 2000.0)
    found = samples(counters)
    assert found["sluicegate_policy_generation", ()] == 3
    assert found["sluicegate_policy_last_reload_successful", ()] == 0
    assert found["sluicegate_policy_last_reload_success_timestamp_seconds", ()] == 1000.0
    assert found["sluicegate_policy_reload_total", ("success",)] == 1
    assert found["sluicegate_policy_reload_total", ("failure",)] == 1


def test_histograms_are_cumulative_and_include_their_bounds() -> None:
    counters = Counters()
    for seconds in (0.001, 0.0011, 60.0):
        counters.observe_loop_lag(seconds)
    found = samples(counters)
    name = "sluicegate_loop_lag_seconds"
    assert found[f"{name}_bucket", ("0.001",)] == 1
    assert found[f"{name}_bucket", ("0.005",)] == 2
    assert found[f"{name}_bucket", ("5.0",)] == 2
    assert found[f"{name}_bucket", ("+Inf",)] == found[f"{name}_count", ()] == 3
    assert found[f"{name}_sum", ()] == pytest.approx(60.0021)


def test_openmetrics_when_asked_for() -> None:
    body, content_type = Counters().expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert {f.name for f in parse_openmetrics(body.decode())} >= {"sluicegate_flows"}


def test_two_processes_worth_of_counters_do_not_share_a_registry() -> None:
    first, second = Counters(), Counters()
    first.accept_error()
    assert samples(first)["sluicegate_accept_errors_total", ()] == 1
    assert samples(second)["sluicegate_accept_errors_total", ()] == 0


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing() -> None:
    counters = Counters()
    counters.set_rules(["a"])
    counters.decided(Layer.AUTH_CONNECT, "block", "a", shadow=False)
    counters.observe_decision(1e-5)
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=counters.expose()[0],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")
