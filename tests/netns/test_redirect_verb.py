"""`sluicegate redirect`: made, seen, confirmed and taken down apart from any proxy."""

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

import pytest

from proxy.cli import main
from tests.support.netns import Lab, Namespace, connect, listening, needs_netns
from tests.support.nft import reaches

pytestmark = needs_netns()

PORT = 15001
NOBODY = 65534


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


@pytest.fixture(params=["nft", "tproxy"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def verb(net: Lab, tmp_path: Path) -> Iterator[Verb]:
    """On the router; nothing stays."""
    before = routing(net.router)
    made = Verb(net.router, tmp_path / "state")
    yield made
    made("down")
    assert routing(net.router) == before
    assert not list(made.state.glob("*"))


def flags(provider: str) -> tuple[str, ...]:
    more = ("--prerouting", "inside", "--listen", f"[::]:{PORT}")
    return ("--provider", provider, *more)


def refused(net: Lab, host: str) -> bool:
    try:
        connect(net.client, host, 80).close()
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


def test_up_stays_and_down_removes_exactly_it(net: Lab, verb: Verb, provider: str) -> None:
    net.router.run("nft", "add table inet foreign { chain c { tcp dport 1 accept; }; }")
    before = routing(net.router)
    with listening(net.server, net.server_v4, 80) as server:
        told = verb.apart("up", *flags(provider))
        assert f"up: {provider} to [::]:{PORT}" in told
        assert "nobody listens there" in told
        assert refused(net, net.server_v4)
        assert verb.status()[0]["whole"] is True
        verb("up", *flags(provider), "--ports", "443")  # again, and otherwise
        assert reaches(net.client, server, net.server_v4, 80)
        assert "removed" in verb("down")
        assert routing(net.router) == before
        assert "nothing is installed" in verb("down")
        assert verb.status() == []
    net.router.run("nft", "delete", "table", "inet", "foreign")


@pytest.mark.parametrize("damage", ["nft flush ruleset", "nft flush chain inet {table} {chain}"])
def test_status_tells_whether_it_is_whole(net: Lab, verb: Verb, provider: str, damage: str) -> None:
    verb("up", *flags(provider))
    words = damage.format(table=f"sluicegate_{PORT}", chain="prerouting")
    net.router.run(*words.split())
    (one,) = verb.status(code=1)
    assert one["whole"] is False
    assert "somebody" in one["detail"]
    verb("up", *flags(provider))
    assert verb.status()[0]["whole"] is True


def test_scopes(net: Lab, verb: Verb) -> None:
    verb(
        "up", "--uid", "nobody", "--ports", "80,8000-8100", "--exclude", "10.77.1.0/24",
        "--include", "10.0.0.0/8", "--exempt-uid", "daemon",
    )  # fmt: skip
    rules = net.router.ruleset()
    for part in ("skuid 65534", "80, 8000-8100", "10.77.1.0/24", "!= 10.0.0.0/8", "skuid 1 return"):
        assert part in rules
    assert "uid 65534" in verb.status()[0]["scope"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("--provider tproxy", 1, "redirect.prerouting"),
        ("--uid no-such-user", 2, "no user"),
        ("--ports 0", 2, "--ports"),
        ("--listen 127.0.0.1:0", 2, "--listen"),
        ("--set redirect.on_crash=open", 2, "on_crash"),
        ("--set redirect.provider=explicit", 1, "only nft, tproxy and ebpf"),
        ("--cgroup no/such.slice", 1, "no cgroup"),
        ("--confirm soon", 2, "--confirm"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    verb: Verb, words: str, code: int, complaint: str
) -> None:
    before = routing(verb.space)
    assert complaint in verb("up", *words.split(), code=code)
    assert routing(verb.space) == before
    assert verb.status() == []


def test_another_redirect_to_the_same_listener_is_not_overwritten(net: Lab, verb: Verb) -> None:
    verb("up", *flags("nft"))
    assert "sluicegate redirect down" in verb("up", *flags("tproxy"), code=1)
    assert verb.status()[0]["provider"] == "nft"
    verb("up", "--listen", "[::]:15002", "--provider", "tproxy", "--prerouting", "inside")
    assert len(verb.status()) == 2
    verb("down", "--listen", "[::]:15002")
    assert [one["listen"] for one in verb.status()] == [f"[::]:{PORT}"]


# --- on trial --------------------------------------------------------------------------------


def test_a_redirect_that_nobody_confirms_goes_by_itself(
    net: Lab, verb: Verb, provider: str
) -> None:
    before = routing(net.router)
    told = verb.apart("up", *flags(provider), "--confirm", "3s")
    assert "s left for `sluicegate redirect confirm`" in told
    watcher = verb.watcher()
    assert refused(net, net.server_v4)
    assert ended(watcher)
    assert routing(net.router) == before
    assert verb.status() == []
    assert "no redirect is on trial" in verb("confirm", code=1)


def test_a_confirmed_redirect_stays(net: Lab, verb: Verb, provider: str) -> None:
    verb.apart("up", *flags(provider), "--confirm", "100s")
    watcher = verb.watcher()
    (one,) = verb.status()
    assert (one["state"], one["whole"]) == ("trial", True)
    assert "on trial" in verb("up", *flags(provider), code=1)
    assert "up: " in verb("confirm")
    assert ended(watcher)
    (one,) = verb.status()
    assert (one["state"], one["whole"]) == ("up", True)
    assert refused(net, net.server_v4)


def test_a_trial_ends_with_its_watcher_however_that_ends(
    net: Lab, verb: Verb, provider: str
) -> None:
    """The session is killed with everything in it: nobody is locked out."""
    verb.apart("up", *flags(provider), "--confirm", "100s")
    watcher = verb.watcher()
    children = Path(f"/proc/{watcher}/task/{watcher}/children").read_text().split()
    handles = [os.pidfd_open(int(pid)) for pid in children]
    os.kill(watcher, signal.SIGKILL)
    for handle in handles:  # nft, which holds the table
        with os.fdopen(handle) as file:
            assert select.select([file], [], [], 10.0)[0]
    assert net.router.ruleset() == ""
    assert verb.status(code=1)[0]["whole"] is False
    assert "over before" in verb("confirm", code=1)


def test_down_ends_a_trial(net: Lab, verb: Verb, provider: str) -> None:
    verb.apart("up", *flags(provider), "--confirm", "100s")
    watcher = verb.watcher()
    verb("down")
    assert ended(watcher)
    assert verb.status() == []


def test_a_trial_survives_the_terminal(net: Lab, verb: Verb) -> None:
    verb.apart("up", *flags("nft"), "--confirm", "100s")
    watcher = verb.watcher()
    assert os.getsid(watcher) == watcher
    for descriptor in (0, 1, 2):
        assert os.readlink(f"/proc/{watcher}/fd/{descriptor}") == "/dev/null"


# --- with a proxy ----------------------------------------------------------------------------


@contextlib.contextmanager
def proxy(space: Namespace, *flags: str, uid: int = 0) -> Iterator[str]:
    """`sluicegate run` on an external redirect; its first line. SIGTERM ends it with 0."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        policies = Path(folder)
        policies.chmod(0o755)
        with _proxy(space, policies, *flags, uid=uid) as line:
            yield line


@contextlib.contextmanager
def _proxy(space: Namespace, policies: Path, *flags: str, uid: int) -> Iterator[str]:
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
        process.send_signal(signal.SIGTERM)
        code = process.wait(40)
        process.stderr.close()
    assert code == 0


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


def test_a_proxy_uses_what_up_has_made_and_leaves_it(net: Lab, verb: Verb, provider: str) -> None:
    verb("up", *flags(provider), "--set", "redirect.keep_client_address=true")
    made = routing(net.router)
    settings = (
        "--redirect", provider, "--listen", f"[::]:{PORT}", "--set", "redirect.prerouting=inside",
        "--set", "redirect.keep_client_address=true",
    )  # fmt: skip
    with web(net.server):
        with proxy(net.router, *settings):
            for host, client, router in (
                (net.server_v4, net.client_v4, "10.77.2.1"),
                (f"[{net.server_v6}]", net.client_v6, "fd77:2::1"),
            ):
                seen = client if provider == "tproxy" else router
                assert get(net.client, f"http://{host}/") == (200, seen)
                assert get(net.client, f"http://{host}/admin")[0] == 403
            assert "nobody" not in verb.apart("status")
        assert routing(net.router) == made
        assert refused(net, net.server_v4)
        verb("down")
        assert get(net.client, f"http://{net.server_v4}/admin") == (200, net.client_v4)


def test_an_unprivileged_proxy_behind_a_redirect_that_root_made(net: Lab, tmp_path: Path) -> None:
    """It cannot mark its connections: the rules know it by its user."""
    verb = Verb(net.client, tmp_path / "state")
    try:
        verb("up", "--exempt-uid", "nobody")
        settings = ("--redirect", "nft", "--set", f"redirect.exempt_uid={NOBODY}")
        with web(net.server), proxy(net.client, *settings, uid=NOBODY):
            assert get(net.client, f"http://{net.server_v4}/") == (200, net.client_v4)
            assert get(net.client, f"http://{net.server_v4}/admin")[0] == 403
    finally:
        verb("down")


def test_a_proxy_that_could_not_tell_its_own_connections_does_not_start(net: Lab) -> None:
    with pytest.raises(AssertionError, match=r"redirect\.exempt_uid"):
        with proxy(net.client, "--redirect", "nft", uid=NOBODY):
            pass
