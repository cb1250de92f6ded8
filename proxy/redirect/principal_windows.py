"""Who made a connection on Windows: from a redirect context to a Principal.

`exact` is said only when the process that Windows shows now began when the driver says that the
connecting one did: a pid alone may be somebody else's by then. What is known of a process is
kept by pid and start time; looking it up the first time may ask a domain controller for a name,
so it is not for the event loop (`look_up`), unlike what is kept (`known`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from proxy.model import Confidence, Endpoint, Principal
from proxy.redirect.context import ContextFlag, RedirectContext
from proxy.redirect.winprocess import Described, Processes, to_epoch
from proxy.redirect.wintcp import Connections

_KEPT = 4096  #: processes, and accounts
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of the client's connection as it is now, redirected."""

    client: Endpoint
    proxy: Endpoint


class WindowsPrincipals:
    """One per provider. `look_up` may run in several threads at once."""

    def __init__(self, processes: Processes, connections: Connections) -> None:
        self._processes = processes
        self._connections = connections
        self._described: OrderedDict[tuple[int, int], Described] = OrderedDict()
        self._accounts: OrderedDict[bytes, str | None] = OrderedDict()

    def known(self, context: RedirectContext) -> Principal | None:
        """From what is kept, at the price of one look at the process; None: look it up."""
        started = self._processes.started(context.pid) if context.pid else None
        described = self._described.get((context.pid, started)) if started else None
        if described is None or _is_another(context, described):
            return None
        sid = context.sid or described.sid
        return self._of(context, described) if sid in self._accounts or not sid else None

    def look_up(self, context: RedirectContext, ends: Ends) -> Principal:
        """Ask Windows. Blocks."""
        known = self.known(context)  # meanwhile, by another connection of the same process
        if known is not None:
            return known
        pid = context.pid or self._connections.owner(ends.client, ends.proxy)
        described = self._describe(pid) if pid else None
        if pid and not context.pid:
            return self._found_afterwards(pid, described)
        if described is None or _is_another(context, described):
            return self.told(context, self._account(context.sid))
        return self._of(context, described)

    def told(self, context: RedirectContext, user: str | None = None) -> Principal:
        """What the driver said, and nothing else: the process has gone, or there is no time."""
        if not context.pid and not context.application and not context.sid:
            return Principal()
        full = ContextFlag.FULL_PATH in context.flags
        application = context.application or None
        return Principal(
            pid=context.pid or None,
            process_start=to_epoch(context.process_start),
            exe=self._processes.with_drive(application) if full and application else None,
            comm=None if full else application,
            user=user,
            confidence=Confidence.LIKELY,
        )

    def _of(self, context: RedirectContext, described: Described) -> Principal:
        """The process is there; its start decides how sure that is."""
        certain = context.process_start == described.started
        # The driver's SID is that of the connecting thread, which may impersonate somebody.
        user = self._account(context.sid or described.sid)
        # A protected process does not tell its path, the driver does.
        told = self.told(context) if described.image is None else Principal()
        return Principal(
            pid=context.pid,
            process_start=to_epoch(described.started),
            exe=described.image or told.exe,
            comm=told.comm,
            user=user,
            package=described.package,
            confidence=Confidence.EXACT if certain else Confidence.LIKELY,
        )

    def _found_afterwards(self, pid: int, described: Described | None) -> Principal:
        if described is None:
            return Principal(pid=pid, confidence=Confidence.LIKELY)
        return Principal(
            pid=pid,
            process_start=to_epoch(described.started),
            exe=described.image,
            user=self._account(described.sid),
            package=described.package,
            confidence=Confidence.LIKELY,
        )

    def _describe(self, pid: int) -> Described | None:
        described = self._processes.describe(pid)
        if described is not None:
            _keep(self._described, (pid, described.started), described)
        return described

    def _account(self, sid: bytes) -> str | None:
        if not sid:
            return None
        if sid not in self._accounts:
            _keep(self._accounts, sid, self._processes.account(sid))
        return self._accounts.get(sid)


def _is_another(context: RedirectContext, described: Described) -> bool:
    """Has the pid gone to a process that began later than the one that connected?"""
    return context.process_start not in (0, described.started)


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    kept[key] = value
    while len(kept) > _KEPT:
        kept.popitem(last=False)
