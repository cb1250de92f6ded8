"""TLS is not decrypted: the name a client asks for decides, the bytes pass as they are."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.support.live import EMPTY, ask, client, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
NO_ADS = "{id: no-ads, layer: tls_client_hello, when: {sni: '*.ads.test'}, then: {block: true}}"
POLICY = EMPTY.replace("rules: []", f"rules: [{NO_ADS}]")


def client_hello(name: str, protocols: list[str]) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


async def test_a_server_name_that_policy_forbids_is_reset(tmp_path: Path) -> None:
    received = b""

    async def serve(reader: Reader, writer: Writer) -> None:
        nonlocal received
        received += await reader.read(1)

    async with origin(serve) as server, live(tmp_path, server.endpoint, POLICY) as service:
        with pytest.raises(ConnectionResetError):
            await ask(service, client_hello("x.ads.test", ["h2"]))
    assert received == b""
    flow = service.events("ENDPOINT_CLOSURE")[0]
    assert flow["sluicegate.outcome"] == "blocked"
    assert flow["tls.client.server_name"] == "x.ads.test"


async def test_other_names_pass_byte_for_byte_in_any_pieces(tmp_path: Path) -> None:
    hello = client_hello("shop.test", ["h2", "http/1.1"])

    async def echo(reader: Reader, writer: Writer) -> None:
        writer.write(await reader.read())

    async with origin(echo) as server, live(tmp_path, server.endpoint, POLICY) as service:
        async with client(service) as (reader, writer):
            for at in range(0, len(hello), 50):
                writer.write(hello[at : at + 50])
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"\x17\x03\x03\x00\x02ab")
            writer.write_eof()
            assert await reader.read() == hello + b"\x17\x03\x03\x00\x02ab"
    assert service.events("ENDPOINT_CLOSURE")[0]["sluicegate.protocol"] == "tls"


@pytest.mark.parametrize("action", ["closed", "open"])
async def test_http2_without_tls_cannot_be_inspected(tmp_path: Path, action: str) -> None:
    """Recognised but uninspectable: closed while rules for HTTP exist, unless set open."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    http = "rules: [{id: r, layer: http_request, when: {path: /x}, then: {block: true}}]"

    async def echo(reader: Reader, writer: Writer) -> None:
        writer.write(await reader.readexactly(len(preface)))

    async with origin(echo) as server:
        async with live(
            tmp_path, server.endpoint, EMPTY.replace("rules: []", http),
            exceptions__uninspectable=action,
        ) as service:  # fmt: skip
            if action == "open":
                assert await ask(service, preface) == preface
            else:
                with pytest.raises(ConnectionResetError):
                    await ask(service, preface)
        applied = service.events("EXCEPTION_POLICY")
    assert [
        (e["sluicegate.exception.cause"], e["sluicegate.exception.action"]) for e in applied
    ] == [("uninspectable", action)]
