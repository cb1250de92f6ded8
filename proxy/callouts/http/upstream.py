"""The way to the server: what its failures come to, and what changes in a head sent to it."""

from __future__ import annotations

from dataclasses import replace

from proxy.callouts.http import edits
from proxy.contract import DialFailure
from proxy.heads import RequestHead
from proxy.policy.ruling import Policy

FAILURE_STATUS = {
    DialFailure.REFUSED: 502,
    DialFailure.UNREACHABLE: 502,
    DialFailure.RESET: 502,
    DialFailure.TIMEOUT: 504,
    DialFailure.DENIED: 403,
    DialFailure.OVERLOAD: 503,
}
FAILURE_TEXT = {
    DialFailure.REFUSED: "The server refused the connection.",
    DialFailure.UNREACHABLE: "The server cannot be reached.",
    DialFailure.RESET: "The server closed the connection without an answer.",
    DialFailure.TIMEOUT: "The server did not answer in time.",
    DialFailure.DENIED: "Connections to this server are not allowed.",
    DialFailure.OVERLOAD: "There is no capacity for another connection.",
}
# Said to the proxy, not to the server (RFC 9110 11.7.2; Proxy-Connection never had an RFC).
_FOR_THE_PROXY = frozenset({b"proxy-connection", b"proxy-authorization"})
_RANGES = frozenset({b"range", b"if-range"})


def prepare(head: RequestHead, explicit: bool, policy: Policy) -> RequestHead:
    """The head as the server gets it. `explicit`: the client speaks to a proxy and knows it."""
    if explicit:
        head = edits.without(head, _FOR_THE_PROXY)
        if head.authority:
            head = replace(head, target=_origin_form(head))
    if head.method != b"HEAD" and getattr(policy, "wants_banner", False):
        head = _ask_for_identity(head)
    return head


def _origin_form(head: RequestHead) -> bytes:
    """RFC 9112 3.2.1; OPTIONS without a path is asterisk-form (3.2.4)."""
    rest = head.target[len(b"http://") + len(head.authority) :]
    if not rest and head.method == b"OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest


def _ask_for_identity(head: RequestHead) -> RequestHead:
    """A banner may go into the answer: ask for it uncoded, and whole where a page is wanted.

    Only for requests that would take HTML at all; a part of a page that was changed on its
    way would not fit the parts that the client has, so a navigation's Range is left out.
    """
    accept = head.get(b"accept")
    if accept is not None and b"html" not in accept and b"*/*" not in accept:
        return head
    fields = tuple(
        f._replace(value=b"identity") if f.key == b"accept-encoding" else f for f in head.fields
    )
    head = replace(head, fields=fields)
    return edits.without(head, _RANGES) if accept is not None and b"html" in accept else head
