"""The accounts: every flow's record, every decision's event, and the counters they move.

One Accounts per process, one FlowAccount per flow, both used on the event loop's thread only.
A flow's record is written exactly once, whatever ends it. Nothing here waits: events go into
a bounded queue, counters are integers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from proxy.account import events as ev
from proxy.account.escape import printable
from proxy.account.metrics import Counters, FlowOutcome
from proxy.account.sinks import EventSink
from proxy.limits import Cause, OnException
from proxy.model import Direction, Endpoint, FlowInfo
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

__all__ = ["Accounts", "FlowAccount", "FlowOutcome", "Reloaded"]

_SUCCESS = frozenset({FlowOutcome.CLOSED, FlowOutcome.DRAINED})
_MAX_PROBLEMS = 50  # of one reload, in its event


class Reloaded(Protocol):
    """What the accounts need to know of a reload, whoever did it."""

    @property
    def ok(self) -> bool: ...
    @property
    def generation(self) -> int:
        """The number in force afterwards."""

    @property
    def reason(self) -> str:
        """What asked for it: start, files, signal, admin."""

    @property
    def problems(self) -> Sequence[object]:
        """Each prints as file:line:column: message."""

    @property
    def seconds(self) -> float: ...
    @property
    def wall(self) -> float:
        """Seconds since the epoch."""

    @property
    def rules(self) -> int: ...


class Accounts:
    """`wall` gives seconds since the epoch, `clock` monotonic seconds.

    `queries`: whether query strings may be written into events (off: they carry tokens).
    """

    def __init__(
        self,
        counters: Counters,
        events: EventSink | None,
        wall: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
        queries: bool = False,
    ) -> None:
        self.counters = counters
        self.events = events
        self.wall = wall
        self.clock = clock
        self.builders = ev.builders(queries)

    def open_flow(self, info: FlowInfo) -> FlowAccount:
        self.counters.flows_open += 1
        return FlowAccount(self, info)

    def refused(self, client: Endpoint, reason: str, detail: str) -> None:
        """A connection that was refused before it became a flow."""
        self.counters.refused(reason)
        if self.events is None:
            return
        event = ev.event(self.wall(), "CLASSIFY_DROP", "failure", alert=True)
        event["network.transport"] = "tcp"
        event["source.ip"], event["source.port"] = client.host, client.port
        event["sluicegate.layer"] = "connect_redirect"
        event["sluicegate.verdict"] = "block"
        event["sluicegate.reason"] = reason
        event["message"] = printable(detail)
        self.events.put(event)

    def exception(self, cause: Cause, action: OnException, detail: str = "") -> None:
        """An exception policy was applied outside of any flow."""
        self.counters.exception(cause, action)
        if self.events is not None:
            record = ExceptionApplied(cause, action, detail=detail)
            self.events.put(ev.exception(self.wall(), {}, record))

    def reloaded(self, result: Reloaded) -> None:
        """A reload has succeeded or failed."""
        self.counters.reloaded(result.ok, result.generation, result.wall)
        if self.events is None:
            return
        event = ev.event(
            result.wall, "POLICY_RELOAD", "success" if result.ok else "failure", alert=not result.ok
        )
        event["event.duration"] = ev.nanoseconds(result.seconds)
        event["sluicegate.reason"] = result.reason
        event["sluicegate.policy.generation"] = result.generation
        event["sluicegate.policy.rules"] = result.rules
        if result.problems:
            shown = result.problems[:_MAX_PROBLEMS]
            event["sluicegate.policy.problem_count"] = len(result.problems)
            event["sluicegate.policy.problems"] = [printable(str(problem)) for problem in shown]
        self.events.put(event)

    def service_event(self, kind: str, **fields: str | int | float) -> None:
        """SERVICE_START, SERVICE_STOP and the like; fields are written as `sluicegate.<name>`."""
        if self.events is None:
            return
        event = ev.event(self.wall(), kind, "success")
        for name, value in fields.items():
            event[f"sluicegate.{name}"] = printable(value) if isinstance(value, str) else value
        self.events.put(event)


class FlowAccount:
    """One flow's account."""

    __slots__ = (
        "_accounts",
        "_bytes",
        "_closed",
        "_context",
        "_discarded",
        "_exchanges",
        "_generation",
        "_info",
        "_opened",
        "_protocol",
        "_redirect",
        "_rules",
        "_shadow_rules",
        "_total",
        "_uninspected",
    )

    def __init__(self, accounts: Accounts, info: FlowInfo) -> None:
        self._accounts = accounts
        self._info = info
        self._opened = accounts.clock()
        self._closed = False
        self._bytes = [0, 0]
        self._total = accounts.counters.bytes
        self._uninspected = 0
        self._discarded = 0
        self._exchanges = 0
        self._generation = accounts.counters.generation
        # Dicts for their order: first come, first listed. Bounded by the rules there are.
        self._rules: dict[str, None] = {}
        self._shadow_rules: dict[str, None] = {}
        self._redirect, self._protocol = info.redirect, info.protocol
        self._context = ev.flow_context(info)

    def count(self, direction: Direction, n: int) -> None:
        """n bytes were received from the source of `direction`."""
        self._bytes[direction] += n
        self._total[direction] += n

    def record(self, record: Record) -> None:
        """Count a record of the core and write its event."""
        self._count(record)
        accounts = self._accounts
        build = accounts.builders.get(type(record))
        if accounts.events is None or build is None:
            return
        event = build(accounts.wall(), self._flow_context(), record)
        if event is not None:
            accounts.events.put(event)

    def established(self) -> None:
        """The upstream is connected and no rule objected."""
        self._put("FLOW_ESTABLISHED", "success")

    def close(self, outcome: FlowOutcome, reason: str) -> None:
        """The flow's record. The first call counts, later ones are ignored."""
        if self._closed:
            return
        self._closed = True
        self._accounts.counters.flow_ended(self._info.protocol, outcome)
        fields: ev.Event = {
            "sluicegate.outcome": outcome.value,
            "source.bytes": self._bytes[Direction.OUTBOUND],
            "destination.bytes": self._bytes[Direction.INBOUND],
            "sluicegate.exchanges": self._exchanges,
            "sluicegate.uninspected_bytes": self._uninspected,
            "sluicegate.discarded_bytes": self._discarded,
        }
        ev.add_lists(
            fields,
            ("sluicegate.rules", tuple(self._rules)),
            ("sluicegate.shadow_rules", tuple(self._shadow_rules)),
            ("tags", tuple(self._info.tags)),
        )
        if reason:
            fields["message"] = printable(reason)
        self._put("ENDPOINT_CLOSURE", "success" if outcome in _SUCCESS else "failure", fields)

    def _put(self, action: str, outcome: str, fields: ev.Event | None = None) -> None:
        """A record about the flow itself, with how long it has lived."""
        accounts = self._accounts
        if accounts.events is None:
            return
        event = ev.event(accounts.wall(), action, outcome)
        event.update(self._flow_context())
        event["event.start"] = ev.timestamp(self._info.opened_at)
        event["event.duration"] = ev.nanoseconds(accounts.clock() - self._opened)
        event["sluicegate.policy.generation"] = self._generation
        ev.add_tls(event, self._info.sni, self._info.alpn)
        event.update(fields or {})
        accounts.events.put(event)

    def _flow_context(self) -> ev.Event:
        """The shared fields, made again only when the flow's own facts were replaced."""
        info = self._info
        if self._redirect is not info.redirect or self._protocol is not info.protocol:
            self._redirect, self._protocol = info.redirect, info.protocol
            self._context = ev.flow_context(info)
        return self._context

    def _count(self, record: Record) -> None:
        counters = self._accounts.counters
        match record:
            case Decided():
                counters.decided(record.layer, record.verdict, record.rule, record.shadow)
                (self._shadow_rules if record.shadow else self._rules)[record.rule] = None
                self._generation = record.generation
            case ExchangeEnded():
                counters.exchange_ended(record.protocol, record.outcome)
                self._exchanges += 1
                self._generation = record.generation
            case Detected():
                counters.detected[record.protocol.value] += 1
            case AnomalySeen():
                counters.anomaly(record.anomaly)
            case Discarded():
                self._discarded += record.bytes
            case ExceptionApplied():
                counters.exception(record.cause, record.action)
            case Uninspected():
                counters.uninspected_bytes(record.reason, record.bytes)
                self._uninspected += record.bytes
            case _:
                assert_never(record)
