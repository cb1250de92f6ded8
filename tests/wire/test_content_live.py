"""Content over real sockets, with every filter armed: nothing waits that need not."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.model import Endpoint
from tests.support.live import Live, client, live, origin

ARMED = """
version: 1
policy: armed
description: Every filter at once.
rules:
  - id: banner
    layer: http_response
    then: {inject_banner: "<p>seen</p>"}
  - id: redact
    layer: http_response
    then: {replace_body: [{literal: secret, by: "[gone]"}]}
  - id: no-keys
    layer: http_response_body
    when: {body: BEGIN PRIVATE KEY}
    then: {block: {hold: 64KiB}}
  - id: sniffed
    layer: http_response
    when: {content_type.sniffed: application/x-msdownload}
    then: {block: true}
"""
GET = b"GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n"


def plain() -> Callable[[bytes], bytes]:
    return bytes


def gzipped() -> Callable[[bytes], bytes]:
    coder = zlib.compressobj(wbits=31)
    return lambda data: coder.compress(data) + coder.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_events_and_long_polls_arrive_at_once(tmp_path: Path, coding: str, kind: str):
    """The next event is sent only when the one before has been read: a held one hangs."""
    read_it = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        code = plain() if coding == "identity" else gzipped()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Encoding: {coding}\r\n"
        writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            data = code(b"data: secret %d\n\n" % number)
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await read_it.wait()
            read_it.clear()
        writer.write(b"0\r\n\r\n")

    policy = ARMED.replace("hold: 64KiB", "status: 403") if kind != "text/event-stream" else ARMED
    async with origin(events) as server, live(tmp_path, server.endpoint, policy) as service:
        async with client(service) as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            decoder = zlib.decompressobj(31)
            for number in range(3):
                size = int(await reader.readline(), 16)
                data = (await reader.readexactly(size + 2))[:-2]
                text = data if coding == "identity" else decoder.decompress(data)
                assert text == b"data: [gone] %d\n\n" % number
                read_it.set()


NGINX = """
{user} daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; types {{ text/html html; text/plain txt; application/octet-stream bin; }}
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  gzip on; gzip_types text/plain; gzip_min_length 1; gzip_http_version 1.0;
  server {{ listen 127.0.0.1:{port}; root {dir}/www; }}
}}
"""
EDITS = """
version: 1
policy: edits
description: A banner, and a redaction of notes.
rules:
  - id: banner
    layer: http_response
    then: {inject_banner: "<p>seen</p>"}
  - id: redact
    layer: http_response
    when: {path: "/notes*"}
    then: {replace_body: [{literal: secret, by: "[gone]"}]}
"""
HTML = "<!doctype html><html><body>" + "<p>text</p>" * 500 + "</body></html>"
NOTES = "a secret and " * 5000


@asynccontextmanager
async def nginx(tmp_path: Path) -> AsyncIterator[Endpoint]:
    www = tmp_path / "www"
    www.mkdir()
    (www / "page.html").write_text(HTML)
    (www / "notes.txt").write_text(NOTES)
    (www / "big.bin").write_bytes(bytes(range(256)) * 12_000)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = tmp_path / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # the test's folder is its owner's alone
    config.write_text(NGINX.format(dir=tmp_path, port=port, user=user))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
    process = await asyncio.create_subprocess_exec(str(program), "-c", str(config))
    try:
        async with asyncio.timeout(10):
            while not (tmp_path / "nginx.pid").exists() or not (tmp_path / "nginx.pid").read_text():
                await asyncio.sleep(0.01)
        yield Endpoint("127.0.0.1", port)
    finally:
        process.terminate()
        await process.wait()


async def curl(at: object, *arguments: str) -> bytes:
    """What curl prints for these arguments, {} in them being an address."""
    filled = [argument.replace("{}", str(at)) for argument in arguments]
    done = await asyncio.to_thread(
        subprocess.run, ["curl", "-sS", "--noproxy", "*", *filled], capture_output=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def edited(data: bytes) -> bytes:
    return data.replace(b"<body>", b"<body><p>seen</p>").replace(b"secret", b"[gone]")


@pytest.mark.peers
@pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin") is None or not shutil.which("curl"),
    reason="not installed: nginx, curl",
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("--compressed", "http://{}/page.html"),
        ("--compressed", "http://{}/notes.txt"),
        ("http://{}/page.html",),
        ("--http1.0", "http://{}/page.html"),
        ("--http1.0", "--compressed", "http://{}/notes.txt"),
        ("--compressed", "http://{}/page.html", "http://{}/big.bin", "http://{}/notes.txt"),
        ("-r", "1000-1999", "http://{}/big.bin"),
        ("-r", "1000-1009,5000-5009", "-o", "-", "-H", "X: y", "http://{}/big.bin", "-f"),
    ],
    ids=lambda arguments: " ".join(arguments).replace("http://{}", ""),
)
async def test_curl_gets_the_same_bytes_but_for_the_edit(tmp_path: Path, arguments):
    async with nginx(tmp_path) as server, live(tmp_path, server, EDITS) as service:
        direct = await curl(server, *arguments)
        assert len(direct) > 100
        through = await curl(service.endpoint, *arguments)
        if "1000-1009,5000-5009" in arguments:  # the boundary is another one each time
            assert len(through) == len(direct)
        else:
            assert through == edited(direct)


@pytest.mark.peers
@pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin") is None or not shutil.which("curl"),
    reason="not installed: nginx, curl",
)
async def test_downloads_are_resumed_and_heads_are_heads(tmp_path: Path):
    async with nginx(tmp_path) as server, live(tmp_path, server, EDITS) as service:
        whole = (tmp_path / "www" / "big.bin").read_bytes()
        part = tmp_path / "part.bin"
        part.write_bytes(whole[:1_000_000])
        await curl(service.endpoint, "-C", "-", "-o", str(part), "http://{}/big.bin")
        assert part.read_bytes() == whole
        await _head_matches(service, server)


async def _head_matches(service: Live, server: Endpoint) -> None:
    async def head(at: object) -> set[bytes]:
        lines = (await curl(at, "-I", "http://{}/page.html")).split(b"\r\n")
        return {line for line in lines if not line.startswith(b"Date:")}

    assert await head(service.endpoint) == await head(server)
