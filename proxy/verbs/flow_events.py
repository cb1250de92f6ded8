"""The event records of one flow: found in a file of JSON lines, and read back as facts.

Field names are those of deploy/events.md. Records leave out much on purpose (header values,
cookies, bodies, queries), so what a rule would need of that is unknown here, never absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from proxy.account.escape import ELLIPSIS
from proxy.account.events import REDACTED
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import Confidence, Endpoint, FlowInfo, Principal, Protocol, RedirectInfo
from proxy.policy import ast
from proxy.policy.explain import Source
from proxy.policy.explain_case import Case
from proxy.verbs.given import GivenError

Event = dict[str, Any]

_LONGEST_LINE = 1 << 20
_MOST = 10_000  #: records of one flow that are kept
_OF_THE_SERVICE = ("POLICY_RELOAD", "SERVICE_START")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_WITH_NAME = ("header", "request.header", "response.header")
_KNOWN_OF_REQUEST = frozenset({"host", "user-agent"})


@dataclass(slots=True)
class FlowRecords:
    """`events` in the order of the file; `generation` in force at the end of the file."""

    events: list[Event] = field(default_factory=list)
    generation: int | None = None
    restarted: bool = False  #: the service was started again after the flow
    unread: int = 0  #: lines that are not records

    @property
    def exchanges(self) -> list[Event]:
        return [event for event in self.events if event.get("event.action") == "EXCHANGE"]


def read_flow(path: Path, flow: str) -> FlowRecords:
    """All records of a flow. Raises GivenError for a file that cannot be read."""
    found = FlowRecords()
    wanted = [flow.encode("utf-8"), *(action.encode("ascii") for action in _OF_THE_SERVICE)]
    try:
        with path.open("rb") as lines:
            while line := lines.readline(_LONGEST_LINE):
                if any(text in line for text in wanted):
                    _take(found, line, flow)
    except OSError as error:
        raise GivenError(f"{path}: {error.strerror or error}") from None
    return found


def _take(found: FlowRecords, line: bytes, flow: str) -> None:
    try:
        event = json.loads(line)
    except ValueError:  # also what is not UTF-8
        found.unread += 1
        return
    if not isinstance(event, dict):
        found.unread += 1
    elif event.get("sluicegate.flow.id") == flow:
        if len(found.events) < _MOST:
            found.events.append(event)
        _note_generation(found, event)
    elif event.get("event.action") in _OF_THE_SERVICE:
        _note_generation(found, event)
        found.restarted |= bool(found.events) and event["event.action"] == "SERVICE_START"


def _note_generation(found: FlowRecords, event: Event) -> None:
    number = event.get("sluicegate.policy.generation")
    if isinstance(number, int):
        found.generation = number


# --- facts ---------------------------------------------------------------------------------


def case_of(event: Event, sources: Iterable[Source]) -> Case:
    """What a record of a flow says of it and, an EXCHANGE, of its messages.

    `sources`: the rules that will be asked; what they test and no record holds is unknown.
    """
    flow = _flow(event)
    request = _request(event) if event.get("event.action") == "EXCHANGE" else None
    response = _response(event) if request is not None else None
    named = {test.arg.lower() for test in _tests(sources) if test.field in _WITH_NAME and test.arg}
    unknown = {"cookie", "content_length", *_open_target(event)}
    if "destination.ip" not in event:
        unknown.add("dst.ip")
    hidden = named - _KNOWN_OF_REQUEST
    if _cut(event.get("user_agent.original")):
        hidden.add("user-agent")
    of_request = {f"request.header.{name}" for name in hidden}
    of_response = {f"{kind}.{name}" for name in named for kind in ("header", "response.header")}
    return Case(
        flow=flow,
        wall=_time(event),
        request=request,
        response=response,
        unknown=frozenset(unknown | of_request | {f"header.{name}" for name in hidden}),
        unknown_of_response=frozenset(
            unknown | of_request | of_response | {"content_type.sniffed"}
        ),
    )


def _tests(sources: Iterable[Source]) -> Iterable[ast.Test]:
    for source in sources:
        for condition in (source.rule.when, source.rule.unless):
            yield from _tests_in(condition)


def _tests_in(condition: ast.Condition | None) -> Iterable[ast.Test]:
    match condition:
        case ast.Test():
            yield condition
        case ast.Not():
            yield from _tests_in(condition.part)
        case ast.All() | ast.AnyOf():
            for part in condition.parts:
                yield from _tests_in(part)


def _flow(event: Event) -> FlowInfo:
    address = event.get("destination.ip") or event.get("destination.domain") or "0.0.0.0"
    name = event.get("destination.domain")
    return FlowInfo(
        id=str(event.get("sluicegate.flow.id", "")),
        redirect=RedirectInfo(
            provider=str(event.get("sluicegate.provider", "unknown")),
            original_dst=Endpoint(str(address), _number(event, "destination.port")),
            client=Endpoint(str(event.get("source.ip", "0.0.0.0")), _number(event, "source.port")),
            dst_name=None if name is None else str(name),
            principal=_principal(event),
            redirect_to=_redirected(event),
        ),
        opened_at=0.0,
        protocol=_protocol(event),
        sni=event.get("tls.client.server_name"),
        alpn=tuple(event.get("sluicegate.tls.alpn", ())),
    )


def _redirected(event: Event) -> Endpoint | None:
    address = event.get("destination.nat.ip")
    if address is None:
        return None
    return Endpoint(str(address), _number(event, "destination.nat.port"))


def _number(event: Event, key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0


def _protocol(event: Event) -> Protocol:
    try:
        return Protocol(event.get("sluicegate.protocol", "unknown"))
    except ValueError:
        return Protocol.UNKNOWN  # a later version's


def _principal(event: Event) -> Principal:
    uid, confidence = str(event.get("user.id", "")), event.get("sluicegate.principal.confidence")
    path, deleted = event.get("process.executable"), event.get("sluicegate.principal.deleted")
    return Principal(
        pid=event.get("process.pid"),
        exe=_text(f"{path} (deleted)" if path and deleted else path),
        comm=_text(event.get("process.name")),
        package=_text(event.get("sluicegate.principal.package")),
        uid=int(uid) if uid.isdigit() else None,
        user=_text(event.get("user.name")),
        cgroup=_text(event.get("sluicegate.principal.cgroup")),
        container=_text(event.get("container.id")),
        confidence=Confidence(confidence) if confidence in set(Confidence) else Confidence.NONE,
    )


def _time(event: Event) -> float:
    """When it began; a record without a time is not one of ours."""
    text = event.get("event.start") or event.get("@timestamp")
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _request(event: Event) -> RequestHead | None:
    if "http.request.method" not in event:
        return None
    fields = [("Host", event.get("url.domain")), ("User-Agent", event.get("user_agent.original"))]
    fields.append(("Content-Type", event.get("http.request.mime_type")))
    target = octets(str(event.get("url.path", "")))
    query = event.get("url.query")
    if query is not None and query != REDACTED:
        target += b"?" + octets(str(query))
    return RequestHead(
        octets(str(event.get("http.version", "1.1"))),
        _fields(fields),
        method=octets(str(event["http.request.method"])),
        target=target,
    )


def _response(event: Event) -> ResponseHead | None:
    """What the upstream answered: that is what the rules saw."""
    status = event.get("sluicegate.upstream_status")
    if not isinstance(status, int):
        return None
    fields = _fields([("Content-Type", event.get("http.response.mime_type"))])
    return ResponseHead(b"1.1", fields, status=status)


def _fields(pairs: Iterable[tuple[str, object]]) -> tuple[Field, ...]:
    return tuple(
        Field(name.encode("ascii"), name.lower().encode("ascii"), octets(str(value)))
        for name, value in pairs
        if value is not None
    )


def _open_target(event: Event) -> set[str]:
    query, path = event.get("url.query"), event.get("url.path")
    found: set[str] = set()
    if query == REDACTED or _cut(query):
        found |= {"query", "url"}
    if _cut(path):
        found |= {"path", "url"}
    return found


def _cut(text: object) -> bool:
    return isinstance(text, str) and text.endswith(ELLIPSIS)


def _text(value: object) -> str | None:
    """As the provider told it: octets that are not UTF-8 as os.fsdecode has them."""
    if value is None:
        return None
    return octets(str(value)).decode("utf-8", "surrogateescape")


def octets(text: str) -> bytes:
    """Undo `proxy.account.escape.printable`."""

    def unescaped(match: re.Match[str]) -> str:
        byte, *wide = match.groups()
        if byte is not None:
            code = int(byte, 16)
            return chr(code if code < 0x80 else 0xDC00 + code)  # a byte that was not UTF-8
        code = next((int(digits, 16) for digits in wide if digits), ord("\\"))
        return chr(code) if code <= 0x10FFFF else "\ufffd"

    return _ESCAPE.sub(unescaped, text).encode("utf-8", "surrogateescape")
