"""The client of `sluicegate status` and `reload`, against a real endpoint and against others."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy.account.metrics import Counters
from proxy.errors import AdminError
from proxy.model import Endpoint
from proxy.service.admin import AdminServer
from proxy.service.admin_http import HttpServer, Reply, Request
from proxy.service.client import fetch_status, request_reload


def make_server(answer: dict[str, Any], host: str = "127.0.0.1") -> AdminServer:
    async def reload() -> dict[str, Any]:
        return answer

    return AdminServer(
        Endpoint(host, 0),
        metrics=Counters(),
        status=lambda: {"state": "ready"},
        reload=reload,
        ready=lambda: True,
        token="secret",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_status(host: str) -> None:
    server = make_server({}, host)
    await server.start()
    endpoint = Endpoint(host, server.endpoint.port)
    assert await asyncio.to_thread(fetch_status, endpoint) == {"state": "ready"}
    await server.stop()


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": True, "generation": 2, "problems": []},
        {"ok": False, "generation": 1, "problems": ["a.yaml:1:1: no"]},
    ],
)
async def test_a_reload_is_an_answer_also_when_it_is_refused(answer: dict[str, Any]) -> None:
    server = make_server(answer)
    await server.start()
    assert await asyncio.to_thread(request_reload, server.endpoint, "secret") == answer
    await server.stop()


async def test_a_wrong_token() -> None:
    server = make_server({})
    await server.start()
    with pytest.raises(AdminError, match="401: the admin token is not right"):
        await asyncio.to_thread(fetch_status, server.endpoint, "wrong")
    await server.stop()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        endpoint = Endpoint.of(sock.getsockname())
    with pytest.raises(AdminError, match="is the service running"):
        fetch_status(endpoint)


@pytest.mark.parametrize("body", [b"<html>hello", b"[1]", b""])
async def test_somebody_else_answers(body: bytes) -> None:
    async def answer(request: Request) -> Reply:
        return Reply(200, body)

    server = HttpServer(answer)
    endpoint = await server.start(Endpoint("127.0.0.1", 0))
    with pytest.raises(AdminError, match="is not Sluicegate's admin endpoint"):
        await asyncio.to_thread(fetch_status, endpoint)
    await server.stop()


async def test_somebody_who_does_not_speak_http() -> None:
    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-test\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    endpoint = Endpoint.of(server.sockets[0].getsockname())
    with pytest.raises(AdminError, match=r"is not Sluicegate's|cannot talk to"):
        await asyncio.to_thread(request_reload, endpoint)
    server.close()
    await server.wait_closed()
