"""Policy on real connections: what is decided, when it takes effect, and what is written down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.live import Live, ask, client, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter

HEADER = "version: 1\npolicy: test\ndescription: For a test.\n"
BLOCK_ADMIN = """
rules:
  - id: no-admin
    layer: http_request
    when: {path: "/admin*"}
    then: {block: {status: 403, reason: "Not here."}}
"""


async def web(reader: Reader, writer: Writer) -> None:
    """A keep-alive server that answers with the target, the header X-Seen and a small page."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        target = head.split(b" ")[1]
        body = b"<!doctype html><html><head><title>t</title></head><body class=x><p>%b</p></body>"
        body = body % target
        writer.write(b"HTTP/1.1 200 OK\r\nServer: test/1\r\nContent-Type: text/html\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


async def get(reader: Reader, writer: Writer, target: str) -> tuple[int, bytes, bytes]:
    """(status, head, body) of one request on a keep-alive connection."""
    writer.write(f"GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    status = int(head.split(b" ")[1])
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return status, head, await chunked(reader)
    length = next(
        int(line.split(b":")[1]) for line in lower.split(b"\r\n") if b"content-length" in line
    )
    return status, head, await reader.readexactly(length)


async def chunked(reader: Reader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def test_the_second_request_of_a_connection_is_judged_too(tmp_path: Path) -> None:
    async with origin(web) as server:
        async with live(tmp_path, server.endpoint, HEADER + BLOCK_ADMIN) as service:
            async with client(service) as (reader, writer):
                assert (await get(reader, writer, "/"))[0] == 200
                status, _, body = await get(reader, writer, "/admin/x")
                assert (status, b"Not here." in body) == (403, True)
                assert (await get(reader, writer, "/again"))[0] == 200  # it is still open
        assert server.connections == 1
    exchanges = service.events("EXCHANGE")
    assert [event["http.response.status_code"] for event in exchanges] == [200, 403, 200]
    dropped = service.events("CLASSIFY_DROP")
    assert [event["rule.id"] for event in dropped] == ["no-admin"]


async def test_a_block_page_wins_over_a_server_that_is_not_there(tmp_path: Path) -> None:
    async with origin(web) as server:
        nobody = server.endpoint
    async with live(tmp_path, nobody, HEADER + BLOCK_ADMIN) as service:
        blocked = await ask(service, b"GET /admin HTTP/1.0\r\nHost: a\r\n\r\n")
        failed = await ask(service, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert blocked.startswith(b"HTTP/1.1 403 ")
    assert failed.startswith(b"HTTP/1.1 502 ")


async def test_headers_and_a_banner_are_written_into_an_answer(tmp_path: Path) -> None:
    policy = (
        HEADER
        + """
rules:
  - id: strip
    layer: http_response
    then: {headers: {remove: [Server], set: {X-Frame-Options: DENY}}}
  - id: banner
    layer: http_response
    when: {content_type: text/html}
    then: {inject_banner: {html: "<p>inspected</p>", at: body_start}}
"""
    )
    async with origin(web) as server, live(tmp_path, server.endpoint, policy) as service:
        async with client(service) as (reader, writer):
            _, head, body = await get(reader, writer, "/x")
    assert b"Server:" not in head
    assert b"X-Frame-Options: DENY" in head
    assert b"<body class=x><p>inspected</p><p>/x</p>" in body


async def test_a_shadow_rule_reports_and_changes_nothing(tmp_path: Path) -> None:
    policy = HEADER + BLOCK_ADMIN.replace("    when:", "    mode: shadow\n    when:")
    async with origin(web) as server, live(tmp_path, server.endpoint, policy) as service:
        async with client(service) as (reader, writer):
            assert (await get(reader, writer, "/admin"))[0] == 200
    shadows = [event for event in service.events() if event.get("sluicegate.shadow")]
    assert [event["rule.id"] for event in shadows] == ["no-admin"]


async def test_rules_at_the_end_of_a_flow_and_at_discarded_bytes_are_heard(tmp_path: Path) -> None:
    policy = (
        HEADER
        + """
rules:
  - id: no-upload
    layer: http_request
    when: {method: POST}
    then: {block: {status: 403}}
  - id: thrown-away
    layer: stream_discard
    when: {direction: outbound}
    then: {log: bytes were removed}
  - id: over
    layer: endpoint_closure
    when: {protocol: http1}
    then: {tag: web}
"""
    )
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    async with origin(web) as server, live(tmp_path, server.endpoint, policy) as service:
        assert (await ask(service, request)).startswith(b"HTTP/1.1 403 ")
    hit = {event.get("rule.id"): event for event in service.events()}
    assert hit["thrown-away"]["sluicegate.layer"] == "stream_discard"
    assert hit["over"]["sluicegate.layer"] == "endpoint_closure"
    assert service.events()[-2]["event.action"] == "ENDPOINT_CLOSURE"
    assert "web" in service.events("ENDPOINT_CLOSURE")[0]["tags"]


@pytest.mark.parametrize(("how", "outcome"), [("reset", "blocked"), ("drop", "blocked")])
async def test_a_connection_that_policy_forbids_is_never_dialled(
    tmp_path: Path, how: str, outcome: str
) -> None:
    async with origin(web) as server:
        policy = (
            HEADER
            + f"""
rules:
  - id: no-port
    layer: auth_connect
    when: {{dst.port: {server.endpoint.port}}}
    then: {{block: {{how: {how}}}}}
"""
        )
        async with live(tmp_path, server.endpoint, policy) as service:
            with pytest.raises((ConnectionResetError, TimeoutError)):
                async with asyncio.timeout(2):
                    await ask(service, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert server.connections == 0
    assert [flow["sluicegate.outcome"] for flow in service.events("ENDPOINT_CLOSURE")] == [outcome]


async def scrape(service: Live) -> bytes:
    """/metrics of the real admin endpoint."""
    host, _, port = str(service.service.status()["admin"]).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    try:
        return await reader.read()
    finally:
        writer.close()


async def reload(service: Live) -> dict[str, object]:
    return await service.service.reload()


async def test_an_edited_policy_takes_effect_on_an_open_connection(tmp_path: Path) -> None:
    """By the directory watch alone, and without dropping the connection."""
    async with origin(web) as server, live(tmp_path, server.endpoint) as service:
        async with client(service) as (reader, writer):
            assert (await get(reader, writer, "/admin"))[0] == 200
            service.write_policy(HEADER + BLOCK_ADMIN)
            async with asyncio.timeout(10):
                while (await get(reader, writer, "/admin"))[0] == 200:
                    await asyncio.sleep(0.02)
        assert service.service.status()["generation"] == 2


async def test_a_policy_with_mistakes_is_refused_and_the_last_good_one_stays(
    tmp_path: Path,
) -> None:
    broken = """version: 1
policy: test
description: Three mistakes.
rules:
  - id: one
    layer: http_requst
    when: {path: "/x"}
    then: {block: true}
  - id: two
    layer: http_request
    when: {dst.ip: 300.1.1.1}
    then: {block: true}
  - id: three
    layer: http_response
    then: {headers: {remove: [Content-Length]}}
"""
    async with origin(web) as server:
        async with live(tmp_path, server.endpoint, HEADER + BLOCK_ADMIN) as service:
            service.write_policy(broken)
            answer = await reload(service)
            async with client(service) as (reader, writer):
                assert (await get(reader, writer, "/admin"))[0] == 403
            exposed = await scrape(service)
    assert answer["ok"] is False
    assert answer["generation"] == 1
    problems = "\n".join(str(problem) for problem in answer["problems"])  # type: ignore[union-attr]
    for place in ("test.yaml:6:", "test.yaml:11:", "test.yaml:15:"):
        assert place in problems
    assert b"sluicegate_policy_last_reload_successful 0.0" in exposed
    assert any(event["event.outcome"] == "failure" for event in service.events("POLICY_RELOAD"))


async def test_reloads_under_load_lose_no_request(tmp_path: Path) -> None:
    answered = 0

    async def load(service: Live) -> None:
        nonlocal answered
        async with client(service) as (reader, writer):
            while not done.is_set():
                assert (await get(reader, writer, "/ok"))[0] == 200
                answered += 1

    done = asyncio.Event()
    async with origin(web) as server, live(tmp_path, server.endpoint) as service:
        clients = [asyncio.ensure_future(load(service)) for _ in range(8)]
        for n in range(60):
            service.write_policy(HEADER + BLOCK_ADMIN.replace("/admin", f"/admin{n}"))
            assert (await reload(service))["ok"] is True
        done.set()
        await asyncio.gather(*clients)
        assert service.service.status()["generation"] >= 60
    assert answered > 60


@pytest.mark.parametrize("on_reload", ["keep", "reauthorize", "reauthorize_and_drop"])
async def test_open_connections_after_a_reload_that_forbids_them(
    tmp_path: Path, on_reload: str
) -> None:
    async with origin(web) as server:
        forbid = f"""version: 1
policy: test
description: No more.
defaults: {{on_reload: {on_reload}}}
rules:
  - id: no-more
    layer: auth_connect
    when: {{dst.port: {server.endpoint.port}}}
    then: {{block: true}}
"""
        async with live(tmp_path, server.endpoint) as service:
            async with client(service) as (reader, writer):
                assert (await get(reader, writer, "/"))[0] == 200
                service.write_policy(forbid)
                assert (await reload(service))["ok"] is True
                if on_reload == "keep":
                    assert (await get(reader, writer, "/"))[0] == 200
                elif on_reload == "reauthorize":
                    assert await asyncio.wait_for(reader.read(), 5) == b""  # idle: FIN
                else:
                    with pytest.raises(ConnectionResetError):
                        await asyncio.wait_for(reader.read(), 5)
