"""Read a condition's field from the facts of a decision: the values it has there.

A read answers with a tuple of values, any of which may satisfy a condition: `()` means absent,
None means unknown. IP fields hold address objects, number fields ints, all others octet
strings: str whose characters are octets, so wire bytes decoded by latin-1, and text from the
system in UTF-8 octets. Fields that compare without case are lower-case here. `path`, `query`
and `url` hold the readings of one value instead (`proxy.policy.paths`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from proxy.heads import Head
from proxy.model import Confidence, Direction, Layer
from proxy.policy.facts import Facts
from proxy.policy.lists import domain, octets, parse_address
from proxy.policy.paths import path_readings, query_readings, url_readings

Values = tuple[Any, ...] | None
Read = Callable[["Scope"], Values]

#: Fields whose values are readings of one thing, not several things.
READINGS = frozenset({"path", "query", "url"})

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MAX_DIGITS = 18


class Scope:
    """One decision in work: its facts, and what was already found out about them."""

    __slots__ = ("facts", "layer", "memo", "tags", "values")

    def __init__(self, layer: Layer, facts: Facts) -> None:
        self.layer = layer
        self.facts = facts
        self.tags: list[str] = []  #: put by rules of this decision
        self.values: dict[str, Any] = {}  #: field as written -> Values
        self.memo: dict[int, bool | None] = {}  #: shared condition -> its value


_MISSING: Any = object()


def reader(field: str, arg: str | None) -> Read:
    """The memoised read of a field. Raises KeyError for a field that is not in FIELDS."""
    read = _WITH_ARG[field](arg or "") if field in _WITH_ARG else _PLAIN[field]
    if field == "tag":
        return read  # changes while rules are evaluated
    written = field if arg is None else f"{field}.{arg.lower() if field != 'cookie' else arg}"

    def fetch(scope: Scope) -> Values:
        values = scope.values.get(written, _MISSING)
        if values is _MISSING:
            unknown = scope.facts.unknown
            gone = bool(unknown) and (field in unknown or written in unknown)
            values = scope.values[written] = None if gone else read(scope)
        found: Values = values
        return found

    return fetch


# --- the connection ------------------------------------------------------------------------


def _dst_ip(scope: Scope) -> Values:
    """Unknown while the destination is a name that was not resolved."""
    address = parse_address(scope.facts.flow.redirect.original_dst.host)
    return None if address is None else (address,)


def _dst_port(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.original_dst.port,)


def _dst_host(scope: Scope) -> Values:
    redirect = scope.facts.flow.redirect
    name = redirect.dst_name
    if name is None and parse_address(redirect.original_dst.host) is None:
        name = redirect.original_dst.host
    return (domain(name),) if name else ()


def _client_ip(scope: Scope) -> Values:
    address = parse_address(scope.facts.flow.redirect.client.host)
    return None if address is None else (address,)


def _client_port(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.client.port,)


def _provider(scope: Scope) -> Values:
    return (octets(scope.facts.flow.redirect.provider),)


def _principal(name: str) -> Read:
    """A principal's attribute is unknown, never absent, when the provider did not tell it."""

    def read(scope: Scope) -> Values:
        principal = scope.facts.flow.redirect.principal
        value = getattr(principal, name)
        if value is None or principal.confidence is Confidence.NONE:
            return None
        return (octets(value) if isinstance(value, str) else value,)

    return read


def _local(scope: Scope) -> datetime:
    now: datetime | None = scope.values.get("#local")
    if now is None:
        now = scope.values["#local"] = datetime.fromtimestamp(scope.facts.wall)
    return now


def _time(scope: Scope) -> Values:
    """Minutes since local midnight."""
    now = _local(scope)
    return (now.hour * 60 + now.minute,)


def _weekday(scope: Scope) -> Values:
    return (WEEKDAYS[_local(scope).weekday()],)


def _tag(scope: Scope) -> Values:
    tags = scope.facts.flow.tags
    return tuple(map(octets, (*tags, *scope.tags))) if tags or scope.tags else ()


def _direction(scope: Scope) -> Values:
    direction = scope.facts.direction
    if direction is None and scope.layer in _MESSAGE:
        request = scope.layer is Layer.HTTP_REQUEST
        direction = Direction.OUTBOUND if request else Direction.INBOUND
    return (direction.label,) if direction is not None else ()


def _protocol(scope: Scope) -> Values:
    return (scope.facts.flow.protocol.value,)


def _sni(scope: Scope) -> Values:
    name = scope.facts.flow.sni
    return (domain(name),) if name else ()


def _alpn(scope: Scope) -> Values:
    return tuple(map(octets, scope.facts.flow.alpn))


# --- messages ------------------------------------------------------------------------------

_MESSAGE = frozenset({Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE})


def _message(scope: Scope) -> Head | None:
    """The message that the layer is about."""
    facts = scope.facts
    return facts.request if scope.layer is Layer.HTTP_REQUEST else facts.response


def _host(scope: Scope) -> Values:
    request = scope.facts.request
    return (request.host,) if request is not None and request.host else ()


def _method(scope: Scope) -> Values:
    request = scope.facts.request
    return (request.method.decode("latin-1"),) if request is not None else ()


def _path(scope: Scope) -> Values:
    request = scope.facts.request
    return path_readings(request.path) if request is not None and request.path else ()


def _query(scope: Scope) -> Values:
    request = scope.facts.request
    return query_readings(request.query) if request is not None and request.query else ()


def _url(scope: Scope) -> Values:
    request = scope.facts.request
    if request is None or not request.path:
        return ()
    return url_readings(request.host, request.path, request.query)


def _lines(scope: Scope, head: Head, which: str) -> dict[bytes, list[str]]:
    """Field lines by name, values lower-case; made once per decision."""
    lines: dict[bytes, list[str]] | None = scope.values.get(which)
    if lines is None:
        lines = scope.values[which] = {}
        for line in head.fields:
            lines.setdefault(line.key, []).append(line.value.lower().decode("latin-1"))
    return lines


def _header_of(scope: Scope, head: Head | None, key: bytes) -> Values:
    """Each line's value, and for several lines their join (RFC 9110 5.3) as well."""
    if head is None:
        return ()
    which = "#request" if head is scope.facts.request else "#response"
    found = _lines(scope, head, which).get(key, [])
    return tuple(found) if len(found) < 2 else (*found, ", ".join(found))


def _header(name: str) -> Read:
    key = octets(name).lower().encode("latin-1")
    return lambda scope: _header_of(scope, _message(scope), key)


def _request_header(name: str) -> Read:
    key = octets(name).lower().encode("latin-1")
    return lambda scope: _header_of(scope, scope.facts.request, key)


def _response_header(name: str) -> Read:
    key = octets(name).lower().encode("latin-1")
    return lambda scope: _header_of(scope, scope.facts.response, key)


def _cookie(name: str) -> Read:
    wanted = octets(name)
    return lambda scope: tuple(_cookies(scope).get(wanted, ()))


def _cookies(scope: Scope) -> dict[str, list[str]]:
    """Cookie pairs of the request by name; a quoted value counts with and without its quotes.

    RFC 6265 4.2.1, read the lenient way servers do: any octets between `;`.
    """
    cookies: dict[str, list[str]] | None = scope.values.get("#cookies")
    if cookies is not None:
        return cookies
    cookies = scope.values["#cookies"] = {}
    request = scope.facts.request
    for line in request.all(b"cookie") if request is not None else ():
        for pair in line.decode("latin-1").split(";"):
            name, equals, value = pair.strip(" \t").partition("=")
            if equals:
                value = value.strip(" \t")
                values = cookies.setdefault(name.rstrip(" \t"), [])
                values.append(value)
                if len(value) >= 2 and value[0] == value[-1] == '"':
                    values.append(value[1:-1])
    return cookies


def _content_type(scope: Scope) -> Values:
    """Declared media type without parameters, of every Content-Type line."""
    lines = _header_of(scope, _message(scope), b"content-type") or ()
    types = (line.partition(";")[0].strip() for line in lines)
    return tuple(dict.fromkeys(kind for kind in types if kind))


def _sniffed(scope: Scope) -> Values:
    sniffed = scope.facts.sniffed
    return (octets(sniffed).lower(),) if sniffed else ()


def _content_length(scope: Scope) -> Values:
    """Declared length; unknown when what is declared is not a number (RFC 9112 6.3)."""
    head = _message(scope)
    if head is None:
        return ()
    found = []
    for member in head.tokens(b"content-length"):
        if not member.isdigit() or len(member) > _MAX_DIGITS:
            return None
        found.append(int(member))
    return tuple(found)


def _status(scope: Scope) -> Values:
    response = scope.facts.response
    return (response.status,) if response is not None else ()


_PLAIN: dict[str, Read] = {
    "dst.ip": _dst_ip,
    "dst.port": _dst_port,
    "dst.host": _dst_host,
    "client.ip": _client_ip,
    "client.port": _client_port,
    "provider": _provider,
    **{
        f"principal.{name}": _principal(name)
        for name in ("pid", "exe", "uid", "user", "cgroup", "container")
    },
    "time": _time,
    "weekday": _weekday,
    "tag": _tag,
    "direction": _direction,
    "protocol": _protocol,
    "sni": _sni,
    "alpn": _alpn,
    "host": _host,
    "method": _method,
    "path": _path,
    "query": _query,
    "url": _url,
    "content_type": _content_type,
    "content_type.sniffed": _sniffed,
    "content_length": _content_length,
    "status": _status,
}
_WITH_ARG: dict[str, Callable[[str], Read]] = {
    "header": _header,
    "request.header": _request_header,
    "response.header": _response_header,
    "cookie": _cookie,
}
