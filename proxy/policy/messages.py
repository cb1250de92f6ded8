"""Read the fields of HTTP messages: of the request, the response, or the one at the layer.

Values as `proxy.policy.extract` says. RFC 9110 5 (fields), RFC 6265 4.2 (cookies).
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.heads import Head
from proxy.model import Direction, Layer
from proxy.policy.lists import octets
from proxy.policy.paths import path_readings, query_readings, url_readings
from proxy.policy.scope import Read, Scope, Values

_MAX_DIGITS = 18
_OF_REQUEST = frozenset({Layer.HTTP_REQUEST, Layer.HTTP_REQUEST_BODY})
_OF_RESPONSE = frozenset({Layer.HTTP_RESPONSE, Layer.HTTP_RESPONSE_BODY})


def _message(scope: Scope) -> Head | None:
    """The message that the layer is about."""
    facts = scope.facts
    return facts.request if scope.layer in _OF_REQUEST else facts.response


def _direction(scope: Scope) -> Values:
    direction = scope.facts.direction
    if direction is None and scope.layer in _OF_REQUEST:
        direction = Direction.OUTBOUND
    elif direction is None and scope.layer in _OF_RESPONSE:
        direction = Direction.INBOUND
    return (direction.label,) if direction is not None else ()


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


# --- content, in words: conditions ask it by `proxy.policy.match_body` ----------------------


def _body(scope: Scope) -> Values:
    """What was found, as the policy writes it."""
    body = scope.facts.body
    if body is None or not (body.complete or body.matched):
        return None
    return tuple(f"pattern {number}" for number in sorted(body.matched))


def _body_size(scope: Scope) -> Values:
    body = scope.facts.body
    return (body.size,) if body is not None and body.complete else None


def _body_sha256(scope: Scope) -> Values:
    body = scope.facts.body
    return (body.sha256,) if body is not None and body.sha256 is not None else None


PLAIN: dict[str, Read] = {
    "direction": _direction,
    "host": _host,
    "method": _method,
    "path": _path,
    "query": _query,
    "url": _url,
    "content_type": _content_type,
    "content_type.sniffed": _sniffed,
    "content_length": _content_length,
    "status": _status,
    "body": _body,
    "body.size": _body_size,
    "body.sha256": _body_sha256,
}
WITH_ARG: dict[str, Callable[[str], Read]] = {
    "header": _header,
    "request.header": _request_header,
    "response.header": _response_header,
    "cookie": _cookie,
}
