"""What tests of `sluicegate redirect` share: the command, a proxy, a server, what is left."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proxy.cli import main
from tests.support.netns import Namespace, connect

PORT = 15001


class Verb:
    """The command in a namespace, with its notes in a folder of their own."""

    def __init__(self, space: Namespace, state: Path) -> None:
        self.space = space
        self.state = state

    def __call__(self, action: str, *flags: str, code: int = 0) -> str:
        """What it prints, on both channels; in a thread of ours, for that is quick."""
        said = io.StringIO()

        def inside() -> int:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                return main(["redirect", action, "--state", str(self.state), *flags])

        assert self.space.call(inside) == code, said.getvalue()
        return said.getvalue()

    def apart(self, action: str, *flags: str) -> str:
        """The same as a process of its own: trials fork, and /proc/net is the process's."""
        command = [sys.executable, "-m", "proxy", "redirect", action, "--state", str(self.state)]
        done = self.space.call(
            subprocess.run, [*command, *flags], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def status(self, code: int = 0) -> list[dict[str, Any]]:
        return list(json.loads(self("status", "--json", code=code))["redirects"])

    def watcher(self) -> int:
        (path,) = self.state.glob("*.json")
        return int(json.loads(path.read_text())["watcher"])


def routing(space: Namespace) -> list[str]:
    asked = ("rule", "-6 rule", "route show table all", "-6 route show table all")
    return [*(space.run("ip", *words.split()) for words in asked), space.ruleset()]


def flags(provider: str) -> tuple[str, ...]:
    more = ("--prerouting", "inside", "--listen", f"[::]:{PORT}")
    return ("--provider", provider, *more)


def refused(space: Namespace, host: str, port: int = 80) -> bool:
    try:
        connect(space, host, port).close()
    except ConnectionRefusedError:
        return True
    return False


def ended(pid: int) -> bool:
    """Has a process ended, within a few seconds?"""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(handle) as file:
        return bool(select.select([file], [], [], 10.0)[0])


@contextlib.contextmanager
def proxy(
    space: Namespace, *flags: str, uid: int = 0, end: signal.Signals = signal.SIGTERM
) -> Iterator[str]:
    """`sluicegate run`, on an external redirect unless flags say otherwise; its first line."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        policies = Path(folder)
        policies.chmod(0o755)
        with _proxy(space, policies, *flags, uid=uid, end=end) as line:
            yield line


@contextlib.contextmanager
def _proxy(
    space: Namespace, policies: Path, *flags: str, uid: int, end: signal.Signals
) -> Iterator[str]:
    (policies / "x.yaml").write_text(
        "version: 1\npolicy: x\ndescription: x\nrules:\n  - id: no-admin\n    layer: http_request\n"
        '    when: {path: "/admin*"}\n    then: {block: {status: 403}}\n'
    )
    user = ("setpriv", f"--reuid={uid}", "--clear-groups", "--inh-caps=-all") if uid else ()
    command = [
        *user, sys.executable, "-m", "proxy", "run", "--set", "redirect.managed=external",
        "--policies", str(policies), *flags,
    ]  # fmt: skip
    process = space.call(subprocess.Popen, command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert " ready: listening on " in line, line + process.stderr.read()
        yield line
    finally:
        process.send_signal(end)
        code = process.wait(40)
        process.stderr.close()
    assert code == 0, code


_SERVE = """
import http.server, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = 10
print("serving", flush=True) if (server := Server(("::", 80), Handler)) else None
server.serve_forever()
"""


@contextlib.contextmanager
def web(space: Namespace) -> Iterator[None]:
    """A server that answers with the address that it sees."""
    process = space.popen(sys.executable, "-c", _SERVE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"serving\n"
        try:
            yield
        finally:
            process.kill()


def get(space: Namespace, url: str) -> tuple[int, str]:
    def inside() -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=10) as answer:
                return answer.status, answer.read().decode().removeprefix("::ffff:")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    return space.call(inside)
