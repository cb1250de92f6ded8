"""Ask policy about the connection itself: may it be made, and does it still stand.

The layers before bytes: connect_redirect, auth_connect, flow_established; and those whose
rules can only tag and log: stream_discard and endpoint_closure.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.account.ledger import FlowAccount
from proxy.model import Direction, FlowInfo, Layer
from proxy.policy.facts import Facts
from proxy.policy.ruling import Policy, Ruling


def judge(
    policy: Policy,
    layer: Layer,
    info: FlowInfo,
    wall: Callable[[], float],
    account: FlowAccount,
    direction: Direction | None = None,
) -> Ruling | None:
    """The ruling at a layer of the connection, recorded; None when no rule looks there."""
    if not policy.wants(layer):
        return None
    ruling = policy.decide(layer, Facts(flow=info, wall=wall(), direction=direction))
    info.add_tags(ruling.tags)
    for hit in ruling.hits:
        account.record(hit)
    return ruling


def authorise(
    policy: Policy, info: FlowInfo, wall: Callable[[], float], account: FlowAccount
) -> Ruling | None:
    """The first ruling that blocks the connection, or None: it may be dialled."""
    for layer in (Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT):
        ruling = judge(policy, layer, info, wall, account)
        if ruling is not None and ruling.blocked:
            return ruling
    return None
