"""From the listening sockets to flow tasks: how many at once, and what when it is too many."""

from __future__ import annotations

import asyncio
import socket

from proxy.account.metrics import Counters
from proxy.flow.run import run_flow
from proxy.flow.services import Services
from proxy.flow.side import reset_on_close
from proxy.limits import Cause, OnException
from proxy.model import Endpoint
from proxy.service.listener import Listener


class Intake:
    """Owns the accept loop and the flow tasks. Over `limit` flows the overload row decides."""

    def __init__(
        self, services: Services, counters: Counters, sockets: list[socket.socket], limit: int
    ) -> None:
        self._services = services
        self._limit = limit
        self._listener = Listener(services.loop, sockets, self._accepted, counters.accept_error)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._listener.start()

    def close(self) -> None:
        """Stop listening; flows go on."""
        self._listener.close()

    async def wait(self, within: float) -> None:
        """Until every flow has ended, but not longer than `within` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)

    async def finish(self) -> None:
        """End what is left, and wait for it."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, sock: socket.socket, client: Endpoint) -> None:
        if len(self._tasks) >= self._limit and self._overloaded(sock, client):
            return
        task = self._services.loop.create_task(run_flow(self._services, sock, client))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _overloaded(self, sock: socket.socket, client: Endpoint) -> bool:
        action = self._services.config.exceptions.overload
        self._services.accounts.exception(Cause.OVERLOAD, action, f"{self._limit} flows are open")
        if action is OnException.OPEN:
            return False
        self._services.accounts.refused(client, "overload", f"{self._limit} flows are open")
        reset_on_close(sock)
        sock.close()
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.loop.call_exception_handler(
                {"message": "a flow ended by an error of our own", "exception": error}
            )
