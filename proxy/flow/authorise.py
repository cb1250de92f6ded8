"""Ask policy about the connection itself: may it be made, and does it still stand.

The layers before bytes: connect_redirect, auth_connect, flow_established; and those whose
rules can only tag and log: stream_discard and endpoint_closure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from proxy.account.ledger import FlowAccount
from proxy.contract import How
from proxy.model import Direction, FlowInfo, Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import Policy, Ruling
from proxy.redirect.guards import SelfGuard


@dataclass(slots=True)
class Authorisation:
    """One flow before the policy of one moment.

    `reauthorize`: the connection is open and is judged again
    (FWP_CONDITION_FLAG_IS_REAUTHORIZE). `granted`: the last ruling of auth_connect, if it let
    the connection pass.
    """

    policy: Policy
    guard: SelfGuard
    info: FlowInfo
    account: FlowAccount
    wall: Callable[[], float]
    reauthorize: bool = False
    granted: Ruling | None = None

    def forbids(self) -> Ruling | str | None:
        """The ruling, or the guard's words, against the connection; None: it may be dialled.

        connect_redirect may send it elsewhere (`info.redirect.redirect_to`); auth_connect and
        all layers behind it judge that.
        """
        ruling = self.judge(Layer.CONNECT_REDIRECT, self._as_asked())
        if ruling is not None and ruling.blocked:
            return ruling
        return self._send(ruling) or self._blocked(Layer.AUTH_CONNECT)

    def withdraws(self, *, established: bool) -> Ruling | None:
        """The ruling that an open connection does not survive; it is not sent elsewhere."""
        ruling = self.judge(Layer.CONNECT_REDIRECT, self._as_asked())
        if ruling is not None and ruling.blocked:
            return ruling
        ruling = self._blocked(Layer.AUTH_CONNECT)
        if ruling is None and established:
            ruling = self._blocked(Layer.FLOW_ESTABLISHED)
        return ruling

    def judge(
        self, layer: Layer, info: FlowInfo | None = None, direction: Direction | None = None
    ) -> Ruling | None:
        """The ruling at a layer of the connection, recorded; None when no rule looks there."""
        if not self.policy.wants(layer):
            return None
        facts = Facts(
            flow=info or self.info,
            wall=self.wall(),
            direction=direction,
            reauthorize=self.reauthorize,
        )
        ruling = self.policy.decide(layer, facts)
        self.info.add_tags(ruling.tags)
        for hit in ruling.hits:
            self.account.record(replace(hit, reauthorize=True) if self.reauthorize else hit)
        return ruling

    def _blocked(self, layer: Layer) -> Ruling | None:
        ruling = self.judge(layer)
        blocked = ruling is not None and ruling.blocked
        if layer is Layer.AUTH_CONNECT:
            self.granted = None if blocked else ruling
        return ruling if blocked else None

    def _as_asked(self) -> FlowInfo:
        """The flow before anything has sent it elsewhere."""
        redirect = self.info.redirect
        here = self.guard.is_local(redirect.original_dst)
        return replace(self.info, redirect=replace(redirect, redirect_to=None, loopback=here))

    def _send(self, ruling: Ruling | None) -> str | None:
        """Note where the connection goes; why that must not be dialled, or None."""
        info, there = self.info, None
        asked = info.redirect.original_dst
        if ruling is not None and ruling.redirect is not None:
            there = ruling.redirect.instead_of(asked)
        here = self.guard.is_local(there or asked)
        info.redirect = replace(info.redirect, redirect_to=there, loopback=here)
        problem = self.guard.check(there) if there is not None else None
        return f"{problem} (by {ruling.redirected_by})" if problem and ruling else None


def how_of(ruling: Ruling) -> How:
    """How the client of a blocked connection is told."""
    action = ruling.action
    return How.DROP if isinstance(action, ast.Block) and action.how == "drop" else How.RESET
