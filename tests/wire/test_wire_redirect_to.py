"""redirect_to on real connections: another server is dialled, judged anew, and written down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.model import Endpoint
from tests.support.fake_provider import CURL, PYTHON, FakeProvider
from tests.support.live import client, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
HEAD = "version: 1\npolicy: test\n"
ASKED = Endpoint("192.0.2.7", 80)  # TEST-NET-1 (RFC 5737): nobody is there


def page(text: bytes) -> object:
    async def serve(reader: Reader, writer: Writer) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))

    return serve


async def get(reader: Reader, writer: Writer, host: str = "192.0.2.7") -> bytes:
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if b"ontent-" in x)
    return await reader.readexactly(length)


def rule(name: str, layer: str, when: str, then: str) -> str:
    return f"{{id: {name}, layer: {layer}, when: {{{when}}}, then: {{{then}}}}}"


def to(there: Endpoint, *more: str, on_reload: str = "keep") -> str:
    """Whatever curl does goes `there`."""
    moved = rule("moved", "connect_redirect", "principal.name: curl", f'redirect_to: "{there}"')
    rules = [*more, moved]
    return f"{HEAD}defaults: {{on_reload: {on_reload}}}\nrules:\n" + "".join(
        f"  - {rule}\n" for rule in rules
    )


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    made = FakeProvider(ASKED)
    made.install_in(monkeypatch)
    return made


async def test_another_server_answers_and_both_endpoints_are_written(
    tmp_path: Path, provider: FakeProvider
) -> None:
    when = "original.ip: 192.0.2.7, loopback: true"
    log = rule("seen", "http_request", when, "log: true")
    async with origin(page(b"other")) as other:
        async with live(tmp_path, ASKED, to(other.endpoint, log)) as service:
            async with client(service) as (reader, writer):
                assert await get(reader, writer) == b"other"
                assert await get(reader, writer) == b"other"
    assert other.connections == 1
    (prepared,) = provider.prepared
    assert (prepared.original_dst, prepared.destination) == (ASKED, other.endpoint)
    (sent, *logged) = service.events("CLASSIFY_ALLOW")
    assert (sent["rule.id"], sent["sluicegate.verdict"]) == ("moved", "redirect_to")
    assert sent["message"] == f"to {other.endpoint}"
    assert [event["rule.id"] for event in logged] == ["seen", "seen"]
    for event in (*logged, *service.events("EXCHANGE"), *service.events("ENDPOINT_CLOSURE")):
        assert (event["destination.ip"], event["destination.port"]) == ("192.0.2.7", 80)
        nat = (event["destination.nat.ip"], event["destination.nat.port"])
        assert nat == (other.endpoint.host, other.endpoint.port)


async def test_auth_connect_judges_the_new_endpoint(tmp_path: Path, provider: FakeProvider) -> None:
    async with origin(page(b"other")) as other:
        port = other.endpoint.port
        shut = rule("shut", "auth_connect", f"dst.port: {port}", "block: true")
        async with live(tmp_path, ASKED, to(other.endpoint, shut)) as service:
            async with client(service) as (reader, _):
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.read(), 10)
        assert other.connections == 0
    (dropped,) = service.events("CLASSIFY_DROP")
    assert (dropped["rule.id"], dropped["sluicegate.layer"]) == ("shut", "auth_connect")
    assert dropped["destination.nat.port"] == other.endpoint.port


async def test_the_endpoint_asked_for_is_not_judged_there(
    tmp_path: Path, provider: FakeProvider
) -> None:
    async with origin(page(b"other")) as other:
        old = rule("old", "auth_connect", "dst.ip: 192.0.2.7", "block: true")
        async with live(tmp_path, ASKED, to(other.endpoint, old)) as service:
            async with client(service) as (reader, writer):
                assert await get(reader, writer) == b"other"


async def test_it_may_not_lead_back_to_the_proxy(tmp_path: Path, provider: FakeProvider) -> None:
    async with live(tmp_path, ASKED) as service:
        service.write_policy(to(service.endpoint))
        assert (await service.service.reload())["ok"] is True
        async with client(service) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 10)
    assert provider.prepared == []
    (closing,) = service.events("ENDPOINT_CLOSURE")
    assert "is this proxy itself (by moved)" in closing["message"]


@pytest.mark.parametrize("on_reload", ["reauthorize", "reauthorize_and_drop"])
async def test_an_open_connection_stays_where_it_is(
    tmp_path: Path, provider: FakeProvider, on_reload: str
) -> None:
    """Judged again as asked at connect_redirect, and as it goes at auth_connect."""
    async with origin(page(b"one")) as one, origin(page(b"two")) as two:
        port = two.endpoint.port
        not_two = rule("not-two", "auth_connect", f"dst.port: {port}", "block: true")
        when = "dst.ip: 192.0.2.7, reauthorize: true"
        asked = rule("seen", "connect_redirect", when, "tag: seen")
        async with live(tmp_path, ASKED, to(one.endpoint)) as service:
            async with client(service) as (reader, writer):
                assert await get(reader, writer) == b"one"
                service.write_policy(to(two.endpoint, not_two, asked, on_reload=on_reload))
                assert (await service.service.reload())["ok"] is True
                assert await get(reader, writer) == b"one"
        assert two.connections == 0
    (closing,) = service.events("ENDPOINT_CLOSURE")
    assert (closing["tags"], closing["destination.nat.port"]) == (["seen"], one.endpoint.port)


async def test_who_is_not_meant_goes_where_it_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with origin(page(b"asked")) as asked, origin(page(b"other")) as other:
        provider = FakeProvider(asked.endpoint)
        provider.install_in(monkeypatch)
        provider.next(principal=PYTHON)
        provider.next(principal=CURL)
        async with live(tmp_path, ASKED, to(other.endpoint)) as service:
            for expected in (b"asked", b"other"):
                async with client(service) as (reader, writer):
                    assert await get(reader, writer, "127.0.0.1") == expected
    events = service.events("ENDPOINT_CLOSURE")
    assert ["destination.nat.port" in event for event in events] == [False, True]
