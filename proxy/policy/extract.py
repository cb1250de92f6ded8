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

from proxy.model import COME_BY_THEMSELVES, Confidence, Endpoint, Principal
from proxy.policy import messages
from proxy.policy.lists import domain, fold, octets, parse_address
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


def _address(endpoint: Endpoint) -> Values:
    """Unknown while it is a name that was not resolved."""
    address = parse_address(endpoint.host)
    return None if address is None else (address,)


def _dst_ip(scope: Scope) -> Values:
    return _address(scope.facts.flow.redirect.destination)


def _dst_port(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.destination.port,)


def _original_ip(scope: Scope) -> Values:
    return _address(scope.facts.flow.redirect.original_dst)


def _original_port(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.original_dst.port,)


def _ip_version(scope: Scope) -> Values:
    address = parse_address(scope.facts.flow.redirect.destination.host)
    return None if address is None else (address.version,)


def _loopback(scope: Scope) -> Values:
    """Which addresses are this machine's the service has looked up; some need no look."""
    redirect = scope.facts.flow.redirect
    if redirect.loopback is not None:
        return (redirect.loopback,)
    address = parse_address(redirect.destination.host)
    return (True,) if address is not None and address.is_loopback else None


def _dst_host(scope: Scope) -> Values:
    redirect = scope.facts.flow.redirect
    name = redirect.dst_name
    if name is None and parse_address(redirect.original_dst.host) is None:
        name = redirect.original_dst.host
    return (domain(name),) if name else ()


def _client_ip(scope: Scope) -> Values:
    return _address(scope.facts.flow.redirect.client)


def _client_port(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.client.port,)


def _provider(scope: Scope) -> Values:
    return (octets(scope.facts.flow.redirect.provider),)


def _redirected(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.provider not in COME_BY_THEMSELVES,)


def _reauthorize(scope: Scope) -> Values:
    return (scope.facts.reauthorize,)


def _told(scope: Scope) -> Principal | None:
    """The principal, if anything at all is known of it."""
    principal = scope.facts.flow.redirect.principal
    return None if principal.confidence is Confidence.NONE else principal


def _principal(name: str) -> Read:
    """A principal's attribute is unknown, never absent, when the provider did not tell it."""

    def read(scope: Scope) -> Values:
        principal = _told(scope)
        value = None if principal is None else getattr(principal, name)
        if value is None:
            return None
        return (octets(value) if isinstance(value, str) else value,)

    return read


def _of_group(name: str) -> Read:
    """What is read from the control group: absent where that is known and names none."""

    def read(scope: Scope) -> Values:
        principal = _told(scope)
        value = None if principal is None else getattr(principal, name)
        if value:
            return (fold(value) if name == "package" else octets(value),)
        known = value is not None or (principal is not None and principal.cgroup is not None)
        return () if known else None

    return read


def _exe(scope: Scope) -> Values:
    """Paths of Windows compare without case (`proxy.policy.operators`)."""
    principal = _told(scope)
    path = None if principal is None else principal.program
    if path is None:
        return None
    return (octets(path) if path.startswith("/") else fold(path),)


def _name(scope: Scope) -> Values:
    principal = _told(scope)
    name = None if principal is None else principal.name
    return None if name is None else (fold(name),)


def _confidence(scope: Scope) -> Values:
    return (scope.facts.flow.redirect.principal.confidence.value,)


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
    "original.ip": _original_ip,
    "original.port": _original_port,
    "ip_version": _ip_version,
    "loopback": _loopback,
    "client.ip": _client_ip,
    "client.port": _client_port,
    "provider": _provider,
    "redirected": _redirected,
    "reauthorize": _reauthorize,
    "principal.exe": _exe,
    "principal.name": _name,
    "principal.confidence": _confidence,
    **{
        f"principal.{name}": _principal(name)
        for name in ("pid", "deleted", "uid", "user", "cgroup")
    },
    **{f"principal.{name}": _of_group(name) for name in ("container", "package")},
    "time": _time,
    "weekday": _weekday,
    "tag": _tag,
    "protocol": _protocol,
    "sni": _sni,
    "alpn": _alpn,
    **messages.PLAIN,
}
