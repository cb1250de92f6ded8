"""Event records: what each one says, under the names of deploy/events.md.

Flat, dotted keys; ECS and OpenTelemetry names where they have one, `sluicegate.` for ours.
`event.action` carries the names of WFP's net events. Everything that a peer may choose goes
through `printable`; bodies, header values, cookies and user information are never written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from proxy.account.escape import printable
from proxy.limits import OnException
from proxy.model import FlowInfo, Principal, Protocol, RedirectInfo
from proxy.records import (
    AnomalySeen,
    Decided,
    Detected,
    Discarded,
    ExceptionApplied,
    ExchangeEnded,
)

SCHEMA = "sluicegate.event/1"
REDACTED = "[redacted]"
_PATH, _NAME, _LINE, _SHORT = 2048, 255, 1024, 128  # characters kept of each kind of text

Event = dict[str, Any]

_NETWORK_PROTOCOL = {
    Protocol.HTTP1: "http",
    Protocol.HTTP2: "http",
    Protocol.TLS: "tls",
    Protocol.SSH: "ssh",
    Protocol.SMTP: "smtp",
}
_WITH_EXCHANGES = frozenset({Protocol.HTTP1})
_NOT_FORWARDED = frozenset({"block", "redirect"})
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")


def event(wall: float, action: str, outcome: str, *, alert: bool = False) -> Event:
    """The head of every record. `wall` is seconds since the epoch."""
    return {
        "@timestamp": timestamp(wall),
        "schema": SCHEMA,
        "event.kind": "alert" if alert else "event",
        "event.action": action,
        "event.outcome": outcome,
    }


def timestamp(wall: float) -> datetime:
    return datetime.fromtimestamp(wall, UTC)


def nanoseconds(seconds: float) -> int:
    """ECS wants event.duration in nanoseconds."""
    return round(seconds * 1e9)


def flow_context(info: FlowInfo) -> Event:
    """The fields that every record of a flow shares."""
    fields: Event = {"sluicegate.flow.id": info.id, "network.transport": "tcp"}
    if info.protocol in _NETWORK_PROTOCOL:
        fields["network.protocol"] = _NETWORK_PROTOCOL[info.protocol]
    fields["sluicegate.protocol"] = info.protocol.value
    _add_redirect(fields, info.redirect)
    _add_principal(fields, info.redirect.principal)
    return fields


def _add_redirect(fields: Event, redirect: RedirectInfo) -> None:
    fields["sluicegate.provider"] = redirect.provider
    fields["source.ip"] = redirect.client.host
    fields["source.port"] = redirect.client.port
    destination, name = redirect.original_dst, redirect.dst_name
    if (there := redirect.redirect_to) is not None:
        fields["destination.nat.ip"], fields["destination.nat.port"] = there.host, there.port
    address = destination.ip
    if address is None:
        name = destination.host
    else:
        fields["network.type"] = f"ipv{address.version}"
        fields["destination.ip"] = destination.host
    fields["destination.port"] = destination.port
    if name:
        fields["destination.domain"] = printable(name, _NAME)


def _add_principal(fields: Event, principal: Principal) -> None:
    """None means unknown: the field is left out."""
    started = principal.process_start
    known = {
        "process.pid": principal.pid,
        "process.start": None if started is None else timestamp(started),
        "process.executable": _known(principal.program, _PATH),
        "process.name": _known(principal.name),
        "user.id": None if principal.uid is None else str(principal.uid),
        "user.name": _known(principal.user),
        "container.id": _known(principal.container),
        "sluicegate.principal.cgroup": _known(principal.cgroup, _PATH),
        "sluicegate.principal.package": _known(principal.package),
        "sluicegate.principal.deleted": principal.deleted or None,
        "sluicegate.principal.confidence": principal.confidence.value,
    }
    fields.update((key, value) for key, value in known.items() if value is not None)


def _known(text: str | None, limit: int = _NAME) -> str | None:
    return printable(text, limit) if text else None


# --- one function per kind of record -------------------------------------------------------


def builders(queries: bool) -> dict[type, Callable[[float, Event, Any], Event | None]]:
    """By type of record. Uninspected bytes are told in the flow's record only."""
    return {
        Decided: decided,
        Detected: detected,
        AnomalySeen: anomaly,
        Discarded: discarded,
        ExceptionApplied: exception,
        ExchangeEnded: partial(exchange, queries=queries),
    }


def decided(wall: float, context: Event, record: Decided) -> Event:
    """CLASSIFY_DROP if the rule kept traffic from going on, else CLASSIFY_ALLOW."""
    denies = record.verdict in _NOT_FORWARDED
    dropped = denies and not record.shadow
    fields = event(
        wall,
        "CLASSIFY_DROP" if dropped else "CLASSIFY_ALLOW",
        "failure" if dropped else "success",
        alert=denies,
    )
    fields.update(context)
    fields["sluicegate.layer"] = record.layer.value
    fields["sluicegate.sublayer"] = record.sublayer
    fields["sluicegate.verdict"] = record.verdict
    fields["sluicegate.shadow"] = record.shadow
    fields["sluicegate.severity"] = record.severity
    fields["sluicegate.policy.generation"] = record.generation
    fields["rule.id"] = record.rule
    fields["rule.ruleset"] = record.policy
    if record.veto:
        fields["sluicegate.veto"] = True
    if record.reauthorize:
        fields["sluicegate.reauthorize"] = True
    if record.tags:
        fields["tags"] = record.tags
    return _finish(fields, record.exchange, record.detail)


def detected(wall: float, context: Event, record: Detected) -> Event | None:
    """None for a protocol with exchanges: the first of them tells it."""
    if record.protocol in _WITH_EXCHANGES:
        return None
    fields = event(wall, "DETECTED", "success")
    fields.update(context)
    add_tls(fields, record.sni, record.alpn)
    return fields


def add_tls(fields: Event, sni: str | None, alpn: tuple[str, ...]) -> None:
    """What a ClientHello named, where there was one."""
    if sni:
        fields["tls.client.server_name"] = printable(sni, _NAME)
    if alpn:
        fields["sluicegate.tls.alpn"] = [printable(name, _SHORT) for name in alpn[:16]]


def anomaly(wall: float, context: Event, record: AnomalySeen) -> Event:
    refused = record.action == "refuse"
    fields = event(wall, "ANOMALY", "failure" if refused else "success", alert=True)
    fields.update(context)
    fields["sluicegate.anomaly"] = record.anomaly
    fields["sluicegate.anomaly.action"] = record.action
    fields["network.direction"] = record.direction.label
    return _finish(fields, record.exchange, record.detail)


def discarded(wall: float, context: Event, record: Discarded) -> Event:
    fields = event(wall, "STREAM_DISCARD", "success")
    fields.update(context)
    fields["network.direction"] = record.direction.label
    fields["sluicegate.discarded_bytes"] = record.bytes
    fields["sluicegate.callout"] = record.callout
    return fields


def exception(wall: float, context: Event, record: ExceptionApplied) -> Event:
    closed = record.action is OnException.CLOSED
    fields = event(wall, "EXCEPTION_POLICY", "failure" if closed else "success", alert=True)
    fields.update(context)
    fields["sluicegate.exception.cause"] = record.cause.value
    fields["sluicegate.exception.action"] = record.action.value
    if record.callout:
        fields["sluicegate.callout"] = record.callout
    return _finish(fields, None, record.detail)


def exchange(wall: float, context: Event, record: ExchangeEnded, *, queries: bool) -> Event:
    """One request and its response; `queries`: whether the query may be written."""
    outcome = "success" if record.outcome == "forwarded" else "failure"
    fields = event(wall, "EXCHANGE", outcome)
    fields.update(context)
    fields["event.start"] = timestamp(wall - record.seconds)
    fields["event.duration"] = nanoseconds(record.seconds)
    fields["sluicegate.outcome"] = record.outcome
    fields["sluicegate.policy.generation"] = record.generation
    _add_request(fields, record, queries)
    _add_response(fields, record)
    if record.rule is not None:
        fields["rule.id"] = record.rule
    add_lists(
        fields,
        ("sluicegate.rules", record.rules),
        ("sluicegate.shadow_rules", record.shadow_rules),
        ("sluicegate.edits", record.edits),
        ("tags", record.tags),
    )
    return _finish(fields, record.number, record.detail)


def _add_request(fields: Event, record: ExchangeEnded, queries: bool) -> None:
    if record.version:
        fields["http.version"] = printable(record.version, 16)
    if record.method:
        fields["http.request.method"] = printable(record.method, _SHORT)
    if record.host:
        fields["url.domain"] = printable(record.host.rpartition("@")[2], _NAME)
    fields.update(url_fields(record.target, queries))
    fields["http.request.body.bytes"] = record.request_bytes
    if record.request_content_type:
        fields["http.request.mime_type"] = printable(record.request_content_type, _SHORT)
    if record.user_agent:
        fields["user_agent.original"] = printable(record.user_agent, 512)


def _add_response(fields: Event, record: ExchangeEnded) -> None:
    if record.status is not None:
        fields["http.response.status_code"] = record.status
    if record.upstream_status is not None:
        fields["sluicegate.upstream_status"] = record.upstream_status
    fields["http.response.body.bytes"] = record.response_bytes
    if record.response_content_type:
        fields["http.response.mime_type"] = printable(record.response_content_type, _SHORT)


def url_fields(target: bytes, queries: bool) -> Event:
    """Path and query of a request target (RFC 9112 3.2), without authority.

    The query goes in only when `queries`; else its presence alone is told.
    """
    scheme = _SCHEME.match(target)
    if scheme:
        authority = re.match(rb"[^/?#]*", target[scheme.end() :])
        skip = scheme.end() + (authority.end() if authority else 0)
        target = target[skip:] if target[skip:].startswith(b"/") else b"/" + target[skip:]
    if not target:
        return {}
    # A target in authority-form may hold user information (RFC 9110 4.2.4).
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/"):
        path = path.rpartition(b"@")[2]
    fields = {"url.path": printable(path, _PATH)}
    if mark:
        fields["url.query"] = printable(query, _PATH) if queries else REDACTED
    return fields


def add_lists(fields: Event, *lists: tuple[str, tuple[str, ...]]) -> None:
    """Those that are not empty."""
    fields.update((key, values) for key, values in lists if values)


def _finish(fields: Event, number: int | None, detail: str) -> Event:
    if number is not None:
        fields["sluicegate.exchange"] = number
    if detail:
        fields["message"] = printable(detail, _LINE)
    return fields
