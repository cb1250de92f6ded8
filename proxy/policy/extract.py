"""Read a condition's field from the facts of a decision: the values it has there.

A read answers with a tuple of values, any of which may satisfy a condition: `()` means absent,
None means unknown. IP fields hold address objects, number fields ints, all others octet
strings: str whose characters are octets, so wire bytes decoded by latin-1, and text from the
system in UTF-8 octets. Fields that compare without case are lower-case here. `path`, `query`
and `url` hold the readings of one value instead (`proxy.policy.paths`).
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from proxy.model import Confidence
from proxy.policy import messages
from proxy.policy.lists import domain, octets, parse_address
from proxy.policy.scope import Read, Scope, Values

#: Fields whose values are readings of one thing, not several things.
READINGS = frozenset({"path", "query", "url"})

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_MISSING: Any = object()


@lru_cache(maxsize=1024)
def reader(field: str, arg: str | None) -> Read:
    """The memoised read of a field, one for all tests of it. Raises KeyError outside FIELDS."""
    named = messages.WITH_ARG.get(field)
    read = named(arg or "") if named is not None else _PLAIN[field]
    if field == "tag":  # changes while rules are evaluated
        return lambda scope: None if field in scope.facts.unknown else read(scope)
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


def _protocol(scope: Scope) -> Values:
    return (scope.facts.flow.protocol.value,)


def _sni(scope: Scope) -> Values:
    name = scope.facts.flow.sni
    return (domain(name),) if name else ()


def _alpn(scope: Scope) -> Values:
    return tuple(map(octets, scope.facts.flow.alpn))


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
    "protocol": _protocol,
    "sni": _sni,
    "alpn": _alpn,
    **messages.PLAIN,
}
