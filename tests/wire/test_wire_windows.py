"""The whole way of a connection on Windows, run here against the fake of Winsock and WFP:
accept, query, decode, authorise, set records, connect; policy on the program, and events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.account.escape import printable
from proxy.redirect import registry
from proxy.redirect.wfp import WfpHnsProvider, WfpProvider
from tests.support.completing_loop import CompletingLoop, completing
from tests.support.fake_windows import FakeWindows
from tests.support.live import Live, Origin, live, origin

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
CURL, PYTHON = 4711, 4712
CURL_EXE, PYTHON_EXE = r"C:\Windows\System32\curl.exe", r"C:\Python\python.exe"
BY_PROGRAM = r"""
version: 1
policy: test
description: One program may, the other may not.
rules:
  - id: no-python
    layer: auth_connect
    when: {principal.exe: 'c:\python\*'}
    then: {block: true}
  - id: sign
    layer: http_request
    when: {principal.exe: 'C:\WINDOWS\system32\CURL.exe', principal.user: 'WORKSTATION\alice'}
    then: {headers: {set: {X-Program: curl}}}
"""


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWindows]:
    """A Windows with two programs; all of its handles and memory are given back at the end."""
    found = FakeWindows()
    found.processes.start(CURL, image=CURL_EXE)
    found.processes.start(PYTHON, image=PYTHON_EXE, nt_path=r"\device\harddiskvolume3\python\p.exe")
    for name, provider in (("wfp", WfpProvider), ("wfp-hns", WfpHnsProvider)):
        make = partial(provider, libraries=lambda: found.libraries)
        monkeypatch.setitem(registry._PROVIDERS, name, make)
    yield found
    assert found.processes.open_handles == {}
    assert found.processes.allocated == {}


class Web:
    """A server that keeps what it was asked, and what records it was connected with."""

    def __init__(self, system: FakeWindows) -> None:
        self.system = system
        self.heads: list[bytes] = []
        self.records: list[bytes | None] = []

    async def __call__(self, reader: Reader, writer: Writer) -> None:
        self.records.append(self.system.winsock.records_of(writer.get_extra_info("peername")))
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@contextlib.asynccontextmanager
async def serving(
    system: FakeWindows, tmp_path: Path, provider: str = "wfp", **flags: Any
) -> AsyncIterator[tuple[Web, Origin, Live]]:
    web = Web(system)
    wanted = {"listen": "[::]:0", "redirect__provider": provider} | flags
    async with origin(web) as server:
        async with live(tmp_path, None, BY_PROGRAM, **wanted) as service:
            system.driver.proxy_port = service.endpoint.port
            yield web, server, service


async def ask(system: FakeWindows, server: Origin, pid: int) -> bytes:
    """A program's request to the server, redirected; b"" when it is refused."""
    sock = system.driver.connect((server.endpoint.host, server.endpoint.port), pid)
    return await exchange(sock)


async def exchange(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_the_whole_way(system: FakeWindows, tmp_path: Path) -> None:
    """Where to, by whom, under which rule, as whose connection: and in this order of calls."""
    async with serving(system, tmp_path) as (web, server, service):
        system.calls.clear()
        assert (await ask(system, server, CURL)).endswith(b"\r\n\r\nok")
    assert b"X-Program: curl" in web.heads[0]
    (captured,) = system.driver.captured.values()
    assert web.records == [captured.records]
    assert [call for call in system.calls if "SIO" in call] == [
        "WSAIoctl(SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT, in=0, out=1024) -> 0",
        "WSAIoctl(SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS, in=0, out=1024) -> 0",
        f"WSAIoctl(SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS, in={len(captured.records)}, out=0)"
        " -> 0",
    ]
    (established,) = service.events("FLOW_ESTABLISHED")
    assert established["sluicegate.provider"] == "wfp"
    assert established["destination.port"] == server.endpoint.port
    assert established["process.pid"] == CURL
    assert established["process.executable"] == printable(CURL_EXE)
    assert established["user.name"] == printable(r"WORKSTATION\alice")
    assert established["sluicegate.principal.confidence"] == "exact"


async def test_two_programs_at_once_one_may_and_one_may_not(
    system: FakeWindows, tmp_path: Path
) -> None:
    async with serving(system, tmp_path) as (web, server, service):
        answers = await asyncio.gather(
            *(ask(system, server, pid) for pid in (CURL, PYTHON, CURL, PYTHON))
        )
    assert [answer.endswith(b"ok") for answer in answers] == [True, False, True, False]
    assert server.connections == 2  # the others were refused before the dial
    assert len(set(web.records)) == 2  # each connection has its own client's records
    (one, _) = service.events("CLASSIFY_DROP")
    assert one["process.executable"] == printable(PYTHON_EXE)
    assert one["rule.id"] == "no-python"


async def test_who_connects_to_the_listener_by_itself_is_refused(
    system: FakeWindows, tmp_path: Path
) -> None:
    async with serving(system, tmp_path) as (_, server, service):
        direct = socket.create_connection(("127.0.0.1", service.endpoint.port))
        assert await exchange(direct) == b""
        assert server.connections == 0
    (refused,) = service.events("CLASSIFY_DROP")
    assert refused["sluicegate.reason"] == "not_redirected"


async def test_without_privileges_nothing_is_proxied(system: FakeWindows, tmp_path: Path) -> None:
    """A host firewall would see the proxy and not the program: the exception policy decides."""
    system.winsock.privileged = False
    async with serving(system, tmp_path) as (_, server, service):
        answer = await ask(system, server, CURL)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert server.connections == 0
        counted = service.service._counters.exceptions
        assert counted["records_not_settable", "closed"] == 1
    (applied,) = service.events("EXCEPTION_POLICY")
    assert applied["sluicegate.exception.cause"] == "records_not_settable"
    assert "administrator" in applied["message"]


async def test_the_setting_overrides_and_is_counted(system: FakeWindows, tmp_path: Path) -> None:
    system.winsock.privileged = False
    flags = {"exceptions__records_not_settable": "open"}
    async with serving(system, tmp_path, **flags) as (web, server, service):
        assert (await ask(system, server, CURL)).endswith(b"ok")
        assert service.service._counters.exceptions["records_not_settable", "open"] == 1
    assert web.records == [None]
    assert len(service.events("EXCEPTION_POLICY")) == 1


async def test_a_context_that_is_not_understood_refuses_its_flow_only(
    system: FakeWindows, tmp_path: Path
) -> None:
    async with serving(system, tmp_path) as (_, server, service):
        system.driver.layout = lambda destination, client, pid: b"\0" * 88
        assert await ask(system, server, CURL) == b""
        system.driver.layout = None
        assert (await ask(system, server, CURL)).endswith(b"ok")
    (refused,) = service.events("CLASSIFY_DROP")
    assert refused["sluicegate.reason"] == "no_redirect_info"
    assert "redirect context: it begins with" in refused["message"]


async def test_the_host_network_service(system: FakeWindows, tmp_path: Path) -> None:
    """No context: the process is looked up among this machine's connections, and so likely."""
    async with serving(system, tmp_path, "wfp-hns") as (web, server, service):
        assert (await ask(system, server, CURL)).endswith(b"ok")
        assert await ask(system, server, PYTHON) == b""
    assert web.records[0] is not None
    (established,) = service.events("FLOW_ESTABLISHED")
    assert established["sluicegate.provider"] == "wfp-hns"
    assert established["process.pid"] == CURL
    assert established["sluicegate.principal.confidence"] == "likely"


async def test_a_container_whose_process_is_not_known_does_not_slip_by_a_rule_on_programs(
    system: FakeWindows, tmp_path: Path
) -> None:
    async with serving(system, tmp_path, "wfp-hns") as (_, server, service):
        assert await ask(system, server, 0) == b""
    (dropped,) = service.events("CLASSIFY_DROP")
    assert dropped["rule.id"] == "no-python"


def test_a_loop_without_readiness(system: FakeWindows, tmp_path: Path) -> None:
    """Windows' Proactor: accept and connect are calls that the loop completes."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CompletingLoop)
        loop.calls = system.calls  # one list, so one order
        async with serving(system, tmp_path) as (web, server, _):
            system.calls.clear()
            assert (await ask(system, server, CURL)).endswith(b"ok")
            order = [call.split(",")[0].removeprefix("WSAIoctl(") for call in system.calls]
        assert web.records[0] is not None
        assert [call for call in order if call.startswith(("SIO", "bind", "sock"))] == [
            *("sock_accept", "sock_accept"),  # the next one is waited for at once
            "SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT",
            "SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS",
            "SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS",
            *("bind", "sock_connect"),
        ]

    with completing() as loop_factory, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve())
