"""Answers that policy gives in the place of the server: `respond` and `map_local`.

The server sees nothing of the request. HEAD gets the head that GET would get; `map_local`
answers GET and HEAD, by the files that were read with the policy (RFC 9110 9.3.1, 13.1.2).
"""

from __future__ import annotations

import urllib.parse

from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.session import Session
from proxy.callouts.http.variables import render, variables
from proxy.heads import RequestHead
from proxy.policy import ast
from proxy.policy.ruling import Ruling

_INDEX = "index.html"
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "content-type"})


def respond(
    session: Session, exchange: Exchange, action: ast.Respond, ruling: Ruling, *, close: bool
) -> None:
    """Answer with the rule's own content."""
    content = action.content
    body = render(content, variables(session, exchange, ruling.rule or "", ruling))
    fields = [pair for pair in action.headers if pair[0].lower() not in _FRAMING]
    if content.content_type:
        fields.append(("Content-Type", content.content_type))
    session.own_answer(exchange, action.status, fields, body, "responded", close=close)


def map_local(session: Session, exchange: Exchange, action: ast.MapLocal, *, close: bool) -> bool:
    """Answer from a file. False: there is none, and the request may go on to the server."""
    request = exchange.request
    assert request is not None
    name = _name(request, action.prefix)
    file = action.files.get(name) if name is not None else None
    if file is None:
        if name is None or action.missing == "pass":
            return False
        session.answer(exchange, 404, "There is no such file.", "responded", close=close)
        return True
    if request.method not in (b"GET", b"HEAD"):
        fields = [("Allow", "GET, HEAD")]
        session.own_answer(exchange, 405, fields, b"", "responded", close=close)
        return True
    fields = [("ETag", file.etag), ("Cache-Control", "no-cache")]
    if _has_it(request, file.etag):
        session.own_answer(exchange, 304, fields, b"", "responded", close=close)
        return True
    fields.append(("Content-Type", file.content_type))
    session.own_answer(exchange, 200, fields, file.data, "responded", close=close)
    return True


def _name(request: RequestHead, prefix: str) -> str | None:
    """What the path means below the prefix; None: it is not below it.

    Only names of `files` are ever answered, so no path leads anywhere else.
    """
    path = urllib.parse.unquote(request.path, encoding="utf-8", errors="replace")
    if not path.startswith(prefix):
        return None
    name = path[len(prefix) :].lstrip("/")
    return name + _INDEX if not name or name.endswith("/") else name


def _has_it(request: RequestHead, etag: str) -> bool:
    """If-None-Match by weak comparison (RFC 9110 13.1.2)."""
    known = request.get(b"if-none-match")
    if known is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]
    return b"*" in tags or etag.encode("ascii") in tags
