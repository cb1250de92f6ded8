"""The event records of a flow told to people: one line each. Fields: deploy/events.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from proxy.verbs.output import GREY, RED, YELLOW, paint

Event = dict[str, Any]
_UPSTREAM = "sluicegate.upstream_status"


def headline(event: Event) -> str:
    """Who, where to, as what."""
    client = f"{event.get('source.ip', '?')}:{event.get('source.port', '?')}"
    where = event.get("destination.ip") or event.get("destination.domain") or "?"
    name = event.get("destination.domain")
    named = f" ({name})" if name and name != where else ""
    sni = event.get("tls.client.server_name")
    shown = f", server name {sni}" if sni else ""
    return (
        f"flow {event.get('sluicegate.flow.id')}: {client} to"
        f" {where}:{event.get('destination.port', '?')}{named}, {_protocol(event)}{shown},"
        f" {_program(event)}, by provider {event.get('sluicegate.provider', '?')}"
    )


def _protocol(event: Event) -> str:
    return str(event.get("sluicegate.protocol", "unknown"))


def _program(event: Event) -> str:
    keys = {
        "process.executable": "",
        "process.pid": "pid ",
        "user.name": "user ",
        "user.id": "uid ",
    }
    known = [f"{word}{event[key]}" for key, word in keys.items() if key in event]
    if not known:
        return "program not known"
    return ", ".join(known) + f" ({event.get('sluicegate.principal.confidence', 'none')})"


def line(event: Event) -> str:
    """One record: when, what, and what matters of it."""
    action = str(event.get("event.action", "?"))
    told = ", ".join(piece for piece in _PIECES.get(action, _other)(event) if piece)
    failed = event.get("event.outcome") == "failure"
    colour = RED if failed else YELLOW if event.get("event.kind") == "alert" else ""
    shown = f"{action:17}"
    when = str(event.get("@timestamp", ""))
    return f"{paint(GREY, when)}  {paint(colour, shown) if colour else shown} {told}"


def _decision(event: Event) -> Iterable[str]:
    shadow = "would " if event.get("sluicegate.shadow") else ""
    yield f"{event.get('sluicegate.layer', '?')}: {shadow}{event.get('sluicegate.verdict', '?')}"
    if "rule.id" in event:
        yield f"rule {event['rule.id']} of {event.get('rule.ruleset', '?')}"
        yield f"generation {event.get('sluicegate.policy.generation', '?')}"
    if event.get("sluicegate.veto"):
        yield "a veto"
    yield from _common(event)


def _exchange(event: Event) -> Iterable[str]:
    method, host = event.get("http.request.method", "?"), event.get("url.domain", "")
    query = f"?{event['url.query']}" if "url.query" in event else ""
    yield f"{method} http://{host}{event.get('url.path', '')}{query}"
    status, upstream = (event.get(k) for k in ("http.response.status_code", _UPSTREAM))
    yield f"{event.get('sluicegate.outcome', '?')} with {'-' if status is None else status}"
    if upstream is not None and upstream != status:
        yield f"the server said {upstream}"
    if "rule.id" in event:
        yield f"decided by {event['rule.id']}"
    yield _listed("rules", event.get("sluicegate.rules"))
    yield _listed("shadow rules", event.get("sluicegate.shadow_rules"))
    yield _listed("edits", event.get("sluicegate.edits"))
    yield from _common(event)


def _anomaly(event: Event) -> Iterable[str]:
    yield f"{event.get('sluicegate.anomaly', '?')}: {event.get('sluicegate.anomaly.action', '?')}"
    yield str(event.get("network.direction", ""))
    yield from _common(event)


def _exception(event: Event) -> Iterable[str]:
    cause = event.get("sluicegate.exception.cause", "?")
    yield f"{cause}: {event.get('sluicegate.exception.action', '?')}"
    yield from _common(event)


def _closure(event: Event) -> Iterable[str]:
    yield str(event.get("sluicegate.outcome", "?"))
    yield f"{event.get('source.bytes', 0)} bytes out, {event.get('destination.bytes', 0)} in"
    if "sluicegate.exchanges" in event:
        yield f"exchanges {event['sluicegate.exchanges']}"
    if event.get("sluicegate.uninspected_bytes"):
        yield f"{event['sluicegate.uninspected_bytes']} bytes not inspected"
    yield from _common(event)


def _discard(event: Event) -> Iterable[str]:
    yield f"{event.get('sluicegate.discarded_bytes', '?')} bytes removed"
    yield str(event.get("network.direction", ""))
    yield from _common(event)


def _other(event: Event) -> Iterable[str]:
    yield _protocol(event)
    yield from _common(event)


def _common(event: Event) -> Iterable[str]:
    if "sluicegate.callout" in event:
        yield f"callout {event['sluicegate.callout']}"
    yield _listed("tags", event.get("tags"))
    if "event.duration" in event:
        yield f"{event['event.duration'] / 1e9:.3f} s"
    if "sluicegate.exchange" in event:
        yield f"exchange {event['sluicegate.exchange']}"
    yield str(event.get("message", ""))


def _listed(what: str, names: Iterable[str] | None) -> str:
    return f"{what} {' '.join(names)}" if names else ""


_PIECES: dict[str, Callable[[Event], Iterable[str]]] = {
    "CLASSIFY_ALLOW": _decision,
    "CLASSIFY_DROP": _decision,
    "EXCHANGE": _exchange,
    "ANOMALY": _anomaly,
    "EXCEPTION_POLICY": _exception,
    "STREAM_DISCARD": _discard,
    "ENDPOINT_CLOSURE": _closure,
}
