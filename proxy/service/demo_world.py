"""What `sluicegate demo` plays with: an origin, the proxy and its policies, and a client.

The proxy is the real command in a process of its own. On loopback it is given the origin as its
fixed upstream; in a network namespace nftables redirect the client's connections to it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from proxy.errors import StartError
from proxy.model import Endpoint
from proxy.service.client import fetch_status, request_reload
from proxy.service.demo_netns import ORIGIN_ADDRESS, Namespaces

_READY = re.compile(r"ready: listening on ([^, ]+).*admin http://([^, ]+),")
_START_SECONDS = 15.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.02
HOST = "shop.demo.test"
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read whole. `port` is the client's own: equal ports, the same connection."""

    status: int
    reason: str
    headers: HTTPMessage
    body: bytes
    port: int


class World:
    """Everything is started by entering and gone after leaving. Raises StartError."""

    def __init__(self, namespaces: Namespaces | None, policy: str) -> None:
        self._namespaces = namespaces
        self._first_policy = policy
        self._stack = ExitStack()

    def __enter__(self) -> World:
        with self._stack:
            directory = self._stack.enter_context(TemporaryDirectory(prefix="sluicegate-demo-"))
            self._directory = Path(directory)
            self.policies = self._directory / "policies"
            self._events = self._directory / "events.jsonl"
            self._log = self._directory / "proxy.log"
            self.write_policy(self._first_policy)
            self.origin = self._start_origin()
            if self._namespaces is not None:
                self._stack.enter_context(self._namespaces.inside(self._namespaces.client))
            self._start_proxy()
            self._stack = self._stack.pop_all()  # all is well: leaving undoes it, not this
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def provider(self) -> str:
        return "static" if self._namespaces is None else "nft"

    @property
    def target(self) -> Endpoint:
        """Where the client connects to: with a redirect, the origin itself."""
        return self.listener if self._namespaces is None else self.origin

    # --- the client

    def connect(self) -> HTTPConnection:
        return HTTPConnection(self.target.host, self.target.port, timeout=5)

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        on: HTTPConnection | None = None,
    ) -> Answer:
        """One exchange, on a connection of its own or on that one."""
        connection = on or self.connect()
        connection.request(method, path, body=body, headers={"Host": HOST})
        port = connection.sock.getsockname()[1]
        response = connection.getresponse()
        answer = Answer(response.status, response.reason, response.headers, response.read(), port)
        if on is None:
            connection.close()
        return answer

    # --- the operator

    def write_policy(self, text: str) -> None:
        """As an editor does: a new file takes the old one's place."""
        self.policies.mkdir(exist_ok=True)
        fresh = self._directory / "fresh.yaml"
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, self.policies / "demo.yaml")

    def status(self) -> dict[str, Any]:
        return fetch_status(self.admin)

    def reload(self) -> dict[str, Any]:
        return request_reload(self.admin)

    def metrics(self) -> str:
        connection = http.client.HTTPConnection(self.admin.host, self.admin.port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def events(self) -> list[dict[str, Any]]:
        """What was written so far; an unfinished last line is not yet."""
        lines = self._events.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def stop(self) -> int | None:
        """SIGTERM, and the exit code; None: it goes on.

        On Windows there is no such signal: 0 once it is gone.
        """
        self._proxy.send_signal(signal.SIGTERM)
        try:
            code = self._proxy.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        return 0 if sys.platform == "win32" else code

    def leftovers(self) -> list[str]:
        """What is still there of a proxy that has ended: its redirect, its listeners."""
        found = []
        for name, endpoint in (("listener", self.listener), ("admin endpoint", self.admin)):
            with socket.socket() as probe:
                if probe.connect_ex((endpoint.host, endpoint.port)) == 0:
                    found.append(f"{name} {endpoint}")
        if self._namespaces is not None:
            command = ["nft", "list", "tables"]
            found += subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        return found

    # --- processes

    def _start_origin(self) -> Endpoint:
        with ExitStack() as inside:
            address, port = "127.0.0.1", "0"
            if self._namespaces is not None:
                address, port = ORIGIN_ADDRESS, "80"
                inside.enter_context(self._namespaces.inside(self._namespaces.origin))
            process = self._spawn(
                "proxy.service.demo_origin", address, port, stdout=subprocess.PIPE
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise StartError("the demo's origin did not start")
        return Endpoint(address, int(line))

    def _start_proxy(self) -> None:
        arguments = [
            *("run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
            *("--policies", str(self.policies), "--events", str(self._events)),
            *("--redirect", self.provider),
        ]
        if self.provider == "static":
            arguments += ["--upstream", str(self.origin)]
        with self._log.open("wb") as log:
            self._proxy = self._spawn("proxy", *arguments, stderr=log)
        ready = wait_until(self._ready_line, _START_SECONDS)
        if ready is None:
            raise StartError(f"the proxy did not start:\n{self._log.read_text(errors='replace')}")
        self.listener, self.admin = Endpoint.parse(ready[1]), Endpoint.parse(ready[2])

    def _ready_line(self) -> re.Match[str] | None:
        found = _READY.search(self._log.read_text(errors="replace"))
        if found is None and self._proxy.poll() is not None:
            raise StartError(f"the proxy ended:\n{self._log.read_text(errors='replace')}")
        return found

    def _spawn(self, module: str, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SLUICEGATE_")}
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            env=environment,
            **streams,
        )
        self._stack.callback(_end, process)
        return process


def wait_until(look: Callable[[], _Found | None], seconds: float) -> _Found | None:
    """Ask until there is an answer; None when the time is over."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, then make it. Popen's own exit waits and closes the pipes."""
    with process:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
