"""Head bytes to heads: lines, strict layer, then h11, the parser of record.

A fresh `h11.Connection` per head (its public API; a long-lived one cannot skip bodies), fed
the canonical bytes of that head and nothing else. What is forwarded is what h11 made of
them. Never raises for what the wire holds.

The gate: a head that is canonical as it came, without any finding and without a transfer
coding, is not shown to h11, whose answer is known: the same fields (`_confirm_*` would return
the head it was given; a test holds the two against each other over generated heads). That is
three quarters of a head's cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import h11

from proxy.callouts.http import lines, strict, writer
from proxy.callouts.http.lines import Finding
from proxy.heads import Field, Head, RequestHead, ResponseHead

H = TypeVar("H", bound=Head)

# What h11's client side must have sent before a response can be read. An offer to upgrade is
# always made; whether this client made one is the caller's to judge.
_ASK = h11.Request(
    method=b"GET",
    target=b"/",
    headers=[(b"Host", b"a"), (b"Connection", b"upgrade"), (b"Upgrade", b"a")],
)


@dataclass(frozen=True, slots=True)
class Parsed(Generic[H]):
    """`head` is the canonical reading; None where there is none. Findings in order."""

    head: H | None
    findings: tuple[Finding, ...] = ()


def parse_request(raw: bytes, max_fields: int) -> Parsed[RequestHead]:
    """Read one whole request head, its empty line included."""
    findings: list[Finding] = []
    if not lines.request_is_canonical(raw):
        findings += lines.name_request_faults(raw)
        raw = lines.mend(raw)
        if not lines.request_is_canonical(raw):
            return Parsed(None, tuple(findings))
    start, fields = _split(raw)
    if len(fields) > max_fields:
        findings.append(Finding("http1.too_many_fields", str(len(fields))))
    method, target, version = start.split(b" ")
    found, head = strict.check_request(
        RequestHead(version[5:], fields, method=method, target=target)
    )
    findings += found
    return _confirm_request(head, findings) if findings or _is_coded(head) else Parsed(head)


def parse_response(raw: bytes, max_fields: int) -> Parsed[ResponseHead]:
    """Read one whole response head, its empty line included."""
    findings: list[Finding] = []
    if not lines.response_is_canonical(raw):
        findings += lines.name_response_faults(raw)
        raw = lines.mend(raw)
        if not lines.response_is_canonical(raw):
            return Parsed(None, tuple(findings))
    start, fields = _split(raw)
    if len(fields) > max_fields:
        findings.append(Finding("http1.too_many_fields", str(len(fields))))
    version, status, *reason = start.split(b" ", 2)
    found, head = strict.check_response(
        ResponseHead(version[5:], fields, status=int(status), reason=b"".join(reason))
    )
    findings += found
    return _confirm_response(head, findings) if findings or _is_coded(head) else Parsed(head)


def _is_coded(head: Head) -> bool:
    return any(field.key == b"transfer-encoding" for field in head.fields)


def _split(raw: bytes) -> tuple[bytes, tuple[Field, ...]]:
    start, *rest = raw[:-4].split(b"\r\n")
    fields = []
    for line in rest:
        name, _, value = line.partition(b":")
        fields.append(Field(name, name.lower(), value.strip(b" \t")))
    return start, tuple(fields)


def _confirm_request(head: RequestHead, findings: list[Finding]) -> Parsed[RequestHead]:
    """Let h11 read the canonical bytes; its reading is the one that counts."""
    connection = h11.Connection(h11.SERVER)
    event = _read(connection, writer.write_request(head))
    if not isinstance(event, h11.Request):
        findings = findings or [Finding("http1.request_line", str(event)[:60])]
        return Parsed(None, tuple(findings))
    read = RequestHead(
        event.http_version,
        _fields(event),
        method=event.method,
        target=event.target,
        authority=head.authority,
    )
    return Parsed(read, tuple(findings))


def _confirm_response(head: ResponseHead, findings: list[Finding]) -> Parsed[ResponseHead]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(_ASK)
    event = _read(connection, writer.write_response(head))
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        findings = findings or [Finding("http1.status_line", str(event)[:60])]
        return Parsed(None, tuple(findings))
    read = ResponseHead(
        event.http_version, _fields(event), status=event.status_code, reason=event.reason
    )
    return Parsed(read, tuple(findings))


def _read(connection: h11.Connection, raw: bytes) -> object:
    """The head's event, or the error that h11 has with it."""
    try:
        connection.receive_data(raw)
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        return error


def _fields(event: h11.Request | h11.Response | h11.InformationalResponse) -> tuple[Field, ...]:
    return tuple(
        Field(raw, key, value)
        for (raw, value), (key, _) in zip(event.headers.raw_items(), event.headers, strict=True)
    )
