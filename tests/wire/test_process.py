"""`sluicegate run` as a process: its ready line, its signals, its exit codes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.live import EMPTY


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its ready line; terminated if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "run", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr as stderr:
        try:
            yield process, stderr.readline()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def settings(tmp_path: Path, policy: str = EMPTY) -> list[str]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "test.yaml").write_text(policy)
    return [
        "--redirect", "static", "--upstream", "127.0.0.1:9", "--listen", "127.0.0.1:0",
        "--admin", "127.0.0.1:0", "--policies", str(policies),
        "--events", str(tmp_path / "events.jsonl"),
    ]  # fmt: skip


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def actions(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["event.action"] for line in lines]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sighup_reopens_the_event_file_and_sigterm_ends_with_0(tmp_path: Path) -> None:
    events, rotated = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    with running(*settings(tmp_path)) as (process, line):
        assert line.startswith("sluicegate ")
        assert " ready: listening on 127.0.0.1:" in line
        assert "generation 1 with 0 rules" in line
        until(lambda: "SERVICE_START" in actions(events))
        events.rename(rotated)
        process.send_signal(signal.SIGHUP)
        until(lambda: "POLICY_RELOAD" in actions(events))
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert actions(events)[-1] == "SERVICE_STOP"


def test_policies_that_cannot_be_used_keep_it_from_starting(tmp_path: Path) -> None:
    broken = EMPTY.replace("rules: []", "rules: [{id: r, layer: nowhere, then: {block: true}}]")
    with running(*settings(tmp_path, broken)) as (process, line):
        assert process.wait(15) == 3
    assert "cannot start" in line


def test_an_address_in_use_keeps_it_from_starting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with running(*settings(tmp_path), "--listen", listen) as (process, line):
            assert process.wait(15) == 3
    assert listen in line


def test_the_example_callouts_run(tmp_path: Path) -> None:
    """`sluicegate run` with the settings that ship: a signed request, a redacted answer."""
    shipped = Path(__file__).parents[2] / "policies" / "examples" / "callouts" / "callouts.toml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = ["--config", str(shipped), *settings(tmp_path), "--upstream", upstream]
        with running(*arguments) as (process, line):
            found = re.search(r"listening on (127\.0\.0\.1):(\d+)", line)
            assert found, line
            with socket.create_connection((found[1], int(found[2])), 10) as client:
                client.sendall(b"GET /a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                seen, answered = serve_once(server), b""
                while data := client.recv(65536):
                    answered += data
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
    assert b"X-Gate-Signature: keyid=gate-1, signature=" in seen
    assert answered.endswith(b'{"token": "***"}')


def serve_once(server: socket.socket) -> bytes:
    """Answer one request with JSON; returns what was asked."""
    server.settimeout(10)
    connection, _ = server.accept()
    with connection:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += connection.recv(65536)
        body = b'{"token": "secret"}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return seen
