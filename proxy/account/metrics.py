"""The one list of metrics, and the counters behind it.

Flow code adds to plain integers; what Prometheus reads is built from them at scrape. Labels
come from closed sets only: never a host, a path, an address or a process, so the number of
series does not depend on traffic. `rule` takes the first 500 rule ids by name, `_other` after.

Naming: prometheus.io/docs/practices/naming. INVARIANT: everything here is used on one thread,
the event loop's; only `events_dropped` is asked of something that another thread changes.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.anomalies import ANOMALIES
from proxy.limits import Cause, OnException
from proxy.model import Direction, Layer, Protocol

OTHER = "_other"
NAMED_RULES = 500
VERDICTS = ("permit", "block", "redirect", "redirect_to", "respond", "edit", "tag", "log")
EXCHANGE_OUTCOMES = (
    "forwarded",
    "blocked",
    "redirected",
    "responded",
    "refused",
    "failed",
    "aborted",
)
REFUSALS = ("not_redirected", "no_redirect_info", "self", "loop", "bad_preamble", "overload")
UNINSPECTED = ("permit_ahead", "allow_connection", "exception_open")

_SHADOW = {verdict: f"shadow_{verdict}" for verdict in VERDICTS}
_ENFORCED = {verdict: verdict for verdict in VERDICTS}
_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class FlowOutcome(enum.StrEnum):
    """How a flow ended."""

    CLOSED = "closed"  #: FIN both ways
    RESET = "reset"  #: a peer reset it
    BLOCKED = "blocked"  #: by policy
    REFUSED = "refused"  #: by an exception policy or a guard
    FAILED = "failed"  #: there was no upstream
    TIMEOUT = "timeout"
    DRAINED = "drained"  #: the service was stopping
    ERROR = "error"  #: a fault of the proxy itself


class Histogram:
    """Bucket counts as plain integers; `bounds` in seconds, ascending."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """Cumulative buckets, as the exposition format wants them."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self._sum)


class Counters:
    """Every number that is counted. One per process."""

    def __init__(self) -> None:
        self.flows_open = 0
        self.accept_errors = 0
        self.buffered_bytes = 0  #: set by the service's sweep
        self.bytes = [0, 0]  #: by Direction
        self.flows = {(p.value, o.value): 0 for p in Protocol for o in FlowOutcome}
        self.exchanges = {(Protocol.HTTP1.value, outcome): 0 for outcome in EXCHANGE_OUTCOMES}
        self.decisions: dict[tuple[str, str, str], int] = {}
        self.anomalies = dict.fromkeys((*ANOMALIES, OTHER), 0)
        self.exceptions = {(c.value, a.value): 0 for c in Cause for a in OnException}
        self.uninspected = dict.fromkeys((*UNINSPECTED, OTHER), 0)
        self.detected = {p.value: 0 for p in Protocol}
        self.refusals = dict.fromkeys((*REFUSALS, OTHER), 0)
        self.reloads = {"success": 0, "failure": 0}
        self.generation = 0
        self.reload_ok = 0
        self.reload_success_at = 0.0  #: seconds since the epoch
        self.decision_seconds = Histogram(
            (5e-06, 1e-05, 2.5e-05, 5e-05, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.05)
        )
        self.loop_lag_seconds = Histogram((0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0))
        self.events_dropped: Callable[[], int] = int  #: read at scrape
        self.observe_decision = self.decision_seconds.observe  #: takes seconds
        self.observe_loop_lag = self.loop_lag_seconds.observe  #: takes seconds
        self._rules: dict[str, str] = {}
        self._registry = _registry(self)

    def set_rules(self, rule_ids: Iterable[str]) -> None:
        """Give the rules of a new generation their names; a name once given stays."""
        for rule in rule_ids:
            if len(self._rules) >= NAMED_RULES:
                return
            self._rules.setdefault(rule, rule)

    def decided(self, layer: Layer, verdict: str, rule: str, shadow: bool) -> None:
        """Count a rule that acted; one that only would have counts as `shadow_<verdict>`."""
        word = (_SHADOW if shadow else _ENFORCED).get(verdict, OTHER)
        key = (layer.value, word, self._rules.get(rule, OTHER))
        self.decisions[key] = self.decisions.get(key, 0) + 1

    def flow_ended(self, protocol: Protocol, outcome: FlowOutcome) -> None:
        self.flows_open -= 1
        self.flows[protocol.value, outcome.value] += 1

    def exchange_ended(self, protocol: Protocol, outcome: str) -> None:
        key = (protocol.value, outcome if outcome in EXCHANGE_OUTCOMES else OTHER)
        self.exchanges[key] = self.exchanges.get(key, 0) + 1

    def anomaly(self, anomaly: str) -> None:
        _add(self.anomalies, anomaly, 1)

    def uninspected_bytes(self, reason: str, n: int) -> None:
        _add(self.uninspected, reason, n)

    def refused(self, reason: str) -> None:
        _add(self.refusals, reason, 1)

    def exception(self, cause: Cause, action: OnException) -> None:
        self.exceptions[cause.value, action.value] += 1

    def accept_error(self) -> None:
        self.accept_errors += 1

    def reloaded(self, ok: bool, generation: int, wall: float) -> None:
        """Note a reload; a failed one leaves generation and time of the last good one."""
        self.reloads["success" if ok else "failure"] += 1
        self.reload_ok = int(ok)
        if ok:
            self.generation, self.reload_success_at = generation, wall

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """What a scrape gets, and its Content-Type, as the Accept header's value asks."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _add(counts: dict[str, int], key: str, n: int) -> None:
    counts[key if key in counts else OTHER] += n


def _registry(counters: Counters) -> CollectorRegistry:
    """A registry of our own: the library's global one belongs to nobody."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SluicegateCollector(counters))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class _SluicegateCollector(Collector):
    """The list. Each metric is declared here, once."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[_Family]:
        yield from self._policy()
        yield from self._traffic()
        yield from self._trouble()

    def _policy(self) -> Iterator[_Family]:
        c = self._counters
        build = GaugeMetricFamily(
            "sluicegate_build_info", "Version of the running program; always 1.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily(
            "sluicegate_policy_generation", "Number of the generation in force.", c.generation
        )
        yield GaugeMetricFamily(
            "sluicegate_policy_last_reload_successful",
            "1 if the last reload succeeded, 0 if the generation before it is still in force.",
            c.reload_ok,
        )
        yield GaugeMetricFamily(
            "sluicegate_policy_last_reload_success_timestamp_seconds",
            "When a reload last succeeded, seconds since the epoch.",
            c.reload_success_at,
        )
        yield _one("sluicegate_policy_reload", "Policy reloads.", "result", c.reloads)
        yield _many(
            "sluicegate_decisions",
            "Rules that acted; shadow_<verdict> for those that would have.",
            ["layer", "verdict", "rule"],
            c.decisions.items(),
        )
        yield c.decision_seconds.family(
            "sluicegate_decision_seconds", "Time to decide at one layer, sampled."
        )

    def _traffic(self) -> Iterator[_Family]:
        c = self._counters
        yield GaugeMetricFamily("sluicegate_flows_open", "Flows in work.", c.flows_open)
        yield _many(
            "sluicegate_flows", "Flows that have ended.", ["protocol", "outcome"], c.flows.items()
        )
        yield _many(
            "sluicegate_exchanges",
            "Exchanges that have ended.",
            ["protocol", "outcome"],
            c.exchanges.items(),
        )
        yield _one(
            "sluicegate_bytes",
            "Bytes received from the source of each direction.",
            "direction",
            {direction.label: c.bytes[direction] for direction in Direction},
        )
        yield _one("sluicegate_detected", "Flows recognised.", "protocol", c.detected)
        yield GaugeMetricFamily(
            "sluicegate_buffered_bytes", "Bytes held for callouts.", c.buffered_bytes
        )
        yield c.loop_lag_seconds.family(
            "sluicegate_loop_lag_seconds", "How late the event loop ran a timer."
        )

    def _trouble(self) -> Iterator[_Family]:
        c = self._counters
        yield _one("sluicegate_anomalies", "Protocol irregularities seen.", "anomaly", c.anomalies)
        yield _many(
            "sluicegate_exception_policy",
            "Times an exception policy was applied.",
            ["cause", "action"],
            c.exceptions.items(),
        )
        yield _one(
            "sluicegate_uninspected_bytes",
            "Bytes that passed unseen by callouts.",
            "reason",
            c.uninspected,
        )
        yield _one(
            "sluicegate_refused",
            "Connections refused before they became flows.",
            "reason",
            c.refusals,
        )
        yield CounterMetricFamily(
            "sluicegate_accept_errors", "Errors of accept().", c.accept_errors
        )
        yield CounterMetricFamily(
            "sluicegate_events_dropped", "Event records that were lost.", c.events_dropped()
        )


def _one(name: str, text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _many(
    name: str, text: str, labels: list[str], counts: Iterable[tuple[Sequence[str], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family
