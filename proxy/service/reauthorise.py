"""After a reload: do the connections that are open still stand? (`on_reload` of the policies.)

keep: verdicts once given stay. reauthorize: a connection that would be refused now finishes
what it has in work and is then closed. reauthorize_and_drop: it is reset at once.
"""

from __future__ import annotations

from proxy.account.ledger import FlowOutcome
from proxy.contract import Drain, How
from proxy.flow.authorise import authorise
from proxy.flow.services import Services
from proxy.model import Protocol
from proxy.policy.ast import OnReload


def reauthorise(services: Services, on_reload: OnReload) -> None:
    """Judge every open flow again at the connection layers (FWP_CONDITION_FLAG_IS_REAUTHORIZE)."""
    if on_reload is OnReload.KEEP:
        return
    policy = services.policies()
    for flow in list(services.flows):
        ruling = authorise(policy, flow.info, services.wall, flow.account)
        if ruling is None:
            continue
        if on_reload is OnReload.REAUTHORIZE and flow.info.protocol is Protocol.HTTP1:
            flow.feed(Drain())
        else:
            flow.end(How.RESET, FlowOutcome.BLOCKED, f"no longer allowed by {ruling.rule}")
