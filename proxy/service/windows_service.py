"""The service host of Windows: Sluicegate under the service control manager.

The manager calls `main` in a thread of its own and the handler in another. The handler never
waits: it reports, and hands what is asked to the event loop. "Writing a ServiceMain Function",
"Service Control Handler Function" (learn.microsoft.com/windows/win32/services/).

INVARIANT: states only go forward (START_PENDING, RUNNING, STOP_PENDING, STOPPED), STOPPED is
reported exactly once and last, whatever happens: without it the manager waits, and the service
can be neither started nor removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from proxy.errors import SettingsError, SluicegateError
from proxy.service.app import Service
from proxy.service.loops import loop_factory
from proxy.service.scm import (
    ERROR_CALL_NOT_IMPLEMENTED,
    ERROR_EXCEPTION_IN_SERVICE,
    ERROR_SERVICE_SPECIFIC_ERROR,
    NO_ERROR,
    Accepts,
    Control,
    Dispatcher,
    State,
    Status,
)
from proxy.settings import Settings

_START_HINT = 60.0  #: seconds: policies are compiled, and the redirect is put in force
_STOP_MARGIN = 10.0  #: above the drain, for closing
# "If a service does not stop within WaitToKillServiceTimeout", 5 seconds by default
# (SERVICE_CONTROL_SHUTDOWN): a drain that is longer would be cut off anyhow.
_SHUTDOWN_DRAIN = 3.0
_USAGE, _CANNOT_START = 2, 3  #: exit codes of `run`, told as service specific codes
_ACCEPTED = Accepts.STOP | Accepts.SHUTDOWN | Accepts.PARAMCHANGE
_ORDER = (State.START_PENDING, State.RUNNING, State.STOP_PENDING, State.STOPPED)


class Served(Protocol):
    """What is hosted: `proxy.service.app.Service`."""

    stopping: asyncio.Event

    async def start(self) -> None: ...

    async def drain(self) -> None: ...

    async def close(self) -> None: ...

    async def reload(self) -> dict[str, Any]: ...


Make = Callable[[Settings, asyncio.AbstractEventLoop], Served]


class Reports:
    """What the manager was told last; from any thread, never backwards."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._lock = threading.Lock()
        self._last: Status | None = None

    def tell(self, status: Status) -> None:
        """Report it, with the next checkpoint if it is still pending. Raises StartError."""
        with self._lock:
            last = self._last
            if last is not None and _ORDER.index(status.state) < _ORDER.index(last.state):
                return
            if status.state in (State.START_PENDING, State.STOP_PENDING):
                same = last is not None and last.state is status.state
                checkpoint = last.checkpoint + 1 if last is not None and same else 1
                status = Status(status.state, checkpoint=checkpoint, wait_hint=status.wait_hint)
            elif last is not None and last.state is status.state:
                return
            self._last = status
            self._dispatcher.report(status)

    def repeat(self) -> None:
        """INTERROGATE: the same again. Raises StartError."""
        with self._lock:
            if self._last is not None:
                self._dispatcher.report(self._last)


class WindowsService:
    """One service in one process: `run` returns when the manager has stopped it."""

    def __init__(
        self, dispatcher: Dispatcher, load: Callable[[], Settings], make: Make = Service
    ) -> None:
        """`load` reads the settings, within the service, so that their mistakes are reported."""
        self._dispatcher = dispatcher
        self._load = load
        self._make = make
        self._reports = Reports(dispatcher)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._served: Served | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._drain_limit: float | None = None
        self._stop_hint = _STOP_MARGIN

    def run(self) -> None:
        """Blocks. Raises StartError when the process was not started by the manager."""
        self._dispatcher.run(self._main)

    def _main(self) -> None:
        """SERVICE_MAIN: the outermost frame, so that STOPPED is told whatever happens."""
        last = Status(State.STOPPED, exit_code=ERROR_EXCEPTION_IN_SERVICE)
        self._dispatcher.register(self._handle)
        try:
            self._reports.tell(Status(State.START_PENDING, wait_hint=_START_HINT))
            settings = self._load()
            self._stop_hint = settings.flow_times().drain_seconds + _STOP_MARGIN
            with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
                runner.run(self._serve(settings))
            last = Status(State.STOPPED)
        except SluicegateError as error:
            self._dispatcher.complain(f"cannot start: {error}")
            code = _USAGE if isinstance(error, SettingsError) else _CANNOT_START
            last = Status(State.STOPPED, exit_code=ERROR_SERVICE_SPECIFIC_ERROR, specific_code=code)
        finally:
            self._reports.tell(last)

    async def _serve(self, settings: Settings) -> None:
        served = self._make(settings, asyncio.get_running_loop())
        try:
            async with self._kept_patient(State.START_PENDING, _START_HINT):
                await served.start()
            self._attach(served)
            self._reports.tell(Status(State.RUNNING, _ACCEPTED))
            await served.stopping.wait()
            async with self._kept_patient(State.STOP_PENDING, self._stop_hint):
                await self._drain(served)
        finally:
            self._detach()
            await served.close()

    @contextlib.asynccontextmanager
    async def _kept_patient(self, state: State, hint: float) -> AsyncIterator[None]:
        """Report progress while the block takes its time: twice within each hint."""

        async def tick() -> None:
            while True:
                self._reports.tell(Status(state, wait_hint=hint))
                await asyncio.sleep(hint / 2)

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking

    async def _drain(self, served: Served) -> None:
        """As long as the settings allow, or as the system does when it shuts down."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_limit):
                await served.drain()

    def _attach(self, served: Served) -> None:
        with self._lock:
            self._loop, self._served = asyncio.get_running_loop(), served

    def _detach(self) -> None:
        with self._lock:
            self._loop = self._served = None

    def _handle(self, control: int) -> int:
        """HandlerEx: the result is NO_ERROR for what is accepted, as the page demands."""
        if control == Control.INTERROGATE:
            self._reports.repeat()
        elif control in (Control.STOP, Control.SHUTDOWN):
            self._stop(_SHUTDOWN_DRAIN if control == Control.SHUTDOWN else None)
        elif control == Control.PARAMCHANGE:
            self._hand_over(self._reload)
        else:
            return ERROR_CALL_NOT_IMPLEMENTED
        return NO_ERROR

    def _stop(self, drain_limit: float | None) -> None:
        if drain_limit is not None:
            self._drain_limit, self._stop_hint = drain_limit, drain_limit + 1
        self._reports.tell(Status(State.STOP_PENDING, wait_hint=self._stop_hint))
        self._hand_over(lambda served: served.stopping.set())

    def _hand_over(self, act: Callable[[Served], None]) -> None:
        """To the loop's thread; nothing while there is none: it starts, or has ended."""
        with self._lock:
            if self._loop is not None and self._served is not None:
                self._loop.call_soon_threadsafe(act, self._served)

    def _reload(self, served: Served) -> None:
        self._keep(asyncio.get_running_loop().create_task(self._reloaded(served)))

    async def _reloaded(self, served: Served) -> None:
        answer = await served.reload()
        if not answer.get("ok"):
            problems = "; ".join(map(str, answer.get("problems", [])))
            self._dispatcher.complain(f"policies refused, the last good ones stay: {problems}")

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
