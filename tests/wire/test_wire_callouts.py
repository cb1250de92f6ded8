"""Callouts of the user's own on real sockets: what waits or fails costs its own flow only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.live import Live, ask, client, live, origin, send_rst

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
GET = b"GET /ok HTTP/1.0\r\nHost: a\r\n\r\n"

CALLOUTS = '''
import asyncio
from pathlib import Path
from proxy.api import Forward, Permit, Refuse, Replace, RespondWith, StreamBase

class Log:
    def __init__(self, options):
        self.path = Path(options["log"])
    def say(self, what):
        with self.path.open("a") as file:
            file.write(what + "\\n")

async def stall(log):
    log.say("asked")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        log.say("cancelled")
        raise

class Oracle(StreamBase):
    """Never answers where it reads `stall`, fails where it reads `fail`."""
    def __init__(self, flow, options):
        self.log = Log(options)
    async def classify(self, data):
        if b"stall" in data.data:
            await stall(self.log)
        if b"fail" in data.data:
            raise LookupError("no such oracle")
        await asyncio.sleep(0)
        if not data.data:
            return Permit(0)
        return Replace(len(data.data), data.data.replace(b"ok", b"fine"))

class Heads:
    """HTTP: stalls at the path /stall, answers /own itself, signs the rest."""
    def __init__(self, flow, options):
        self.log = Log(options)
    async def request(self, message):
        if message.request.path == "/stall":
            await stall(self.log)
        await asyncio.sleep(0)
        if message.request.path == "/own":
            return RespondWith(200, b"own")
        return Forward(skip_body=True)
    async def body(self, message, content):
        raise AssertionError("skipped")
    async def data(self, message, content, last):
        if message.request.path == "/slow":
            await stall(self.log)
        await asyncio.sleep(0)
        return content.upper()

class Gate:
    def __init__(self, options):
        self.does, self.log = options["does"], Log(options)
    async def authorise(self, flow):
        if self.does == "stall":
            await stall(self.log)
        if self.does == "fail":
            raise LookupError("no such gate")
        await asyncio.sleep(0)
        return Refuse(f"not {flow.redirect.original_dst.host}") if self.does == "refuse" else None
'''


def config(tmp_path: Path, type_: str, factory: str, more: str = "", **options: str) -> Path:
    (tmp_path / "mine.py").write_text(CALLOUTS)
    options["log"] = str(tmp_path / "log")
    table = "\n".join(f'{key} = "{value}"' for key, value in options.items())
    path = tmp_path / "settings.toml"
    path.write_text(
        f'[[callouts]]\nname = "mine"\ntype = "{type_}"\npath = "mine.py:{factory}"\n'
        f'mode = "out_of_band"\n{more}\n[callouts.options]\n{table}\n'
    )
    return path


def said(tmp_path: Path) -> list[str]:
    path = tmp_path / "log"
    return path.read_text().split() if path.exists() else []


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def applied(service: Live) -> list[tuple[str, str, str]]:
    return [
        (
            event["sluicegate.exception.cause"],
            event["sluicegate.exception.action"],
            event["sluicegate.callout"],
        )
        for event in service.events("EXCEPTION_POLICY")
    ]


async def path_back(reader: Reader, writer: Writer) -> None:
    """A server that answers with the path that it was asked for."""
    line = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(line), line))


# --- streams


async def test_a_callout_that_never_answers_costs_its_own_flow_only(tmp_path: Path) -> None:
    settings = config(tmp_path, "stream", "Oracle", "timeout = 0.6")
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            async with client(service) as (reader, writer):
                writer.write(GET.replace(b"ok", b"stall"))
                await until(lambda: said(tmp_path) == ["asked"])
                for _ in range(3):  # meanwhile, others
                    assert (await ask(service, GET)).endswith(b"\r\n\r\n/fine")
                assert said(tmp_path) == ["asked"]
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            assert said(tmp_path) == ["asked", "cancelled"]
    assert applied(service) == [("callout_overrun", "closed", "mine")]
    assert server.connections == 4


async def test_an_exception_is_told_as_one_and_open_lets_the_bytes_pass(tmp_path: Path) -> None:
    settings = config(tmp_path, "stream", "Oracle", 'on_error = "open"')
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            answer = await ask(service, GET.replace(b"ok", b"fail"))
    assert answer.endswith(b"/fail")
    assert applied(service) == [("callout_exception", "open", "mine")]
    (event,) = service.events("EXCEPTION_POLICY")
    assert event["message"] == "LookupError: no such oracle"


async def test_a_question_is_cancelled_when_the_client_leaves(tmp_path: Path) -> None:
    settings = config(tmp_path, "stream", "Oracle", "timeout = 30")
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            async with client(service) as (_reader, writer):
                writer.write(GET.replace(b"ok", b"stall"))
                await until(lambda: said(tmp_path) == ["asked"])
                send_rst(writer)
                await until(lambda: said(tmp_path) == ["asked", "cancelled"])
                await until(lambda: service.service.status()["flows_open"] == 0)


# --- HTTP

HEADS = 'interest = ["request", "response_data"]\ntimeout = '


@pytest.mark.parametrize("path", [b"stall", b"slow"])
async def test_an_http_callout_that_never_answers_costs_its_own_flow_only(
    tmp_path: Path, path: bytes
) -> None:
    """At a head its client gets a page; in the middle of a body the connection ends."""
    settings = config(tmp_path, "http", "Heads", HEADS + "0.6")
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            waiting = asyncio.ensure_future(ask(service, GET.replace(b"ok", path)))
            await until(lambda: said(tmp_path) == ["asked"])
            for _ in range(3):  # meanwhile, others
                assert (await ask(service, GET)).endswith(b"/OK")
            assert said(tmp_path) == ["asked"]
            if path == b"stall":
                assert (await waiting).startswith(b"HTTP/1.1 503 ")
            else:
                with pytest.raises(ConnectionResetError):
                    await waiting
            assert said(tmp_path) == ["asked", "cancelled"]
    assert applied(service) == [("callout_overrun", "closed", "mine")]


async def test_an_http_callout_is_cancelled_when_its_client_leaves(tmp_path: Path) -> None:
    settings = config(tmp_path, "http", "Heads", HEADS + "30")
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            async with client(service) as (_reader, writer):
                writer.write(GET.replace(b"ok", b"stall"))
                await until(lambda: said(tmp_path) == ["asked"])
                send_rst(writer)
                await until(lambda: said(tmp_path) == ["asked", "cancelled"])
                await until(lambda: service.service.status()["flows_open"] == 0)


async def test_an_http_callout_answers_itself(tmp_path: Path) -> None:
    settings = config(tmp_path, "http", "Heads", HEADS + "30")
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            answer = await ask(service, GET.replace(b"ok", b"own"))
    assert answer.endswith(b"\r\n\r\nown")
    (event,) = service.events("EXCHANGE")
    assert event["rule.id"] == "callout:mine"


# --- connections


@pytest.mark.parametrize(
    ("does", "exception"),
    [
        ("refuse", []),
        ("fail", [("callout_exception", "closed", "mine")]),
        ("stall", [("callout_overrun", "closed", "mine")]),
    ],
)
async def test_a_connection_callout_that_does_not_say_yes(
    tmp_path: Path, does: str, exception: list[tuple[str, str, str]]
) -> None:
    settings = config(tmp_path, "connection", "Gate", "timeout = 0.3", does=does)
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            with pytest.raises(ConnectionResetError):
                await ask(service, GET)
    assert server.connections == 0
    assert applied(service) == exception
    (end,) = service.events("ENDPOINT_CLOSURE")
    drops = service.events("CLASSIFY_DROP")
    if does == "refuse":
        assert [(e["rule.id"], e["sluicegate.layer"], e["message"]) for e in drops] == [
            ("callout:mine", "auth_connect", "not 127.0.0.1")
        ]
        assert (end["sluicegate.outcome"], end["sluicegate.rules"]) == ("blocked", ["callout:mine"])
    else:
        assert drops == []
        assert end["sluicegate.outcome"] == "refused"


@pytest.mark.parametrize(("does", "more"), [("permit", ""), ("fail", 'on_error = "open"')])
async def test_a_connection_that_may_be_made_is_made(tmp_path: Path, does: str, more: str) -> None:
    settings = config(tmp_path, "connection", "Gate", more, does=does)
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            assert (await ask(service, GET)).endswith(b"/ok")
    assert [action for _, action, _ in applied(service)] == ["open"] * (does == "fail")


@pytest.mark.parametrize(("hard", "veto"), [("true", True), ("false", None)])
async def test_a_refusal_of_what_was_permitted_for_good_is_a_veto(
    tmp_path: Path, hard: str, veto: bool | None
) -> None:
    """learn.microsoft.com, "Filter Arbitration": a callout may block against a hard permit."""
    settings = config(tmp_path, "connection", "Gate", does="refuse")
    permit = f"{{id: sure, layer: auth_connect, then: {{permit: {{hard: {hard}}}}}}}"
    policy = f"version: 1\npolicy: p\nrules: [{permit}]\n"
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, policy, config=settings) as service:
            with pytest.raises(ConnectionResetError):
                await ask(service, GET)
    (drop,) = service.events("CLASSIFY_DROP")
    assert (drop["rule.id"], drop.get("sluicegate.veto")) == ("callout:mine", veto)
    assert ("against the hard permit of sure" in drop["message"]) is bool(veto)


async def test_an_explicit_client_is_told_with_403(tmp_path: Path) -> None:
    settings = config(tmp_path, "connection", "Gate", does="refuse")
    async with origin(path_back) as server:
        async with live(tmp_path, None, config=settings, redirect__provider="explicit") as service:
            to = str(server.endpoint).encode()
            answer = await ask(service, b"GET http://%b/ HTTP/1.0\r\nHost: %b\r\n\r\n" % (to, to))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert server.connections == 0


async def test_a_client_that_leaves_while_the_connection_is_asked_about(tmp_path: Path) -> None:
    settings = config(tmp_path, "connection", "Gate", "timeout = 30", does="stall")
    async with origin(path_back) as server:
        async with live(tmp_path, server.endpoint, config=settings) as service:
            async with client(service) as (_reader, writer):
                await until(lambda: said(tmp_path) == ["asked"])
                send_rst(writer)
                await until(lambda: said(tmp_path) == ["asked", "cancelled"])
                await until(lambda: service.service.status()["flows_open"] == 0)


async def test_the_service_stops_while_questions_are_open(tmp_path: Path) -> None:
    """`live` asserts that no task is left."""
    settings = config(tmp_path, "connection", "Gate", "timeout = 30", does="stall")
    async with origin(path_back) as server:
        async with live(
            tmp_path, server.endpoint, config=settings, times__drain_seconds=0.1
        ) as service:
            async with client(service):
                await until(lambda: said(tmp_path) == ["asked"])
                await service.service.drain()
    assert said(tmp_path) == ["asked", "cancelled"]
