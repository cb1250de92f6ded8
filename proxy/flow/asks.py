"""Out-of-band questions of one flow: each a child task with a deadline, none outlives the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from proxy.engine.effects import Ask

Resume = Callable[[int, object, str | None], None]


class Asks:
    """`resume(id, value, error)` is called once per question, unless the flow ends before."""

    __slots__ = ("_resume", "_tasks")

    def __init__(self, resume: Resume) -> None:
        self._resume = resume
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, loop: asyncio.AbstractEventLoop, ask: Ask) -> None:
        task = loop.create_task(self._answer(ask))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _answer(self, ask: Ask) -> None:
        """A question is a function without arguments that returns an awaitable."""
        value, error = None, None
        try:
            async with asyncio.timeout(ask.timeout):
                value = await cast(Callable[[], Awaitable[object]], ask.question)()
        except TimeoutError:
            error = f"no answer within {ask.timeout:g} s"
        except Exception as problem:  # noqa: BLE001 - foreign code; its exception policy applies
            error = repr(problem)
        self._resume(ask.id, value, error)
