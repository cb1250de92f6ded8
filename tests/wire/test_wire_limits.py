"""Time-outs, refusals and the end of the service: each bounded, named and written down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.model import Endpoint
from tests.support.live import ask, client, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"


async def silent(reader: Reader, writer: Writer) -> None:
    """A server that reads and never answers."""
    await reader.read()


@contextlib.contextmanager
def black_hole() -> Iterator[Endpoint]:
    """A port that answers no SYN: its accept queue is full."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listening.getsockname()
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(address)
        fillers.append(filler)
    try:
        yield Endpoint.of(address)
    finally:
        for sock in (*fillers, listening):
            sock.close()


async def test_a_server_that_does_not_answer_the_dial_is_504(tmp_path: Path) -> None:
    with black_hole() as nowhere:
        async with live(tmp_path, nowhere, times__connect_seconds=0.3) as service:
            answer = await ask(service, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 504 ")


async def test_a_client_that_leaves_during_the_dial_ends_it(tmp_path: Path) -> None:
    with black_hole() as nowhere:
        async with live(tmp_path, nowhere, times__connect_seconds=30.0) as service:
            async with client(service) as (_reader, writer):
                writer.write(GET)
                await flows(service, 1)
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
                await flows(service, 0)  # long before the dial's time-out


async def test_a_slow_request_head_is_408(tmp_path: Path) -> None:
    async with origin(silent) as server:
        async with live(tmp_path, server.endpoint, limits__head_seconds=0.3) as service:
            answer = await ask(service, b"GET / HTTP/1.1\r\nHo")
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_half_a_method_and_then_silence_is_undecided_and_refused(tmp_path: Path) -> None:
    """Too little to say what it is: the exception policy decides, once the time is over."""
    http = "rules: [{id: r, layer: http_request, when: {path: /x}, then: {block: true}}]"
    policy = f"version: 1\npolicy: test\ndescription: HTTP rules.\n{http}\n"
    async with origin(silent) as server:
        async with live(tmp_path, server.endpoint, policy, limits__detect_seconds=0.3) as service:
            with pytest.raises(ConnectionResetError):
                await ask(service, b"GE")
        async with live(
            tmp_path, server.endpoint, policy, limits__detect_seconds=0.3,
            exceptions__undecided="open",
        ) as lenient:  # fmt: skip
            async with client(lenient) as (_reader, writer):
                writer.write(b"GE")
                await flows(lenient, 1)
                async with asyncio.timeout(5):
                    while server.connections < 2:
                        await asyncio.sleep(0.01)
                await exceptions(lenient, "undecided", "open")
    applied = service.events("EXCEPTION_POLICY")
    assert [(e["sluicegate.exception.cause"], e["sluicegate.exception.action"]) for e in applied][
        :1
    ] == [("undecided", "closed")]


async def test_an_idle_keep_alive_connection_is_closed_without_a_word(tmp_path: Path) -> None:
    async def once(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()

    async with origin(once) as server:
        async with live(tmp_path, server.endpoint, limits__keepalive_seconds=0.3) as service:
            assert await ask(service, GET) == b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_a_server_that_never_answers_is_504_after_the_idle_limit(tmp_path: Path) -> None:
    async with origin(silent) as server:
        async with live(tmp_path, server.endpoint, times__idle_seconds=0.5) as service:
            assert (await ask(service, GET)).startswith(b"HTTP/1.1 504 ")


async def test_a_client_that_reads_nothing_is_given_up(tmp_path: Path) -> None:
    async def flood(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    async with origin(flood) as server:
        async with live(tmp_path, server.endpoint, times__write_seconds=0.5) as service:
            async with client(service) as (_reader, writer):
                writer.transport.pause_reading()
                writer.write(GET)
                await flows(service, 1)
                await flows(service, 0)
    assert [f["sluicegate.outcome"] for f in service.events("ENDPOINT_CLOSURE")] == ["timeout"]


@pytest.mark.parametrize("action", ["closed", "open"])
async def test_more_flows_than_the_limit(tmp_path: Path, action: str) -> None:
    async with origin(silent) as server:
        async with live(
            tmp_path, server.endpoint, max_flows=1, exceptions__overload=action
        ) as service:
            async with client(service):
                await flows(service, 1)
                if action == "open":
                    async with client(service):
                        await flows(service, 2)
                else:
                    with pytest.raises(ConnectionResetError):
                        await ask(service, GET)
    applied = service.events("EXCEPTION_POLICY")
    assert [
        (e["sluicegate.exception.cause"], e["sluicegate.exception.action"]) for e in applied
    ] == [("overload", action)]


async def test_a_client_on_a_port_of_our_own_dials_is_not_taken_for_a_loop(
    tmp_path: Path,
) -> None:
    """On one machine two connections may share a local port, if they go to different places."""

    async def serve(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async with origin(serve) as server, live(tmp_path, server.endpoint) as service:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        ends = (Endpoint.of(sock.getsockname()), server.endpoint)
        service.service.services.dialled.add(ends)
        sock.connect((service.endpoint.host, service.endpoint.port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
        writer.close()


async def test_draining_lets_an_exchange_finish_and_closes_the_idle(tmp_path: Path) -> None:
    finish = asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await finish.wait()
        writer.write(b"lf")
        await reader.read()

    async with origin(slow) as server:
        async with live(tmp_path, server.endpoint) as service:
            async with client(service) as (reader, writer), client(service) as (idle, _):
                writer.write(GET)
                await reader.readuntil(b"ha")
                draining = asyncio.ensure_future(service.service.drain())
                assert await idle.read() == b""
                with pytest.raises(OSError, match=r"."):
                    await asyncio.open_connection(service.endpoint.host, service.endpoint.port)
                finish.set()
                assert await reader.read() == b"lf"
                await draining


async def test_what_does_not_finish_is_cut_at_the_drain_limit(tmp_path: Path) -> None:
    async with origin(silent) as server:
        async with live(tmp_path, server.endpoint, times__drain_seconds=0.2) as service:
            async with client(service) as (reader, writer):
                writer.write(GET)
                await flows(service, 1)
                await service.service.drain()
                with pytest.raises(ConnectionResetError):
                    await reader.read()
    assert [f["sluicegate.outcome"] for f in service.events("ENDPOINT_CLOSURE")] == ["drained"]


async def flows(service: object, number: int) -> None:
    """Wait until so many flows are open."""
    async with asyncio.timeout(8):
        while service.service.status()["flows_open"] != number:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


async def exceptions(service: object, cause: str, action: str) -> None:
    """Wait until a row of the exception table was used."""
    async with asyncio.timeout(8):
        while not any(
            event["sluicegate.exception.cause"] == cause
            and event["sluicegate.exception.action"] == action
            for event in service.events("EXCEPTION_POLICY")  # type: ignore[attr-defined]
        ):
            await asyncio.sleep(0.02)
