"""The service in a thread of its own, while the main thread is occupied with a command."""

from __future__ import annotations

import asyncio
import threading

from proxy.errors import StartError
from proxy.model import Endpoint
from proxy.service.app import Observe, Service
from proxy.service.loops import loop_factory
from proxy.settings import Settings


class ProxyThread:
    """Ready when constructed; `stop` drains and ends it.

    Raises what Service.start raises: RedirectError, PolicyError, StartError, SettingsError.
    """

    def __init__(self, settings: Settings, observe: Observe | None) -> None:
        self._settings = settings
        self._observe = observe
        self._ready = threading.Event()
        self._problem: BaseException | None = None
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            self._thread.join()
            raise self._problem

    @property
    def listening(self) -> Endpoint:
        if self._service is None:
            raise StartError("the proxy is not running")
        return self._service.listening[0]

    def stop(self) -> None:
        """Take the redirect down, let exchanges end, give everything back. Raises its error."""
        loop, service = self._loop, self._service
        if loop is not None and service is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(service.stopping.set)
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._settings.loop)) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._problem = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        service = Service(self._settings, self._loop, observe=self._observe)
        try:
            await service.start()
            self._service = service
            self._ready.set()
            await service.stopping.wait()
            await service.drain()
        finally:
            await service.close()
