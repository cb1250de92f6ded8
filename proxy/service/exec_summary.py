"""What was seen, blocked and changed, counted from the event records as they pass by.

The tally stands before the sink, or in its place, and keeps sums only: bounded by the rules,
the closed sets of words, and a maximum of programs and destinations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from proxy.account.sinks import EventSink

_MAX_NAMES = 1000  # programs, destinations; the rest counts as one
_REST = "(others)"


class Tally:
    """An EventSink that counts, and passes on what it gets."""

    def __init__(self, sink: EventSink | None = None) -> None:
        self._sink = sink
        self.flows: Counter[str] = Counter()  #: by outcome
        self.protocols: Counter[str] = Counter()
        self.exchanges: Counter[str] = Counter()  #: by outcome
        self.bytes: Counter[str] = Counter()
        self.rules: Counter[tuple[str, str, str, bool]] = Counter()  #: rule, layer, verdict, shadow
        self.edits: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  #: connections that never became a flow, by reason
        self.anomalies: Counter[str] = Counter()
        self.exceptions: Counter[str] = Counter()
        self.programs: Counter[str] = Counter()  #: flows by executable, where it is known
        self.destinations: Counter[str] = Counter()

    @property
    def dropped(self) -> int:
        return self._sink.dropped if self._sink is not None else 0

    @property
    def problem(self) -> str:
        return self._sink.problem if self._sink is not None else ""

    def reopen(self) -> None:
        if self._sink is not None:
            self._sink.reopen()

    def close(self, timeout: float = 5.0) -> None:
        if self._sink is not None:
            self._sink.close(timeout)

    def put(self, event: Mapping[str, Any]) -> None:
        if self._sink is not None:
            self._sink.put(event)
        match event["event.action"]:
            case "ENDPOINT_CLOSURE":
                self._flow(event)
            case "EXCHANGE":
                self.exchanges[event["sluicegate.outcome"]] += 1
                self.edits.update(event.get("sluicegate.edits", ()))
            case "CLASSIFY_DROP" | "CLASSIFY_ALLOW":
                self._decision(event)
            case "ANOMALY":
                self.anomalies[event["sluicegate.anomaly"]] += 1
            case "EXCEPTION_POLICY":
                cause, action = "sluicegate.exception.cause", "sluicegate.exception.action"
                self.exceptions[f"{event[cause]}: {event[action]}"] += 1

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        plain: dict[str, Any] = {
            name: dict(getattr(self, name))
            for name in (
                *("flows", "protocols", "exchanges", "bytes", "edits", "refused"),
                *("anomalies", "exceptions", "programs", "destinations"),
            )
        }
        plain["rules"] = [
            {"rule": rule, "layer": layer, "verdict": verdict, "shadow": shadow, "hits": hits}
            for (rule, layer, verdict, shadow), hits in self.rules.most_common()
        ]
        return plain

    def _flow(self, event: Mapping[str, Any]) -> None:
        self.flows[event["sluicegate.outcome"]] += 1
        self.protocols[event["sluicegate.protocol"]] += 1
        self.bytes["outbound"] += event["source.bytes"]
        self.bytes["inbound"] += event["destination.bytes"]
        self.bytes["uninspected"] += event["sluicegate.uninspected_bytes"]
        host = event.get("destination.domain") or event.get("destination.ip", "")
        _add(self.destinations, f"{host} port {event['destination.port']}")
        if program := event.get("process.executable"):
            _add(self.programs, program)

    def _decision(self, event: Mapping[str, Any]) -> None:
        if "rule.id" not in event:
            self.refused[event.get("sluicegate.reason", _REST)] += 1
            return
        verdict, shadow = event["sluicegate.verdict"], event["sluicegate.shadow"]
        self.rules[event["rule.id"], event["sluicegate.layer"], verdict, shadow] += 1


def _add(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < _MAX_NAMES else _REST] += 1


def summary_lines(tally: Tally) -> list[str]:
    """For people: one line for each thing that there is something to say about."""
    flows, exchanges = tally.flows.total(), tally.exchanges.total()
    lines = [
        f"connections  {flows}{_listed(tally.flows)}; "
        f"{tally.bytes['outbound']} bytes out, {tally.bytes['inbound']} in",
        f"exchanges    {exchanges}{_listed(tally.exchanges)}",
    ]
    for (rule, layer, verdict, shadow), hits in tally.rules.most_common():
        would = "would have been " if shadow else ""
        lines.append(f"rule         {rule} ({layer}): {would}{verdict}, {_times(hits)}")
    for title, counts in (
        ("edits", tally.edits),
        ("to", tally.destinations),
        ("from", tally.programs),
        ("refused", tally.refused),
        ("anomalies", tally.anomalies),
        ("exceptions", tally.exceptions),
    ):
        if counts:
            lines.append(f"{title:12} {_listed(counts, brackets=False)}")
    if passed := tally.bytes["uninspected"]:
        lines.append(f"uninspected  {passed} bytes passed without being looked into")
    return lines


def _listed(counts: Counter[str], *, brackets: bool = True) -> str:
    told = ", ".join(f"{word} {number}" for word, number in counts.most_common(20))
    return (f" ({told})" if brackets else told) if told else ""


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
