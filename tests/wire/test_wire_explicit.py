"""The explicit provider as `curl -x` uses it: absolute-form, CONNECT, and what is refused."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.live import EMPTY, Live, ask, client, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
EXPLICIT = {"redirect__provider": "explicit"}


def named(name: bytes):  # type: ignore[no-untyped-def]
    """A keep-alive server that answers with its name and what it was asked for."""

    async def serve(reader: Reader, writer: Writer) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line = name + b" " + head.split(b"\r\n")[0]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line))

    return serve


async def answer(reader: Reader) -> bytes:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


async def test_one_connection_asks_two_servers_in_turn(tmp_path: Path) -> None:
    async with origin(named(b"one")) as one, origin(named(b"two")) as two:
        async with live(tmp_path, None, **EXPLICIT) as service:
            async with client(service) as (reader, writer):
                for server, name in ((one, b"one"), (two, b"two"), (one, b"one")):
                    host = str(server.endpoint)
                    writer.write(f"GET http://{host}/p HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    assert await answer(reader) == name + b" GET /p HTTP/1.1"
        assert (one.connections, two.connections) == (2, 1)


async def test_connect_is_a_tunnel_whose_inside_is_inspected(tmp_path: Path) -> None:
    policy = EMPTY.replace(
        "rules: []",
        "rules: [{id: r, layer: http_request, when: {path: /no}, then: {block: {status: 403}}}]",
    )
    async with origin(named(b"one")) as one:
        async with live(tmp_path, None, policy, **EXPLICIT) as service:
            async with client(service) as (reader, writer):
                writer.write(f"CONNECT {one.endpoint} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                writer.write(b"GET /yes HTTP/1.1\r\nHost: a\r\n\r\n")
                assert await answer(reader) == b"one GET /yes HTTP/1.1"
                writer.write(b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("form", ["CONNECT {0} HTTP/1.1", "GET http://{0}/ HTTP/1.1"])
async def test_a_destination_that_policy_forbids_is_told_so(tmp_path: Path, form: str) -> None:
    async with origin(named(b"one")) as one:
        policy = EMPTY.replace(
            "rules: []",
            f"rules: [{{id: r, layer: auth_connect, when: {{dst.port: {one.endpoint.port}}},"
            " then: {block: true}}]",
        )
        async with live(tmp_path, None, policy, **EXPLICIT) as service:
            request = form.format(one.endpoint) + f"\r\nHost: {one.endpoint}\r\n\r\n"
            told = await ask_until_head(service, request.encode())
        assert told.startswith(b"HTTP/1.1 403 ")
        assert one.connections == 0


@pytest.mark.parametrize("form", ["CONNECT {0} HTTP/1.1", "GET http://{0}/ HTTP/1.1"])
async def test_a_destination_that_is_not_there_is_502(tmp_path: Path, form: str) -> None:
    async with origin(named(b"one")) as one:
        gone = one.endpoint
    async with live(tmp_path, None, **EXPLICIT) as service:
        request = form.format(gone) + f"\r\nHost: {gone}\r\n\r\n"
        assert (await ask_until_head(service, request.encode())).startswith(b"HTTP/1.1 502 ")


async def test_the_proxy_is_no_way_to_itself_or_to_its_admin_endpoint(tmp_path: Path) -> None:
    async with live(tmp_path, None, **EXPLICIT) as service:
        for own in (str(service.endpoint), str(service.service.status()["admin"])):
            with pytest.raises(ConnectionResetError):
                await ask(service, f"CONNECT {own} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reasons = [event.get("sluicegate.reason") for event in service.events("CLASSIFY_DROP")]
    assert reasons == ["self", "self"]


async def test_a_request_that_is_not_for_a_proxy_is_400(tmp_path: Path) -> None:
    async with live(tmp_path, None, **EXPLICIT) as service:
        told = await ask(service, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * 20_000)
    assert told.startswith(b"HTTP/1.1 400 ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="not installed: curl")
@pytest.mark.parametrize("extra", [(), ("--proxytunnel",), ("--http1.0",)])
async def test_curl_through_it(tmp_path: Path, extra: tuple[str, ...]) -> None:
    async with origin(named(b"one")) as one, live(tmp_path, None, **EXPLICIT) as service:
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "--noproxy", "", "-x", f"http://{service.endpoint}", *extra,
            f"http://{one.endpoint}/x", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
    assert out.startswith(b"one GET /x HTTP/1.")


async def ask_until_head(service: Live, request: bytes) -> bytes:
    async with client(service) as (reader, writer):
        writer.write(request)
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
