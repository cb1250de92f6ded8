"""Fill in templates: a redirect's target, and content (`fill`).

A redirect's target holds `${host} ${path} ${query} ${url}` of the request. It goes into a
Location field, so it is built of visible ASCII only: octets of the request that a URI cannot
hold are percent-encoded (RFC 3986 2), controls, blanks and quotes among them, so that no
request can end the header line or the URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from proxy.heads import RequestHead

PLACEHOLDERS = ("host", "path", "query", "url")

#: What a template of content (a banner, a body) may hold; callouts/http supplies the values.
CONTENT_PLACEHOLDERS = (
    "host",
    "path",
    "query",
    "url",
    "method",
    "status",
    "rule",
    "policy",
    "flow",
    "proxy",
    "client",
    "dst",
)

_PLACE = re.compile(r"\$\{(\w+)\}")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
#: What stays of a value: RFC 3986 2.2 and 2.3, the percent sign of what is encoded already, but
#: no `#`, which would cut the target off.
_IN_VALUE = _UNRESERVED | frozenset(":/?[]@!$&'()*+,;=%")
_IN_TEMPLATE = _IN_VALUE | {"#"}
_IN_HOST = _UNRESERVED | frozenset(":[]")
_IN_PARAMETER = _UNRESERVED | {"/"}


def unknown_placeholders(text: str, known: tuple[str, ...] = PLACEHOLDERS) -> list[str]:
    """Names in `${...}` that there is no value for."""
    return [name for name in _PLACE.findall(text) if name not in known]


def expand_redirect(to: str, request: RequestHead) -> bytes:
    """The Location for this request, safe to be written in a header.

    Pure, never fails: a name that is not a placeholder stays as it is written. Behind a `?` of
    the template `${host}`, `${path}` and `${url}` are encoded to stay one parameter.
    """
    pieces = []
    at = 0
    for place in _PLACE.finditer(to):
        pieces.append(_literal(to[at : place.start()]))
        pieces.append(_value(place, request, in_query="?" in to[: place.start()]))
        at = place.end()
    pieces.append(_literal(to[at:]))
    return "".join(pieces).encode("ascii")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values in the places of their names; what has no value stays as it is written.

    The caller has escaped the values for where the text goes.
    """
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), text)


def _literal(text: str) -> str:
    return _encoded(text.encode("utf-8", "replace").decode("latin-1"), _IN_TEMPLATE)


def _value(place: re.Match[str], request: RequestHead, in_query: bool) -> str:
    match place[1]:
        case "query":
            return _encoded(request.query, _IN_VALUE)
        case "host" if not in_query:
            host = request.host
            return _encoded(f"[{host}]" if ":" in host else host, _IN_HOST)  # RFC 3986 3.2.2
        case "path" if not in_query:
            path = request.path
            # At the start of a reference `//evil.test` would be a host (RFC 3986 4.2).
            return _encoded("/" + path.lstrip("/") if path[:2] == "//" else path, _IN_VALUE)
        case "host" | "path" | "url" as name:
            text: str = getattr(request, name)
            return _encoded(text, _IN_PARAMETER if in_query else _IN_VALUE)
    return _literal(place[0])


def _encoded(text: str, kept: frozenset[str]) -> str:
    if all(map(kept.__contains__, text)):
        return text
    return "".join(char if char in kept else f"%{ord(char):02X}" for char in text)
