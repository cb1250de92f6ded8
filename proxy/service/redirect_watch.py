"""Notice when the redirect is gone: without it traffic passes by, and nobody would know.

Somebody flushes the ruleset, the process that owns the table dies: the proxy cannot put that
right by itself (it might fight another program over the ruleset), but it says so at once.
"""

from __future__ import annotations

import asyncio
import sys

from proxy.account.ledger import Accounts
from proxy.redirect.provider import Health, Provider

_EVERY_SECONDS = 5.0


class RedirectWatch:
    """`health` is what was found last; /readyz and `status` show it."""

    def __init__(self, provider: Provider, accounts: Accounts) -> None:
        self.health = Health(True, "installed")
        self._provider = provider
        self._accounts = accounts

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY_SECONDS)

    async def look(self) -> None:
        """Ask the provider, off the loop: it may start a process."""
        before, self.health = self.health, await asyncio.to_thread(self._provider.health)
        if self.health.ok == before.ok:
            return
        state = "restored" if self.health.ok else "lost"
        print(f"sluicegate: redirect {state}: {self.health.detail}", file=sys.stderr, flush=True)
        self._accounts.service_event("REDIRECT_HEALTH", state=state, detail=self.health.detail)
