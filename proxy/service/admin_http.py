"""A small bounded HTTP/1.1 server for the admin endpoint: h11 on asyncio streams.

Bounds: connections, bytes of a head, bytes of a request body (read and thrown away), seconds
for a whole request, seconds for a reply to be taken. A slow or hostile client costs one
connection, never the loop. RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

import h11

from proxy.errors import StartError
from proxy.model import Endpoint

_MAX_CONNECTIONS = 64
_HEAD_BYTES = 16 * 1024
_BODY_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
_READ_SECONDS = 15.0  #: for a request, idle time before it included
_WRITE_SECONDS = 10.0

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What an admin route needs to know of a request. Header keys are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    client: Endpoint
    local: Endpoint


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = field(default=())


Answer = Callable[[Request], Awaitable[Reply]]


class HttpServer:
    """Answers every request of every connection by `answer`."""

    def __init__(
        self,
        answer: Answer,
        *,
        max_connections: int = _MAX_CONNECTIONS,
        read_seconds: float = _READ_SECONDS,
        write_seconds: float = _WRITE_SECONDS,
    ) -> None:
        self._answer = answer
        self._max_connections = max_connections
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], None] = {}  # for a request; oldest first

    async def start(self, endpoint: Endpoint) -> Endpoint:
        """Bind and serve; the endpoint with the real port. Raises StartError."""
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        try:
            sock = socket.create_server((endpoint.host, endpoint.port), family=family)
        except OSError as error:
            raise StartError(
                f"cannot listen for administration on {endpoint}: {error.strerror}; "
                f"choose another address with --admin, or end what holds it"
            ) from error
        self._server = await asyncio.start_server(self._connected, sock=sock, limit=_READ_BYTES)
        return Endpoint.of(sock.getsockname())

    async def stop(self) -> None:
        """Close the listening socket and every connection."""
        if self._server is None:
            return
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """When full, the connection that has waited longest gives way; if none waits, this one."""
        if len(self._tasks) >= self._max_connections:
            if not self._waiting:
                writer.transport.abort()
                return
            idle = next(iter(self._waiting))
            self._tasks.discard(idle)
            del self._waiting[idle]
            idle.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, closed whatever happens."""
        writer.transport.set_write_buffer_limits(0)  # drain() then means: the kernel has it all
        names = [writer.get_extra_info(key) for key in ("peername", "sockname")]
        try:
            if all(names):
                client, local = map(Endpoint.of, names)
                await self._converse(reader, writer, client, local)
        except (OSError, TimeoutError):
            writer.transport.abort()  # the client is gone, or too slow
        finally:
            writer.close()

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: Endpoint,
        local: Endpoint,
    ) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        while True:
            head_only = False
            try:
                head = await self._read(connection, reader)
                if head is None:
                    return
                request = _request(head, client, local)
                head_only = request.method == "HEAD"
                reply = await self._guarded(request)
            except h11.RemoteProtocolError as error:
                reply = Reply(error.error_status_hint, f"{error}\n".encode())
            writer.write(_message(connection, reply, head_only))
            async with asyncio.timeout(self._write_seconds):
                await writer.drain()
            if connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                return
            connection.start_next_cycle()
            await asyncio.sleep(0)  # flows have their turn between pipelined requests

    async def _read(
        self, connection: h11.Connection, reader: asyncio.StreamReader
    ) -> h11.Request | None:
        """The next request, its body thrown away; None at a clean end."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = None
        try:
            async with asyncio.timeout(self._read_seconds):
                return await _read_request(connection, reader)
        finally:
            self._waiting.pop(task, None)

    async def _guarded(self, request: Request) -> Reply:
        """A fault of ours is a 500 to this client and a line in the log, nothing more."""
        try:
            return await self._answer(request)
        except Exception as error:  # noqa: BLE001 - the outermost frame of an admin request
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"admin {request.path} failed", "exception": error}
            )
            return Reply(500, b"internal error; see the log\n")


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> h11.Request | None:
    head: h11.Request | None = None
    taken = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            # Nobody gets a 100: the answer does not depend on the body (RFC 9110 10.1.1).
            if head is not None and connection.they_are_waiting_for_100_continue:
                return head
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            taken += len(event.data)
            if taken > _BODY_BYTES:
                raise h11.RemoteProtocolError("request body too long", 413)
        elif isinstance(event, h11.EndOfMessage):
            return head
        else:  # ConnectionClosed; PAUSED cannot be: every answer starts the next cycle
            return None


def _request(head: h11.Request, client: Endpoint, local: Endpoint) -> Request:
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in head.headers}
    path = head.target.decode("latin-1").partition("?")[0]
    return Request(head.method.decode("latin-1"), path, headers, client, local)


def _message(connection: h11.Connection, reply: Reply, head_only: bool) -> bytes:
    """The reply's bytes. Nothing here is for a cache or for a sniffing browser."""
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", reply.content_type),
        ("Content-Length", str(len(reply.body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *reply.headers,
    ]
    parts = [connection.send(h11.Response(status_code=reply.status, headers=headers))]
    if reply.body and not head_only:
        parts.append(connection.send(h11.Data(data=reply.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part or b"" for part in parts)
