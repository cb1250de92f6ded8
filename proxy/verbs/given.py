"""What `sluicegate explain` is told about an exchange, as a case for `policy.explain_case`."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path

from proxy.errors import SluicegateError
from proxy.heads import Field, RequestHead, ResponseHead
from proxy.model import (
    Confidence,
    Endpoint,
    FlowInfo,
    Principal,
    Protocol,
    RedirectInfo,
)
from proxy.policy.explain_case import Case

_OF_ADDRESS = frozenset({"dst.ip", "original.ip", "ip_version"})
_PORTS = {"http": 80, "https": 443}
_UNKNOWN_CLIENT = Endpoint("0.0.0.0", 0)


class GivenError(SluicegateError):
    """What was given cannot be an exchange; the message says what and why."""


def read_case(arguments: argparse.Namespace) -> Case:
    """The case that the arguments describe. Raises GivenError."""
    scheme, authority, target = _split(arguments.url)
    protocol = _protocol(arguments, scheme)
    unknown: set[str] = set()
    info = FlowInfo(
        id="-",
        redirect=_redirect(arguments, scheme, authority, unknown),
        opened_at=0.0,
        protocol=protocol,
        sni=arguments.sni or (_host(authority) if protocol is Protocol.TLS else None),
        alpn=tuple(arguments.alpn),
        tags=list(arguments.tag),
    )
    http = protocol is Protocol.HTTP1 and bool(arguments.url)
    body = _content(arguments.body)
    response, response_body = _response(arguments), _content(arguments.response_body)
    return Case(
        flow=info,
        wall=_wall(arguments.time),
        request=_request(arguments, authority, target, body) if http else None,
        response=response,
        request_body=body,
        response_body=response_body,
        sniffed=_sniffed(response, response_body),
        reauthorize=arguments.reauthorize,
        unknown=frozenset(unknown),
        unknown_of_response=frozenset(unknown),
    )


# --- the connection


def _split(url: str | None) -> tuple[str, str, str]:
    """Scheme, authority and target of a URL; without one a connection that carries nothing."""
    if not url:
        return "", "", ""
    scheme, mark, rest = url.partition("://")
    scheme = scheme.lower() if mark else "http"
    if scheme not in _PORTS:
        raise GivenError(f"--url: {url!r}: expected http:// or https://")
    rest = (rest if mark else url).partition("#")[0]
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, target = rest[:cut].rpartition("@")[2], rest[cut:]
    if not authority:
        raise GivenError(f"--url: {url!r} names no host")
    return scheme, authority, target if target.startswith("/") else "/" + target


def _protocol(arguments: argparse.Namespace, scheme: str) -> Protocol:
    if arguments.protocol:
        return Protocol(arguments.protocol)
    if scheme == "https" or arguments.sni or arguments.alpn:
        return Protocol.TLS
    return Protocol.HTTP1 if scheme else Protocol.UNKNOWN


def _host(authority: str) -> str:
    return _endpoint("--url", authority, 0).host


def _endpoint(what: str, text: str, port: int | None = None) -> Endpoint:
    """ADDRESS:PORT; the port may be left out where there is another to take."""
    try:
        return Endpoint.parse(text)
    except ValueError as error:
        if port is None:
            raise GivenError(f"{what}: {error}") from None
    try:
        return Endpoint.parse(f"{text}:{port}")
    except ValueError as error:
        raise GivenError(f"{what}: {error}") from None


def _redirect(
    arguments: argparse.Namespace, scheme: str, authority: str, unknown: set[str]
) -> RedirectInfo:
    """What is not given is unknown, never absent: a rule that denies must not be missed."""
    destination, name = _destination(arguments, scheme, authority, unknown)
    client = _endpoint("--client", arguments.client) if arguments.client else _UNKNOWN_CLIENT
    if not arguments.client:
        unknown |= {"client.ip", "client.port"}
    if not arguments.provider:
        unknown |= {"provider", "redirected"}
    address = destination.ip
    if not arguments.loopback and (address is None or not address.is_loopback):
        unknown.add("loopback")
    return RedirectInfo(
        provider=arguments.provider or "unknown",
        original_dst=destination,
        client=client,
        dst_name=name,
        principal=_principal(arguments),
        explicit=arguments.provider == "explicit",
        loopback=True if arguments.loopback else None,
    )


def _destination(
    arguments: argparse.Namespace, scheme: str, authority: str, unknown: set[str]
) -> tuple[Endpoint, str | None]:
    """The original destination, and the name that an explicit client asked for.

    A name in the URL says nothing of the address. It is dst.host only where the client asked
    the proxy for it.
    """
    explicit = arguments.provider == "explicit"
    asked = _endpoint("--url", authority, _PORTS[scheme]) if scheme else None
    if arguments.dst:
        destination = _endpoint("--dst", arguments.dst)
        named = asked.host if explicit and asked is not None and asked.ip is None else None
        return destination, named
    if asked is None:
        unknown |= {*_OF_ADDRESS, "dst.port", "original.port", "dst.host"}
        return Endpoint("0.0.0.0", 0), None
    if asked.ip is not None or explicit:
        return asked, None
    unknown |= _OF_ADDRESS if arguments.provider else {*_OF_ADDRESS, "dst.host"}
    return Endpoint("0.0.0.0", asked.port), None


def _principal(arguments: argparse.Namespace) -> Principal:
    given = {
        "exe": arguments.app,
        "user": arguments.user,
        "uid": arguments.uid,
        "pid": arguments.pid,
        "cgroup": arguments.cgroup,
        "container": arguments.container,
        "comm": arguments.comm,
        "package": arguments.package,
    }
    known = {name: value for name, value in given.items() if value is not None}
    confidence = arguments.confidence or (Confidence.EXACT if known else Confidence.NONE)
    return Principal(confidence=Confidence(confidence), **known)


def _wall(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise GivenError(f"--time: {text!r} is not a time such as 2026-11-23T12:00") from None


# --- the messages


def _request(
    arguments: argparse.Namespace, authority: str, target: str, body: bytes | None
) -> RequestHead:
    fields = _fields("--header", arguments.header)
    if not any(field.key == b"host" for field in fields):
        host = authority.encode("utf-8")
        fields = (Field(b"Host", b"host", host), *fields)
    method = arguments.method or ("GET" if body is None else "POST")
    return RequestHead(
        b"1.1",
        _with_length(fields, body),
        method=method.encode("utf-8"),
        target=target.encode("utf-8"),
    )


def _response(arguments: argparse.Namespace) -> ResponseHead | None:
    body = _content(arguments.response_body)
    if arguments.status is None and not arguments.response_header and body is None:
        return None
    fields = _fields("--response-header", arguments.response_header)
    return ResponseHead(b"1.1", _with_length(fields, body), status=arguments.status or 200)


def _fields(what: str, lines: list[str]) -> tuple[Field, ...]:
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise GivenError(f"{what}: {line!r}: write NAME:VALUE")
        raw = name.strip().encode("utf-8")
        found.append(Field(raw, raw.lower(), value.strip().encode("utf-8")))
    return tuple(found)


def _with_length(fields: tuple[Field, ...], body: bytes | None) -> tuple[Field, ...]:
    """A body has a length, unless the fields say how it is framed (RFC 9112 6.3)."""
    framed = any(f.key in (b"content-length", b"transfer-encoding") for f in fields)
    if body is None or framed:
        return fields
    length = str(len(body)).encode("ascii")
    return (*fields, Field(b"Content-Length", b"content-length", length))


def _content(text: str | None) -> bytes | None:
    if text is None or not text.startswith("@"):
        return None if text is None else text.encode("utf-8")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise GivenError(f"{text[1:]}: {error.strerror or error}") from None


def _sniffed(response: ResponseHead | None, body: bytes | None) -> str | None:
    if response is None or body is None:
        return None
    from proxy.content.sniff import sniff
    from proxy.limits import Limits

    return sniff(body[: Limits().sniff_bytes], response.content_type)
