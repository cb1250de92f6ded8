"""The whole service in the test's own event loop, with real sockets on loopback.

    async with origin(handler) as server, live(tmp_path, server.endpoint, POLICY) as service:
        async with client(service) as (reader, writer): ...

Leaving `live` asserts that nothing is left: no flow, no task, no descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.model import Endpoint
from proxy.service.app import Service
from proxy.settings import load_settings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_SECONDS = 40.0
EMPTY = "version: 1\npolicy: test\ndescription: Nothing.\nrules: []\n"


@dataclass
class Origin:
    """A server whose every connection is one call of a handler; errors are kept."""

    endpoint: Endpoint
    connections: int = 0
    errors: list[BaseException] = field(default_factory=list)


@contextlib.asynccontextmanager
async def origin(handler: Handler) -> AsyncIterator[Origin]:
    """A scripted server on 127.0.0.1."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            server.errors.append(error)
        finally:
            writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0)
    server = Origin(Endpoint.of(listening.sockets[0].getsockname()))
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Live:
    service: Service
    policies: Path
    events_file: Path

    @property
    def endpoint(self) -> Endpoint:
        return self.service.listening[0]

    def events(self, action: str | None = None) -> list[dict[str, Any]]:
        """What has been written so far; complete only after `live` has been left."""
        lines = self.events_file.read_text().splitlines() if self.events_file.exists() else []
        found = [json.loads(line) for line in lines]
        return [event for event in found if action in (None, event["event.action"])]

    def write_policy(self, text: str, name: str = "test.yaml") -> None:
        (self.policies / name).write_text(text)


@contextlib.asynccontextmanager
async def live(
    tmp_path: Path,
    upstream: Endpoint | None,
    policy: str = EMPTY,
    *,
    config: Path | None = None,
    **flags: object,
) -> AsyncIterator[Live]:
    """A running service; `flags` are settings with __ for the dot (times__idle_seconds=1),
    over those of the file `config`."""
    policies = tmp_path / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "test.yaml").write_text(policy)
    events = tmp_path / "events.jsonl"
    wanted: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "admin.listen": "127.0.0.1:0",
        "policies": str(policies),
        "events.path": str(events),
        "times.drain_seconds": 2.0,
    }
    if upstream is not None:
        wanted["redirect.upstream"] = str(upstream)
    wanted |= {key.replace("__", "."): value for key, value in flags.items()}
    before = _open_descriptors()
    tasks = asyncio.all_tasks()
    settings = load_settings(config, environment={}, flags=wanted)
    service = Service(settings, asyncio.get_running_loop())
    try:
        async with asyncio.timeout(_SECONDS):  # pytest's own alarm does not get through uvloop
            await service.start()
            yield Live(service, policies, events)
            await service.drain()
    finally:
        await service.close()
    assert service.status()["flows_open"] == 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):  # a scripted server may still be reading its FIN
            while not asyncio.all_tasks() <= tasks:
                await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= tasks, "the service left a task behind"
    gc.collect()
    assert _open_descriptors() <= before + 2, "the service left descriptors open"


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@contextlib.asynccontextmanager
async def client(
    service: Live,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(service.endpoint.host, service.endpoint.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(service: Live, request: bytes) -> bytes:
    """One connection: send, read to the end. Raises what the socket raises."""
    async with client(service) as (reader, writer):
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)


def send_rst(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
