"""Answers that Sluicegate writes itself: block pages, redirects, errors.

Everything put into a page is HTML-escaped: what the wire says cannot add markup. A Location
comes from proxy.policy.templates, which lets no line end through.
"""

from __future__ import annotations

import html
import string
from collections.abc import Mapping
from http import HTTPStatus

TEMPLATE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>${status} ${phrase}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:38em;margin:12vh auto;padding:0 1em}
small{color:#666}</style></head>
<body>
<h1>${phrase}</h1>
<p>${reason}</p>
<p><small>${host} &middot; rule ${rule} &middot; flow ${flow} &middot; ${proxy}</small></p>
</body>
</html>
"""

_BODILESS = frozenset({204, 304})


def phrase(status: int) -> str:
    """The reason phrase of the registry, 'Blocked' for codes outside it."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Blocked"


def render(template: str | None, status: int, values: Mapping[str, str]) -> bytes:
    """A page's body. Unknown placeholders stay as they are; `values` are escaped here."""
    safe = {name: html.escape(value) for name, value in values.items()}
    safe |= {"status": str(status), "phrase": html.escape(phrase(status))}
    text = string.Template(TEMPLATE if template is None else template).safe_substitute(safe)
    return text.encode("utf-8", "replace")


def answer(
    status: int, body: bytes, *, close: bool, without_body: bool, location: bytes = b""
) -> bytes:
    """A whole response. `without_body`: to HEAD, which gets the same head and nothing else."""
    lines = [f"HTTP/1.1 {status} {phrase(status)}"]
    if location:
        lines.append(f"Location: {location.decode('ascii')}")
    if status not in _BODILESS:
        lines += [
            "Content-Type: text/html; charset=utf-8",
            f"Content-Length: {len(body)}",
            "X-Content-Type-Options: nosniff",
        ]
    lines += ["Cache-Control: no-store", f"Connection: {'close' if close else 'keep-alive'}"]
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head if without_body or status in _BODILESS else head + body
