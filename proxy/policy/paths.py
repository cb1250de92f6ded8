"""The readings of a request target: as sent, and as servers may understand it.

A rule about `/admin/*` must not be evaded by `/%61dmin/`, `//admin/` or `/x/../admin/`, nor a
permit for `/public/*` be stretched by `/public/../admin`. So path, query and url have up to
three readings, and conditions are asked about all of them:

1. as sent;
2. normalised as RFC 3986 6.2.2 allows any recipient to: percent-encoded unreserved
   characters decoded, dot segments removed, and repeated slashes merged;
3. fully decoded once, as nginx and most frameworks route: then dot segments (also with path
   parameters, `..;x`) and repeated slashes, with the backslash taken for a slash.

Decoding happens once: `%2561` is `%61`, as for the server. Linear in the length of the text.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


def path_readings(path: str) -> tuple[str, ...]:
    """Distinct readings of a path, the one as sent first."""
    if "%" not in path and "/." not in path and "//" not in path and "\\" not in path:
        return (path,)
    normal = _without_dots(_decode_unreserved(path))
    decoded = _without_dots(_decode(path).replace("\\", "/"))
    return tuple(dict.fromkeys((path, normal, decoded)))


def query_readings(query: str) -> tuple[str, ...]:
    """Distinct readings of a query; the fully decoded one takes `+` for a blank (forms)."""
    if "%" not in query and "+" not in query:
        return (query,)
    decoded = _decode(query.replace("+", " "))
    return tuple(dict.fromkeys((query, _decode_unreserved(query), decoded)))


def url_readings(host: str, path: str, query: str) -> tuple[str, ...]:
    """Distinct readings of `http://host/path?query`: those of path and query side by side."""
    paths, queries = path_readings(path), query_readings(query)
    last_path, last_query = len(paths) - 1, len(queries) - 1
    urls = []
    for index in range(max(len(paths), len(queries))):
        asked = queries[min(index, last_query)]
        tail = f"?{asked}" if asked else ""
        urls.append(f"http://{host}{paths[min(index, last_path)]}{tail}")
    return tuple(dict.fromkeys(urls))


def _decode(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _decode_unreserved(text: str) -> str:
    def decoded(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if char in _UNRESERVED else match[0].upper()  # RFC 3986 6.2.2.1

    return _ESCAPE.sub(decoded, text)


def _without_dots(path: str) -> str:
    """Merge slashes and remove dot segments (RFC 3986 5.2.4), never above the root."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        bare = segment.partition(";")[0]
        if bare == "..":
            if kept:
                kept.pop()
        elif segment and bare != ".":
            kept.append(segment)
    ends_in_slash = segments[-1].partition(";")[0] in ("", ".", "..")
    return "/" + "/".join(kept) + ("/" if kept and ends_in_slash else "")
