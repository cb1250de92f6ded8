"""After a reload: do the connections that are open still stand? (`on_reload` of the policies.)

keep: verdicts once given stay. reauthorize: a connection that would be refused now finishes
what it has in work and is then closed. reauthorize_and_drop: it is ended at once, in the way
that the rule says. Where it goes is not changed any more, whatever `redirect_to` would say.
"""

from __future__ import annotations

from proxy.account.ledger import FlowOutcome
from proxy.contract import Drain
from proxy.flow.authorise import how_of
from proxy.flow.services import Services
from proxy.model import Protocol
from proxy.policy.ast import OnReload


def reauthorise(services: Services, on_reload: OnReload) -> None:
    """Judge every open flow again at the layers of the connection that it has passed."""
    if on_reload is OnReload.KEEP:
        return
    for flow in list(services.flows):
        if flow.outcome is not None:
            continue
        established = flow.upstream is not None
        ruling = flow.authorisation(reauthorize=True).withdraws(established=established)
        if ruling is None:
            continue
        in_exchanges = flow.info.protocol is Protocol.HTTP1 and not flow.info.tunnel
        if on_reload is OnReload.REAUTHORIZE and in_exchanges:
            flow.feed(Drain())
        else:
            reason = f"no longer allowed by {ruling.rule}"
            flow.end(how_of(ruling), FlowOutcome.BLOCKED, reason)
