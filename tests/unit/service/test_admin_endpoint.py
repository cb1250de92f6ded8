"""The admin endpoint over real sockets: routes, who may ask, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.account.metrics import Counters
from proxy.errors import StartError
from proxy.model import Endpoint
from proxy.service.admin import AdminServer
from proxy.service.admin_http import HttpServer, Reply, Request

LOOPBACK = Endpoint("127.0.0.1", 0)


class Service:
    """What the endpoint reports on."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.ready = True
        self.reloads = 0
        self.problems: list[str] = []
        self.fault: Exception | None = None

    def status(self) -> dict[str, Any]:
        if self.fault is not None:
            raise self.fault
        return {"version": "1", "flows_open": 3}

    async def reload(self) -> dict[str, Any]:
        self.reloads += 1
        return {"ok": not self.problems, "generation": 7, "problems": self.problems}

    @asynccontextmanager
    async def serve(
        self, endpoint: Endpoint = LOOPBACK, token: str | None = None
    ) -> AsyncIterator[AdminServer]:
        server = AdminServer(
            endpoint,
            metrics=self.counters,
            status=self.status,
            reload=self.reload,
            ready=lambda: self.ready,
            token=token,
        )
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


class Answer:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        pairs = (line.split(": ", 1) for line in lines[1:])
        self.headers = {name.lower(): value for name, value in pairs}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def exchange(port: int, raw: bytes, *, host: str = "127.0.0.1") -> bytes:
    """Send, then read until the server closes."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(raw)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def ask(
    server: AdminServer, line: str, *headers: str, host: str | None = "localhost"
) -> Answer:
    """One request, `line` being METHOD TARGET."""
    lines = [f"{line} HTTP/1.1", *headers, "Connection: close"]
    if host is not None:
        lines.insert(1, f"Host: {host}")
    raw = "\r\n".join([*lines, "", ""]).encode()
    return Answer(await exchange(server.endpoint.port, raw))


async def test_metrics_in_both_formats() -> None:
    service = Service()
    async with service.serve() as server:
        service.counters.accept_error()
        plain = await ask(server, "GET /metrics")
        assert plain.status == 200
        assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"sluicegate_accept_errors_total 1.0\n" in plain.body
        accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        modern = await ask(server, "GET /metrics?x=y", accept)
        assert modern.headers["content-type"].startswith("application/openmetrics-text")
        assert modern.body.endswith(b"# EOF\n")


async def test_a_flood_of_scrapes_gets_the_last_exposition_again() -> None:
    service = Service()
    async with service.serve() as server:
        built = 0
        original = service.counters.expose

        def expose(accept: str = "") -> tuple[bytes, str]:
            nonlocal built
            built += 1
            return original(accept)

        service.counters.expose = expose  # type: ignore[method-assign]
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        raw = await exchange(server.endpoint.port, request * 199 + last)
        assert raw.count(b"HTTP/1.1 200 ") == 200
        assert built < 100
        other = await ask(server, "GET /metrics", "Accept: application/openmetrics-text")
        assert other.status in (200, 429)


async def test_health_and_readiness() -> None:
    service = Service()
    async with service.serve() as server:
        assert (await ask(server, "GET /healthz")).status == 200
        assert (await ask(server, "GET /readyz")).status == 200
        service.ready = False
        assert (await ask(server, "GET /healthz")).status == 200
        assert (await ask(server, "GET /readyz")).status == 503


async def test_status_is_json() -> None:
    async with Service().serve() as server:
        answer = await ask(server, "GET /status")
        assert answer.json == {"version": "1", "flows_open": 3}
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"


async def test_reload_tells_success_and_problems() -> None:
    service = Service()
    async with service.serve() as server:
        good = await ask(server, "POST /-/reload")
        assert (good.status, good.json["ok"], good.json["generation"]) == (200, True, 7)
        service.problems = ["a.yaml:3:1: no"]
        bad = await ask(server, "POST /-/reload", "Content-Length: 0")
        assert (bad.status, bad.json["problems"]) == (422, ["a.yaml:3:1: no"])


@pytest.mark.parametrize(
    ("line", "status", "allow"),
    [
        ("GET /", 404, None),
        ("GET http://localhost/status", 404, None),
        ("GET /-/reload", 405, "POST"),
        ("HEAD /-/reload", 405, "POST"),
        ("POST /metrics", 405, "GET, HEAD"),
        ("OPTIONS /status", 405, "GET, HEAD"),
    ],
)
async def test_what_is_not_served(line: str, status: int, allow: str | None) -> None:
    service = Service()
    async with service.serve() as server:
        answer = await ask(server, line)
        assert answer.status == status
        assert answer.headers.get("allow") == allow
        assert service.reloads == 0


async def test_head_has_the_length_and_no_body() -> None:
    async with Service().serve() as server:
        get, head = await ask(server, "GET /status"), await ask(server, "HEAD /status")
        assert head.body == b""
        assert head.headers["content-length"] == get.headers["content-length"]


async def test_keep_alive_and_pipelining() -> None:
    async with Service().serve() as server:
        one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        raw = await exchange(server.endpoint.port, one + one + last)
        assert raw.count(b"HTTP/1.1 200 ") == 3
        assert raw.endswith(b"ready\n")


@pytest.mark.parametrize("host", ["evil.test", "localhost.evil.test", "169.254.169.254", "[::2]"])
async def test_a_rebound_name_is_misdirected(host: str) -> None:
    service = Service()
    async with service.serve(token="secret") as server:
        port = server.endpoint.port
        for line in ("GET /metrics", "GET /status", "POST /-/reload"):
            answer = await ask(server, line, "Authorization: Bearer secret", host=f"{host}:{port}")
            assert answer.status == 421
        assert service.reloads == 0


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:80", "[::1]:9", "::1"])
async def test_our_own_names_are_served(host: str) -> None:
    async with Service().serve() as server:
        expected = 421 if host == "::1" else 200  # an IPv6 literal has brackets (RFC 3986 3.2.2)
        assert (await ask(server, "GET /status", host=host)).status == expected


async def test_a_web_page_cannot_reload() -> None:
    service = Service()
    async with service.serve() as server:
        answer = await ask(server, "POST /-/reload", "Origin: https://evil.test")
        assert answer.status == 403
        assert service.reloads == 0


async def test_a_token_that_is_wrong_is_refused_even_on_loopback() -> None:
    async with Service().serve(token="secret") as server:
        assert (await ask(server, "GET /status")).status == 200
        wrong = await ask(server, "GET /status", "Authorization: Bearer nope")
        assert (wrong.status, wrong.headers["www-authenticate"]) == (401, "Bearer")
        assert (await ask(server, "GET /status", "Authorization: Basic secret")).status == 401
        assert (await ask(server, "GET /status", "Authorization: bearer secret")).status == 200


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (None, {}, 403),
        (None, {"authorization": "Bearer x"}, 403),
        ("secret", {}, 401),
        ("secret", {"authorization": "Bearer sécret"}, 401),
        ("secret", {"authorization": "Bearer secret"}, 200),
    ],
)
async def test_clients_elsewhere_need_the_token(
    monkeypatch: pytest.MonkeyPatch, token: str | None, headers: dict[str, str], status: int
) -> None:
    # The machine that tests run on may have no address but loopback: hand the request over.
    captured: list[Callable[[Request], Awaitable[Reply]]] = []
    original = HttpServer.__init__

    def capture(self: HttpServer, answer: Callable[[Request], Awaitable[Reply]]) -> None:
        captured.append(answer)
        original(self, answer)

    monkeypatch.setattr(HttpServer, "__init__", capture)
    service = Service()
    AdminServer(
        LOOPBACK,
        metrics=service.counters,
        status=service.status,
        reload=service.reload,
        ready=lambda: True,
        token=token,
    )
    answer = captured[0]
    away = (Endpoint("192.0.2.9", 5), Endpoint("192.0.2.1", 9))
    for method, path in (("GET", "/status"), ("POST", "/-/reload")):
        reply = await answer(Request(method, path, {"host": "gate.test"} | headers, *away))
        assert reply.status == status
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await answer(Request("GET", path, {"host": "gate.test"}, *away))).status == 200


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, 431),
    ],
)
async def test_what_is_not_http_gets_an_error_and_a_close(raw: bytes, status: int) -> None:
    async with Service().serve() as server:
        assert Answer(await exchange(server.endpoint.port, raw)).status == status
        assert (await ask(server, "GET /healthz")).status == 200


async def test_a_body_is_read_away_up_to_a_bound() -> None:
    service = Service()
    async with service.serve() as server:
        head = "POST /-/reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        fits = f"{head}Content-Length: 9\r\n\r\n123456789".encode()
        assert Answer(await exchange(server.endpoint.port, fits)).status == 200
        waits = f"{head}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode()
        assert Answer(await exchange(server.endpoint.port, waits)).status == 200
        over = f"{head}Content-Length: 65537\r\n\r\n".encode() + b"x" * 65537
        assert Answer(await exchange(server.endpoint.port, over)).status == 413
        assert service.reloads == 2


async def test_a_fault_of_ours_is_a_500_and_told_to_the_log() -> None:
    service = Service()
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    async with service.serve() as server:
        service.fault = ZeroDivisionError("secret detail")
        answer = await ask(server, "GET /status")
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        service.fault = None
        assert (await ask(server, "GET /status")).status == 200


async def test_an_address_in_use_says_what_to_do() -> None:
    async with Service().serve() as server:
        with pytest.raises(StartError, match=r"cannot listen for administration.*--admin"):
            async with Service().serve(server.endpoint):
                pass


async def test_ipv6() -> None:
    async with Service().serve(Endpoint("::1", 0)) as server:
        raw = b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n"
        answer = Answer(await exchange(server.endpoint.port, raw, host="::1"))
        assert answer.status == 200


async def test_idle_and_slow_clients_are_closed() -> None:
    async def answer(request: Request) -> Reply:
        return Reply(200, b"ok")

    server = HttpServer(answer, read_seconds=0.05)
    endpoint = await server.start(LOOPBACK)
    assert await exchange(endpoint.port, b"") == b""
    assert await exchange(endpoint.port, b"GET / HTTP/1.1\r\nHost:") == b""
    await server.stop()


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async def answer(request: Request) -> Reply:
        return Reply(200, b"x" * 64_000_000)

    server = HttpServer(answer, write_seconds=0.05)
    endpoint = await server.start(LOOPBACK)
    before = asyncio.all_tasks()
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.readexactly(1)
        await asyncio.wait(asyncio.all_tasks() - before)  # the server has lost its patience
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(64_000_000)
    writer.close()
    await server.stop()


async def test_when_full_the_longest_idle_gives_way_to_who_asks() -> None:
    async def answer(request: Request) -> Reply:
        return Reply(200, b"ok")

    server = HttpServer(answer, max_connections=3)
    endpoint = await server.start(LOOPBACK)
    idle = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(3)]
    for _, writer in idle:  # a request each, so that all three are known to be served
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for reader, _ in idle:
        await reader.readuntil(b"ok")
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert Answer(await exchange(endpoint.port, request)).status == 200
    async with asyncio.timeout(10):
        assert await idle[0][0].read() == b""
    for _, writer in idle:
        writer.close()
    await server.stop()


async def test_stop_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with Service().serve() as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.endpoint.port) for _ in range(5)]
        assert (await ask(server, "GET /healthz")).status == 200
    assert asyncio.all_tasks() == before
    for reader, writer in idle:
        assert await reader.read() == b""
        writer.close()


async def test_a_pipelining_client_does_not_keep_the_loop_for_itself() -> None:
    served = turns = 0

    async def answer(request: Request) -> Reply:
        nonlocal served
        served += 1
        return Reply(200, b"ok")

    async def others() -> None:
        nonlocal turns
        while served < 200:
            turns += bool(served)
            await asyncio.sleep(0)

    server = HttpServer(answer)
    endpoint = await server.start(LOOPBACK)
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = request[:-2] + b"Connection: close\r\n\r\n"
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(others())
        group.create_task(exchange(endpoint.port, request * 199 + last))
    assert turns >= 150
    await server.stop()
