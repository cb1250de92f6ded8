"""Who connects, on real connections: principals decide, are written down, and are judged again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.model import Confidence, Endpoint, Principal
from tests.support.fake_provider import CURL, NOBODY, PYTHON, FakeProvider
from tests.support.live import Live, client, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
HEAD = "version: 1\npolicy: test\n"
NO_PYTHON = """rules:
  - id: no-python
    layer: {layer}
    when: {{principal.exe: "/usr/bin/python*"}}
    then: {{block: {{how: {how}}}}}
"""


def policy(on_reload: str = "keep", layer: str = "auth_connect", how: str = "reset") -> str:
    return f"{HEAD}defaults: {{on_reload: {on_reload}}}\n{NO_PYTHON.format(layer=layer, how=how)}"


async def web(reader: Reader, writer: Writer) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def echo(reader: Reader, writer: Writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def read(reader: Reader, n: int) -> bytes:
    return await asyncio.wait_for(reader.readexactly(n), 10)


async def get(reader: Reader, writer: Writer) -> bytes:
    writer.write(GET)
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    return await read(reader, 2)


async def is_reset(reader: Reader) -> bool:
    """Reads to the end, which must come soon."""
    try:
        assert await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        return True
    return False


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Endpoint], FakeProvider]:
    def make(destination: Endpoint) -> FakeProvider:
        provider = FakeProvider(destination)
        provider.install_in(monkeypatch)
        return provider

    return make


Fake = Callable[[Endpoint], FakeProvider]


async def test_two_programs_at_once_each_by_its_own_path(tmp_path: Path, fake: Fake) -> None:
    async with origin(web) as server:
        provider = fake(server.endpoint)
        async with live(tmp_path, server.endpoint, policy()) as service:
            provider.next(principal=CURL)
            async with client(service) as (reader, writer):
                assert await get(reader, writer) == b"ok"
                provider.next(principal=PYTHON)
                async with client(service) as (refused, _):
                    assert await is_reset(refused)
                assert await get(reader, writer) == b"ok"
        assert server.connections == 1
    (dropped,) = service.events("CLASSIFY_DROP")
    assert (dropped["rule.id"], dropped["process.executable"]) == ("no-python", PYTHON.exe)


@pytest.mark.parametrize(
    ("principal", "passes"),
    [
        (CURL, True),
        (replace(CURL, confidence=Confidence.LIKELY), True),
        (replace(PYTHON, exe="/usr/bin/python3.11 (deleted)"), False),  # upgraded meanwhile
        (replace(PYTHON, exe=None), False),  # it has gone: nobody knows which program it was
        (NOBODY, False),
    ],
)
async def test_what_is_unknown_counts_for_a_block(
    tmp_path: Path, fake: Fake, principal: Principal, passes: bool
) -> None:
    async with origin(web) as server:
        provider = fake(server.endpoint)
        provider.next(principal=principal)
        async with live(tmp_path, server.endpoint, policy()) as service:
            async with client(service) as (reader, writer):
                if passes:
                    assert await get(reader, writer) == b"ok"
                else:
                    assert await is_reset(reader)


async def test_every_event_of_a_flow_says_who_it_was(tmp_path: Path, fake: Fake) -> None:
    log = f"{HEAD}rules: [{{id: seen, layer: http_request, then: {{log: true}}}}]\n"
    who = replace(CURL, container="c0ffee", package="snap:curl")
    async with origin(web) as server:
        provider = fake(server.endpoint)
        provider.next(principal=who)
        async with live(tmp_path, server.endpoint, log) as service:
            async with client(service) as (reader, writer):
                assert await get(reader, writer) == b"ok"
    of_flow = [event for event in service.events() if "sluicegate.flow.id" in event]
    actions = [event["event.action"] for event in of_flow]
    assert set(actions[:-1]) == {"FLOW_ESTABLISHED", "CLASSIFY_ALLOW", "EXCHANGE"}
    assert actions[-1] == "ENDPOINT_CLOSURE"
    wanted = {
        "process.pid": 4711,
        "process.start": "2023-11-14T22:13:20Z",
        "process.executable": "/usr/bin/curl",
        "process.name": "curl",
        "user.id": "1000",
        "user.name": "alice",
        "container.id": "c0ffee",
        "sluicegate.principal.cgroup": "/user.slice/user-1000.slice",
        "sluicegate.principal.package": "snap:curl",
        "sluicegate.principal.confidence": "exact",
    }
    for event in of_flow:
        assert {key: event.get(key) for key in wanted} == wanted


# --- re-authorisation of open flows --------------------------------------------------------


async def reload(service: Live, text: str) -> None:
    service.write_policy(text)
    assert (await service.service.reload())["ok"] is True


Talk = Callable[[Reader, Writer], Awaitable[None]]


async def talk_http(reader: Reader, writer: Writer) -> None:
    assert await get(reader, writer) == b"ok"


async def talk_opaque(reader: Reader, writer: Writer) -> None:
    writer.write(b"\x00\x01\x02 neither HTTP nor TLS\r\n")
    await read(reader, 24)


async def say_nothing(reader: Reader, writer: Writer) -> None:
    """The upstream is connected; not a byte was said."""


async def talk_tunnel(reader: Reader, writer: Writer) -> None:
    writer.write(
        b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.write(b"ping")
    assert await read(reader, 4) == b"ping"


async def websocket(reader: Reader, writer: Writer) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    await echo(reader, writer)


async def established(service: Live, flows: int) -> None:
    """Until so many flows have their upstream."""
    async with asyncio.timeout(10):
        while sum(flow.upstream is not None for flow in service.service.services.flows) < flows:
            await asyncio.sleep(0)


KINDS = [
    pytest.param(web, talk_http, False, id="http"),
    pytest.param(echo, talk_opaque, True, id="opaque"),
    pytest.param(echo, say_nothing, True, id="idle"),
    pytest.param(websocket, talk_tunnel, True, id="tunnel"),
]


@pytest.mark.parametrize("layer", ["connect_redirect", "auth_connect", "flow_established"])
@pytest.mark.parametrize("on_reload", ["keep", "reauthorize", "reauthorize_and_drop"])
@pytest.mark.parametrize(("serve", "talk", "no_exchanges"), KINDS)
async def test_a_reload_judges_open_flows_by_who_made_them(
    tmp_path: Path,
    fake: Fake,
    serve: Talk,
    talk: Talk,
    no_exchanges: bool,
    on_reload: str,
    layer: str,
) -> None:
    async with origin(serve) as server:
        provider = fake(server.endpoint)
        async with live(tmp_path, server.endpoint) as service:
            provider.next(principal=CURL)
            async with client(service) as (allowed, allowed_writer):
                await talk(allowed, allowed_writer)
                provider.next(principal=PYTHON)
                async with client(service) as (forbidden, forbidden_writer):
                    await talk(forbidden, forbidden_writer)
                    await established(service, 2)
                    await reload(service, policy(on_reload, layer))
                    if on_reload == "keep":
                        assert len(service.service.services.flows) == 2
                    else:
                        dropped = on_reload == "reauthorize_and_drop" or no_exchanges
                        assert await is_reset(forbidden) is dropped
                        assert len(service.service.services.flows) <= 2
                if talk is not say_nothing and talk is not talk_tunnel:
                    await talk(allowed, allowed_writer)  # the other one does not notice
    dropped_by = service.events("CLASSIFY_DROP")
    if on_reload == "keep":
        assert dropped_by == []
        return
    (event,) = dropped_by
    assert (event["rule.id"], event["process.pid"]) == ("no-python", PYTHON.pid)
    assert (event["sluicegate.layer"], event["sluicegate.reauthorize"]) == (layer, True)


async def test_a_flow_that_is_no_longer_allowed_finishes_its_exchange(
    tmp_path: Path, fake: Fake
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        asked.set()
        await answer.wait()
        writer.write(b"-last")

    async with origin(slow) as server:
        provider = fake(server.endpoint)
        provider.next(principal=PYTHON)
        async with live(tmp_path, server.endpoint) as service:
            async with client(service) as (reader, writer):
                writer.write(GET)
                await asked.wait()
                await reload(service, policy("reauthorize"))
                answer.set()
                whole = await asyncio.wait_for(reader.read(), 10)
    assert whole.endswith(b"\r\n\r\nfirst-last")
    (exchange,) = service.events("EXCHANGE")
    assert exchange["sluicegate.outcome"] == "forwarded"


async def test_a_rule_that_drops_leaves_the_client_without_a_word(
    tmp_path: Path, fake: Fake
) -> None:
    async with origin(echo) as server:
        provider = fake(server.endpoint)
        provider.next(principal=PYTHON)
        async with live(tmp_path, server.endpoint) as service:
            async with client(service) as (reader, writer):
                await talk_opaque(reader, writer)
                await reload(service, policy("reauthorize_and_drop", how="drop"))
                async with asyncio.timeout(10):
                    while service.service.services.flows:
                        await asyncio.sleep(0)
                reading = asyncio.ensure_future(reader.read())
                await asyncio.sleep(0)
                assert not reading.done()
                reading.cancel()
    (closing,) = service.events("ENDPOINT_CLOSURE")
    assert closing["sluicegate.outcome"] == "blocked"
    assert "no-python" in closing["message"]


async def test_a_condition_can_tell_the_second_judgement_from_the_first(
    tmp_path: Path, fake: Fake
) -> None:
    again = f"""{HEAD}defaults: {{on_reload: reauthorize}}
rules:
  - {{id: first, layer: auth_connect, when: {{reauthorize: false}}, then: {{log: true}}}}
  - {{id: second, layer: auth_connect, when: {{reauthorize: true}}, then: {{tag: reviewed}}}}
"""
    async with origin(web) as server:
        fake(server.endpoint)
        async with live(tmp_path, server.endpoint, again) as service:
            async with client(service) as (reader, writer):
                assert await get(reader, writer) == b"ok"
                await reload(service, again + "# touched\n")
                assert await get(reader, writer) == b"ok"
    told = [
        (e["rule.id"], e.get("sluicegate.reauthorize")) for e in service.events("CLASSIFY_ALLOW")
    ]
    assert told == [("first", None), ("second", True)]
    (closing,) = service.events("ENDPOINT_CLOSURE")
    assert closing["tags"] == ["reviewed"]
