"""The values of `${...}` in content that a rule puts into messages."""

from __future__ import annotations

import html
from collections.abc import Mapping

from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.session import Session
from proxy.policy import ast
from proxy.policy.ruling import Ruling
from proxy.policy.templates import fill


def variables(
    session: Session, exchange: Exchange, rule: str, ruling: Ruling | None
) -> dict[str, str]:
    """A value for every name of `CONTENT_PLACEHOLDERS`, as text from the wire: not escaped."""
    request, response, info = exchange.request, exchange.response, session.flow.info
    hits = ruling.hits if ruling is not None else ()
    return {
        "host": request.host if request is not None else "",
        "path": request.path if request is not None else "",
        "query": request.query if request is not None else "",
        "url": request.url if request is not None else "",
        "method": exchange.method.decode("latin-1"),
        "status": str(response.status) if response is not None else "",
        "rule": rule,
        "policy": next((hit.policy for hit in hits if hit.rule == rule), ""),
        "flow": info.id,
        "proxy": session.proxy_id,
        "client": info.redirect.client.host,
        "dst": str(info.redirect.original_dst),
    }


def render(content: ast.Content, values: Mapping[str, str]) -> bytes:
    """Content as it goes out; values in HTML are escaped."""
    if not content.template:
        return content.data
    if content.content_type.startswith("text/html"):
        values = {name: html.escape(value) for name, value in values.items()}
    return fill(content.data.decode("utf-8"), values).encode("utf-8", "replace")
