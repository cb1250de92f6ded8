"""Answers that Sluicegate writes itself: block pages, redirects, errors.

Everything put into a page is HTML-escaped: what the wire says cannot add markup. A Location
comes from proxy.policy.templates, which lets no line end through.
"""

from __future__ import annotations

import html
import string
from collections.abc import Iterable, Mapping
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
    """A whole response with a page. `without_body`: to HEAD, the same head and nothing else."""
    fields = [("Location", location.decode("ascii"))] if location else []
    if status not in _BODILESS:
        fields.append(("Content-Type", "text/html; charset=utf-8"))
        fields.append(("X-Content-Type-Options", "nosniff"))
    fields.append(("Cache-Control", "no-store"))
    return message(status, fields, body, close=close, without_body=without_body)


def message(
    status: int,
    fields: Iterable[tuple[str, str]],
    body: bytes,
    *,
    close: bool,
    without_body: bool,
) -> bytes:
    """A whole response. `fields` are ours: nothing from the wire, nothing about framing."""
    lines = [f"HTTP/1.1 {status} {phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in fields]
    if status not in _BODILESS:
        lines.append(f"Content-Length: {len(body)}")
    lines.append(f"Connection: {'close' if close else 'keep-alive'}")
    head = "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n"
    return head if without_body or status in _BODILESS else head + body
