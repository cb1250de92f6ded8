"""Bulk goes through the kernel, and nobody can tell by the bytes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
from pathlib import Path

import pytest

from tests.support.live import Live, client, live, origin

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="there is no splice(2) here")
MIB = 1 << 20
BODY = os.urandom(MIB) * 24
DIGEST = hashlib.sha256(BODY).hexdigest()
GET = b"GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
OPAQUE = """
version: 1
policy: test
description: Nothing.
rules: []
"""


def used(service: Live) -> bool:
    pool = service.service.services.pipes
    return pool is not None and pool.made > 0


async def bodies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same large body for every request."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(HEAD)
        writer.write(BODY)
        await writer.drain()


async def take(reader: asyncio.StreamReader) -> str:
    """The digest of one body, by its Content-Length."""
    await reader.readuntil(b"\r\n\r\n")
    found, left = hashlib.sha256(), len(BODY)
    while left:
        data = await reader.read(min(left, MIB))
        assert data, f"{left} bytes are missing"
        found.update(data)
        left -= len(data)
    return found.hexdigest()


async def test_downloads_on_one_connection(tmp_path: Path):
    async with origin(bodies) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            for _ in range(3):
                writer.write(GET)
                assert await take(reader) == DIGEST
        assert used(service)
    ends = service.events("EXCHANGE")
    assert [event["http.response.body.bytes"] for event in ends] == [len(BODY)] * 3
    flow = service.events("ENDPOINT_CLOSURE")[0]
    assert flow["destination.bytes"] == 3 * len(HEAD + BODY)


async def test_without_it_the_same_arrives(tmp_path: Path):
    async with origin(bodies) as server, live(tmp_path, server.endpoint, offload=False) as service:
        async with client(service) as (reader, writer):
            writer.write(GET)
            assert await take(reader) == DIGEST
        assert not used(service)


async def test_more_downloads_than_pipes(tmp_path: Path):
    async def one(service: Live) -> str:
        async with client(service) as (reader, writer):
            writer.write(GET)
            return await take(reader)

    async with origin(bodies) as server, live(tmp_path, server.endpoint) as service:
        found = await asyncio.gather(*(one(service) for _ in range(24)))
        assert set(found) == {DIGEST}


async def test_an_upload_and_its_answer(tmp_path: Path):
    async def store(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + answer.encode())

    async with origin(store) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            head = b"PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(BODY) + BODY)
            await reader.readuntil(b"\r\n\r\n")
            assert (await reader.readexactly(64)).decode() == DIGEST
        assert used(service)


async def test_until_close_and_a_slow_reader(tmp_path: Path):
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
        await writer.drain()

    async with origin(send) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            found = hashlib.sha256()
            while data := await reader.read(64 * 1024):
                found.update(data)
                await asyncio.sleep(0)
            assert found.hexdigest() == DIGEST


async def test_any_tcp_both_ways_at_once_with_half_close(tmp_path: Path):
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(MIB):
            writer.write(data)
            await writer.drain()

    async with origin(echo) as server, live(tmp_path, server.endpoint, OPAQUE) as service:
        async with client(service) as (reader, writer):

            async def send() -> None:
                writer.write(b"\0opaque" + BODY)
                await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            back = await reader.read()
            await sending
            assert hashlib.sha256(back[7:]).hexdigest() == DIGEST
        assert used(service)


async def test_a_server_that_resets_is_seen_as_a_cut(tmp_path: Path):
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + BODY[: 12 * MIB])
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with origin(cut) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            writer.write(GET)
            got = 0
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(MIB):
                    got += len(data)
            assert got < len(HEAD + BODY)
    assert service.events("EXCHANGE")[0]["sluicegate.outcome"] == "aborted"


async def test_a_client_that_goes_is_noticed(tmp_path: Path):
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(BODY)
                await writer.drain()
        except ConnectionError:
            gone.set()

    async with origin(endless) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            writer.write(GET)
            await reader.readexactly(8 * MIB)
            writer.transport.abort()
        await asyncio.wait_for(gone.wait(), 10)


async def test_an_early_answer_to_an_upload_arrives(tmp_path: Path):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(6 * MIB)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        while await reader.read(MIB):
            pass

    async with origin(refuse) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            head = b"PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(BODY) + BODY)
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
