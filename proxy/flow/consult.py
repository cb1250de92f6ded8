"""Ask the connection callouts about a destination that policy permits, before it is dialled."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from typing import cast

from proxy.account.ledger import FlowAccount
from proxy.api import Refuse
from proxy.callouts.registration import POLICY, ConnectionRegistration, rule_of
from proxy.contract import Mode
from proxy.flow.asks import Reply, put
from proxy.flow.services import Services
from proxy.limits import Cause, OnException
from proxy.model import FlowInfo, Layer
from proxy.policy.ruling import Ruling
from proxy.records import Decided, ExceptionApplied


class Consultation:
    """The callouts' say on the addresses of one dial. A callout that failed is not asked again."""

    def __init__(
        self, info: FlowInfo, account: FlowAccount, services: Services, generation: int
    ) -> None:
        self._callouts = list(services.connections)
        self._config = services.config
        self._info = info
        self._account = account
        self._generation = generation
        self.failed = ""  #: set when an exception policy has refused the whole dial

    async def refusal(self, granted: Ruling | None = None) -> str:
        """Ask about `info.redirect.destination`: why it must not be dialled, or empty text.

        Records what decided. A refusal of what `granted` has permitted for good is a veto
        (learn.microsoft.com, "Filter Arbitration"). Only a cancellation is raised.
        """
        for callout in list(self._callouts):
            reply = await _answer(callout, self._info, self._config.limits.callout_seconds)
            if reply.error is not None:
                self._apply(callout, reply)
            elif isinstance(reply.value, Refuse):
                against = granted.rule if granted is not None and granted.hard else None
                return self._refused(callout, reply.value.reason, against)
            if self.failed:
                return self.failed
        return ""

    def _refused(self, callout: ConnectionRegistration, reason: str, against: str | None) -> str:
        rule = rule_of(callout.name)
        detail = [reason, f"against the hard permit of {against}" if against else ""]
        self._account.record(
            Decided(
                Layer.AUTH_CONNECT,
                "block",
                rule,
                POLICY,
                self._generation,
                POLICY,
                veto=against is not None,
                detail="; ".join(filter(None, detail)),
            )
        )
        return f"refused by {rule}"

    def _apply(self, callout: ConnectionRegistration, reply: Reply) -> None:
        """Its own exception policy, or the table's."""
        failed = isinstance(reply.value, Exception)
        cause = Cause.CALLOUT_EXCEPTION if failed else Cause.CALLOUT_OVERRUN
        action = callout.on_error or self._config.exceptions.action(cause)
        self._account.record(ExceptionApplied(cause, action, callout.name, reply.error or ""))
        self._callouts.remove(callout)
        if action is OnException.CLOSED:
            self.failed = f"{cause.value} of {callout.name}"


async def _answer(callout: ConnectionRegistration, info: FlowInfo, seconds: float) -> Reply:
    """What it says; `seconds` bounds an inline one, which cannot be interrupted."""

    async def question() -> object:
        answer: object = callout.callout.authorise(info)
        if inspect.isawaitable(answer):
            answer = await cast(Awaitable[object], answer)
        if answer is not None and not isinstance(answer, Refuse):
            raise TypeError(f"authorise() answered {answer!r}; expected None or Refuse(reason)")
        return answer

    if callout.mode is Mode.OUT_OF_BAND:
        return await put(question, callout.timeout)
    loop = asyncio.get_running_loop()
    started = loop.time()
    reply = await put(question, callout.timeout)
    took = loop.time() - started
    late = reply.error is None and took > seconds and not isinstance(reply.value, Refuse)
    return Reply(None, f"a call took {took:.3f} s") if late else reply
