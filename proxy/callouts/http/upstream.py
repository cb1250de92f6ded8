"""The way to the server: what its failures come to, and what changes in a head sent to it."""

from __future__ import annotations

from dataclasses import replace

from proxy.callouts.http import edits
from proxy.content.negotiate import narrow_accept_encoding
from proxy.contract import DialFailure
from proxy.heads import RequestHead
from proxy.policy.facts import Facts
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


def prepare(
    head: RequestHead, facts: Facts, policy: Policy, *, explicit: bool, touched: bool = False
) -> RequestHead:
    """The head as the server gets it. `explicit`: the client speaks to a proxy and knows it;
    `touched`: callouts work on the answer's content.

    `facts` are of the request as the client sent it. Where the answer's content may be worked
    on, codings that cannot be taken off are not asked for, and neither are parts: a part that
    was edited would not fit the parts that the client has, and one that is searched by itself
    hides what lies across its edges.
    """
    if explicit:
        head = edits.without(head, _FOR_THE_PROXY)
        if head.authority:
            head = replace(head, target=_origin_form(head))
    if head.method == b"HEAD":
        return head
    if touched or policy.may_touch_response_body(facts):
        return edits.without(_decodable(head), _RANGES)
    if policy.may_inject_banner(facts) and _wants_html(head):
        head = _decodable(head)
        # Only where a page is wanted, or downloads could not be resumed.
        return edits.without(head, _RANGES) if b"html" in (head.get(b"accept") or b"") else head
    return head


def _wants_html(head: RequestHead) -> bool:
    accept = head.get(b"accept")
    return accept is None or b"html" in accept or b"*/*" in accept


def _decodable(head: RequestHead) -> RequestHead:
    fields = tuple(
        f._replace(value=narrow_accept_encoding(f.value)) if f.key == b"accept-encoding" else f
        for f in head.fields
    )
    return replace(head, fields=fields)


def _origin_form(head: RequestHead) -> bytes:
    """RFC 9112 3.2.1; OPTIONS without a path is asterisk-form (3.2.4)."""
    rest = head.target[len(b"http://") + len(head.authority) :]
    if not rest and head.method == b"OPTIONS":
        return b"*"
    return rest if rest.startswith(b"/") else b"/" + rest
