"""Not to dial before it is needed: where policy answers requests itself, most need no server.

Only where rules do that (`Policy.answers`), and not for an explicit client that waits to be told
that the connection stands. A silent client may wait for a server that speaks first, so silence
ends the patience after `times.dial_wait_seconds`; a client that has spoken is waited for until
something of what it says is let through.
"""

from __future__ import annotations

import asyncio

from proxy.flow.shell import FlowShell


async def until_needed(shell: FlowShell) -> None:
    """Return when the upstream is to be dialled, or will never be needed."""
    services = shell.services
    wait = services.times.dial_wait_seconds
    if not wait or shell.info.redirect.preamble is not None or not services.policies().answers:
        return
    try:
        async with asyncio.timeout(wait):
            while not (shell.heard or _settled(shell)):
                await _next(shell)
    except TimeoutError:
        return
    while not _settled(shell):
        await _next(shell)


def _settled(shell: FlowShell) -> bool:
    return shell.needs_upstream or shell.answered_alone or shell.outcome is not None


async def _next(shell: FlowShell) -> None:
    shell.wake.clear()
    await shell.wake.wait()
