"""Answers that policy gives in the place of the server: `respond` and `map_local`.

The server sees nothing of the request. HEAD gets the head that GET would get; `map_local`
answers GET and HEAD, by the files that were read with the policy (RFC 9110 9.3.1, 13.1.2).
"""

from __future__ import annotations

from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.session import Session
from proxy.callouts.http.variables import render, variables
from proxy.heads import RequestHead
from proxy.policy import ast
from proxy.policy.localmap import local_file
from proxy.policy.ruling import Ruling

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


def map_local(session: Session, exchange: Exchange, action: ast.MapLocal, *, close: bool) -> None:
    """Answer from a file, or for one that is not there."""
    request = exchange.request
    assert request is not None
    file = local_file(action, request.path)
    if file is None:
        session.answer(exchange, 404, "There is no such file.", "responded", close=close)
    elif request.method not in (b"GET", b"HEAD"):
        fields = [("Allow", "GET, HEAD")]
        session.own_answer(exchange, 405, fields, b"", "responded", close=close)
    else:
        fields = [("ETag", file.etag), ("Cache-Control", "no-cache")]
        known = _has_it(request, file.etag)
        status, data = (304, b"") if known else (200, file.data)
        fields += [] if known else [("Content-Type", file.content_type)]
        session.own_answer(exchange, status, fields, data, "responded", close=close)


def _has_it(request: RequestHead, etag: str) -> bool:
    """If-None-Match by weak comparison (RFC 9110 13.1.2)."""
    known = request.get(b"if-none-match")
    if known is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in known.split(b",")]
    return b"*" in tags or etag.encode("ascii") in tags
