"""Rules that answer in the place of the server: it is not even dialled."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.live import ask, client, live, origin

POLICY = """
version: 1
policy: local
description: Answers of our own.
rules:
  - id: later
    layer: http_request
    when: {path: /later}
    then: {respond: {status: 503, text: "Come back later."}}
  - id: files
    layer: http_request
    when: {path: "/static/*"}
    then: {map_local: {prefix: /static/, dir: www, missing: pass}}
  - id: mark
    layer: http_request
    weight: 200
    then: {headers: {set: {X-Mark: seen}}}
"""


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a.test", *fields, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with what it was asked."""
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


def files(tmp_path: Path) -> None:
    (tmp_path / "policies" / "www" / "sub").mkdir(parents=True)
    (tmp_path / "policies" / "www" / "app.js").write_text("alert(1)")
    (tmp_path / "policies" / "www" / "sub" / "index.html").write_text("<p>in</p>")


async def test_the_server_is_not_dialled_for_answers_of_our_own(tmp_path: Path):
    files(tmp_path)
    async with origin(echo) as server, live(tmp_path, server.endpoint, POLICY) as service:
        answer = await ask(service, get("/later"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"\r\n\r\nCome back later.")
        answer = await ask(service, get("/static/app.js"))
        assert answer.endswith(b"\r\n\r\nalert(1)")
        assert b"javascript" in answer
        assert (await ask(service, get("/static/sub/"))).endswith(b"<p>in</p>")
        assert server.connections == 0
        assert b"X-Mark: seen" in await ask(service, get("/static/none.js"))
        assert b"GET /other" in await ask(service, get("/other"))
        assert server.connections == 2


async def test_one_connection_may_need_the_server_later(tmp_path: Path):
    files(tmp_path)
    async with origin(echo) as server, live(tmp_path, server.endpoint, POLICY) as service:
        async with client(service) as (reader, writer):
            writer.write(get("/later").replace(b"Connection: close\r\n", b""))
            assert b"503" in await reader.readline()
            await reader.readuntil(b"later.")
            assert server.connections == 0
            writer.write(get("/other"))
            assert b"GET /other" in await reader.read()


async def test_files_are_validated_by_etag_and_paths_lead_nowhere_else(tmp_path: Path):
    files(tmp_path)
    async with origin(echo) as server, live(tmp_path, server.endpoint, POLICY) as service:
        answer = await ask(service, get("/static/app.js", method="HEAD"))
        assert b"Content-Length: 8\r\n" in answer
        etag = next(line for line in answer.split(b"\r\n") if line.startswith(b"ETag: "))[
            6:
        ].decode()
        again = await ask(service, get("/static/app.js", f"If-None-Match: {etag}"))
        assert again.startswith(b"HTTP/1.1 304 ")
        refused = await ask(service, get("/static/app.js", "Content-Length: 0", method="POST"))
        assert refused.startswith(b"HTTP/1.1 405 ")
        outside = await ask(service, get("/static/..%2ftest.yaml"))
        assert b"version: 1" not in outside


async def test_a_server_that_speaks_first_is_dialled_for_a_silent_client(tmp_path: Path):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read()

    files(tmp_path)
    async with origin(greet) as server, live(tmp_path, server.endpoint, POLICY) as service:
        async with client(service) as (reader, _):
            assert await asyncio.wait_for(reader.readline(), 5) == b"220 ready\r\n"
