"""Out-of-band questions of one flow: each a child task with a deadline, none outlives the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, cast

from proxy.engine.effects import Ask

Question = Callable[[], Awaitable[object]]  #: without arguments; called once
Resume = Callable[[int, object, str | None], None]


class Reply(NamedTuple):
    """What a question came to. With an `error`, `value` is the exception; None: a time-out."""

    value: object
    error: str | None


async def put(question: Question, seconds: float) -> Reply:
    """Ask, and wait at most that long. Raises only what cancels it."""
    try:
        async with asyncio.timeout(seconds) as deadline:
            return Reply(await question(), None)
    except Exception as problem:  # noqa: BLE001 - foreign code; its exception policy applies
        if deadline.expired() and isinstance(problem, TimeoutError):
            return Reply(None, f"no answer within {seconds:g} s")
        return Reply(problem, f"{type(problem).__name__}: {problem}")


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
        value, error = await put(cast(Question, ask.question), ask.timeout)
        self._resume(ask.id, value, error)
