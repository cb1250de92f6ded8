"""`sluicegate exec` as a user runs it: real curl, wget and Python against an origin elsewhere.

The commands run in a namespace of the test and in cgroups below the test's own; whatever way
connections get to the proxy, nothing may be left of it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RedirectError
from proxy.redirect.registry import PROVIDER_NAMES
from proxy.service.exec_cgroup import PREFIX, locate
from tests.support.netns import Lab, Namespace, lab, needs_netns

_TOOLS = [tool for tool in ("curl", "wget", "setpriv") if shutil.which(tool) is None]


def _cgroup() -> Path | None:
    """Where commands get their cgroups, if any can be made here."""
    try:
        mount, own = locate()
    except RedirectError:
        return None
    return mount / own if os.access(mount / own, os.W_OK) else None


pytestmark = [
    *needs_netns(),
    pytest.mark.peers,
    pytest.mark.skipif(bool(_TOOLS), reason=f"not installed: {', '.join(_TOOLS)}"),
    pytest.mark.skipif(_cgroup() is None, reason="cgroup v2 is not mounted writable"),
]
WAYS = [way for way in ("ebpf", "nft") if way in PROVIDER_NAMES]
POLICY = """version: 1
policy: command
description: For commands.
rules:
  - id: no-admin
    layer: http_request
    when: {path: "/admin*"}
    then: {block: {status: 403, reason: "Not here."}}
  - id: strip
    layer: http_response
    then: {headers: {remove: [Server], set: {X-Inspected: "yes"}}}
"""


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"hello from {self.client_address[0].removeprefix('::ffff:')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Origin(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


@dataclass
class Bench:
    """Runs `sluicegate exec` in the client's namespace."""

    net: Lab
    folder: Path
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def policies(self, text: str = POLICY, name: str = "policies") -> Path:
        made = self.folder / name
        made.mkdir(exist_ok=True)
        (made / "command.yaml").write_text(text)
        return made

    def popen(self, *arguments: str, before: tuple[str, ...] = (), **options: Any) -> Any:
        """`arguments` are exec's own, and the command."""
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        process = self.net.client.call(
            subprocess.Popen,
            [*before, sys.executable, "-m", "proxy", "exec", *arguments],
            env=environment,
            **options,
        )
        self.running.append(process)
        return process

    def run(
        self, *arguments: str, input: str | None = None, **options: Any
    ) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.popen(*arguments, **options)
        out, err = process.communicate(input, timeout=60)
        return process.returncode, out, err

    def events(self) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()
        ]


@pytest.fixture(scope="module")
def net() -> Iterator[Lab]:
    with lab() as made:
        origin = made.server.call(_Origin, ("::", 80), _Answer)
        thread = threading.Thread(target=origin.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield made
        finally:
            origin.shutdown()
            origin.server_close()
            thread.join()


@pytest.fixture
def bench(net: Lab, tmp_path: Path) -> Iterator[Bench]:
    """Nothing is left when a test is over."""
    made = Bench(net, tmp_path)
    yield made
    for process in made.running:
        with process:
            if process.poll() is None:
                process.kill()
    assert net.client.ruleset() == ""
    assert bpf_links({process.pid for process in made.running}) == []
    assert left_cgroups() == []


def left_cgroups() -> list[Path]:
    """Those of processes of this test that have ended."""
    where = _cgroup()
    assert where is not None
    found = where.glob(f"{PREFIX}*")
    return [path for path in found if not Path("/proc", path.name.split("-")[2]).exists()]


def bpf_links(pids: set[int]) -> list[int]:
    """Ids of the BPF links that these processes hold: none where there is no bpftool."""
    if shutil.which("bpftool") is None:
        return []
    done = subprocess.run(
        ["bpftool", "-j", "link", "list"], capture_output=True, text=True, check=False
    )
    links = json.loads(done.stdout or "[]") if done.returncode == 0 else []
    return [link["id"] for link in links if pids & {held["pid"] for held in link.get("pids", [])}]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(params=WAYS)
def via(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def url(net: Lab, version: int, path: str = "/") -> str:
    return f"http://{net.server_v4 if version == 4 else f'[{net.server_v6}]'}{path}"


# --- what it is for


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_commands_connections_are_looked_at(bench: Bench, via: str, version: int) -> None:
    policies = str(bench.policies())
    asked = ("--via", via, "--policies", policies, "--", "curl", "-sig", url(bench.net, version))
    code, out, err = bench.run(*asked)
    assert (code, err) == (0, "")
    assert "\nX-Inspected: yes\n" in out
    assert "Server:" not in out
    plain = bench.net.client.run("curl", "-sig", url(bench.net, version))
    assert "X-Inspected" not in plain


def test_not_a_word_of_configuration_is_needed(bench: Bench) -> None:
    code, out, err = bench.run("--", "curl", "-s", url(bench.net, 4))
    assert (code, err) == (0, "")
    assert out == f"hello from {bench.net.client_v4}\n"


def test_what_policy_forbids_is_blocked_and_summed_up(bench: Bench, via: str) -> None:
    asked = ("--via", via, "--policies", str(bench.policies()), "--summary")
    script = f"curl -s {url(bench.net, 4, '/admin')}; wget -qO- {url(bench.net, 4)}"
    code, out, err = bench.run(*asked, "--", "sh", "-c", script)
    assert code == 0
    assert "Not here." in out
    assert "hello from" in out
    assert f"via {via}, exit code 0" in err
    assert "connections  2 (" in err
    assert "exchanges    2 (blocked 1, forwarded 1)" in err
    assert "no-admin (http_request): block, once" in err
    assert "strip (http_response): edit, once" in err


def test_the_summary_as_json_and_the_events(bench: Bench, via: str) -> None:
    events = bench.folder / "events.jsonl"
    asked = ("--via", via, "--policies", str(bench.policies()), "--events", str(events))
    code, _, err = bench.run(
        *asked, "--json", "--", "curl", "-s", url(bench.net, 6, "/admin"), "-g"
    )
    told = json.loads(err)
    assert (code, told["via"], told["exit_code"]) == (0, via, 0)
    assert told["exchanges"] == {"blocked": 1}
    assert told["rules"] == [
        {
            "rule": "no-admin",
            "layer": "http_request",
            "verdict": "block",
            "shadow": False,
            "hits": 1,
        }
    ]
    actions = [event["event.action"] for event in bench.events()]
    assert "SERVICE_START" in actions
    assert actions[-1] == "SERVICE_STOP"
    assert "EXCHANGE" in actions


def test_children_are_looked_at_too(bench: Bench, via: str) -> None:
    asked = f"urlopen({url(bench.net, 4)!r}).headers['X-Inspected']"
    code = f"from urllib.request import urlopen; print({asked})"
    script = f'sh -c "{sys.executable} -c \\"{code}\\""'
    asked = ("--via", via, "--policies", str(bench.policies()))
    assert bench.run(*asked, "--", "sh", "-c", script)[:2] == (0, "yes\n")


def test_its_cgroup_is_a_child_of_the_callers(bench: Bench, via: str) -> None:
    """So the caller's limits hold. systemd writes a hyphen in a name as \\x2d."""
    where = _cgroup()
    assert where is not None
    caller = where / f"test\\x2d{os.getpid()}"
    caller.mkdir()
    into = ("sh", "-c", f'echo $$ > "{caller}/cgroup.procs"; exec "$@"', "sh")
    script = f"grep ^0:: /proc/self/cgroup; curl -si {url(bench.net, 4)}"
    asked = ("--via", via, "--policies", str(bench.policies()))
    try:
        code, out, err = bench.run(*asked, "--", "sh", "-c", script, before=into)
        assert list(caller.glob("*/")) == []
    finally:
        caller.rmdir()
    assert (code, err) == (0, "")
    assert f"/{caller.name}/{PREFIX}" in out
    assert "X-Inspected: yes" in out


def test_two_at_once_each_by_its_own_policies(bench: Bench, via: str) -> None:
    """Both are running when either asks: each waits for a line."""
    other = POLICY.replace("/admin*", "/secret*").replace("yes", "other")
    folders = bench.policies(), bench.policies(other, "other")
    script = "read go; " + "; ".join(
        f"curl -s -o /dev/null -w '%{{http_code}} ' {url(bench.net, 4, path)}"
        for path in ("/admin", "/secret")
    )
    pair = [
        bench.popen(
            "--via", via, "--policies", str(folder), "--", "sh", "-c", script, stdin=subprocess.PIPE
        )
        for folder in folders
    ]
    until(lambda: len(scoped(bench)) == 2)
    told = [process.communicate("go\n", timeout=60) for process in pair]
    assert told == [("403 200 ", ""), ("200 403 ", "")]


def scoped(bench: Bench) -> list[Path]:
    """The cgroups of commands of this test that have processes."""
    where = _cgroup()
    assert where is not None
    mine = {str(process.pid) for process in bench.running}
    found = [path for path in where.glob(f"{PREFIX}*") if path.name.split("-")[2] in mine]
    return [path for path in found if (path / "cgroup.procs").read_text()]


def test_other_ports_are_left_alone(bench: Bench, via: str) -> None:
    asked = ("--via", via, "--policies", str(bench.policies()), "--ports", "9000")
    assert "X-Inspected" not in bench.run(*asked, "--", "curl", "-si", url(bench.net, 4))[1]


def test_every_port_when_asked(bench: Bench, via: str) -> None:
    with _serving(bench.net.server, 4321):
        base = f"http://{bench.net.server_v4}:4321/"
        asked = ("--via", via, "--policies", str(bench.policies()), "--all-ports")
        assert "X-Inspected: yes" in bench.run(*asked, "--", "curl", "-si", base)[1]


def test_loopback_when_asked(bench: Bench, via: str) -> None:
    with _serving(bench.net.client, 8000):
        asked = ("--via", via, "--policies", str(bench.policies()))
        command = ("--", "curl", "-sig", "http://127.0.0.1:8000/", "http://[::1]:8000/")
        assert "X-Inspected" not in bench.run(*asked, *command)[1]
        code, out, err = bench.run(*asked, "--include-loopback", *command)
    assert (code, err, out.count("X-Inspected: yes")) == (0, "", 2)


@contextlib.contextmanager
def _serving(space: Namespace, port: int) -> Iterator[None]:
    server = space.call(_Origin, ("::", port), _Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.skipif(
    "ebpf" not in PROVIDER_NAMES, reason="provider ebpf is not part of this version"
)
def test_a_rule_on_the_program_tells_two_programs_apart_that_run_at_once(bench: Bench) -> None:
    curl, python = shutil.which("curl"), os.path.realpath(sys.executable)
    policy = f"""version: 1
policy: programs
description: curl may, Python may not.
rules:
  - id: no-python
    layer: auth_connect
    when: {{principal.exe: "{python}"}}
    then: {{block: {{hard: true}}}}
"""
    target = (bench.net.server_v4, 80)
    reads = f"s = socket.create_connection({target!r}); s.send(b'x'); s.recv(1)"
    snake = f'{python} -c "import socket; {reads}" 2>&1'
    asked = f"curl -s {url(bench.net, 4)}; curl -sg {url(bench.net, 6)}"
    events = bench.folder / "events.jsonl"
    options = ("--via", "ebpf", "--policies", str(bench.policies(policy)))
    other = bench.popen(*options, "--", "sh", "-c", f"read go; {snake}", stdin=subprocess.PIPE)
    until(lambda: len(scoped(bench)) == 1)
    both = f"{snake} & {{ {asked}; }} & wait"
    code, out, err = bench.run(*options, "--events", str(events), "--", "sh", "-c", both)
    assert (code, err) == (0, "")
    assert out.count("hello from") == 2
    assert "ConnectionResetError" in out
    assert "ConnectionResetError" in other.communicate("go\n", timeout=60)[0]
    flows = [event for event in bench.events() if event["event.action"] == "ENDPOINT_CLOSURE"]
    assert sorted((flow["process.executable"], flow["sluicegate.outcome"]) for flow in flows) == (
        sorted([(python, "blocked"), (str(curl), "closed"), (str(curl), "closed")])
    )


def test_a_machine_without_ipv6_is_told_of_it_and_served(bench: Bench, via: str) -> None:
    bench.net.client.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)
    try:
        asked = ("--via", via, "--policies", str(bench.policies()))
        code, out, err = bench.run(*asked, "--", "curl", "-si", url(bench.net, 4))
    finally:
        bench.net.client.sysctl("net.ipv6.conf.lo.disable_ipv6", 0)
    assert code == 0
    assert "X-Inspected: yes" in out
    assert "IPv6 is not looked at" in err


# --- like any other wrapper of commands


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (("sh", "-c", "exit 7"), 7, ""),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL, ""),
        (("no-such-command",), 127, "no-such-command: there is no such command\n"),
        (("/etc/passwd",), 126, "/etc/passwd: Permission denied\n"),
    ],
)
def test_the_exit_code_is_the_commands(
    bench: Bench, command: tuple[str, ...], code: int, told: str
) -> None:
    assert bench.run("--", *command) == (code, "", told and f"sluicegate exec: {told}")


def test_standard_streams_are_the_commands_own(bench: Bench) -> None:
    """Without `--` too, as env(1) takes a command."""
    script = "cat; echo out; echo err >&2"
    assert bench.run("sh", "-c", script, input="in\n") == (0, "in\nout\n", "err\n")


def test_signals_are_as_the_caller_has_them(bench: Bench) -> None:
    """Neither what Python ignores nor what we block gets to the command."""
    code, out, _ = bench.run("--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    plain = subprocess.run(
        ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], capture_output=True, text=True
    )
    assert (code, out) == (0, plain.stdout)


def test_signals_reach_the_command(bench: Bench) -> None:
    names = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")
    script = (
        "import signal, sys\n"
        "def told(number, _):\n"
        "    print(signal.Signals(number).name[3:], flush=True)\n"
        "    number == signal.SIGWINCH and sys.exit(3)\n"
        f"for name in {names}: signal.signal(signal.Signals['SIG' + name], told)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    process = bench.popen("--", sys.executable, "-c", script)
    assert process.stdout.readline() == "ready\n"
    for name in names:
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stdout.readline() == f"{name}\n"
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 3


def test_ctrl_c_comes_once(bench: Bench) -> None:
    """A terminal sends it to the whole foreground group: we must not send it again."""
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('got', flush=True))\n"
        "print('ready', flush=True)\n"
        "time.sleep(0.5); time.sleep(0.5)\n"
    )
    master, slave = os.openpty()
    process = bench.popen(
        "--via", "env", "--", sys.executable, "-c", script,
        before=("setsid", "--ctty", "--wait"), stdin=slave,
    )  # fmt: skip
    os.close(slave)
    assert process.stdout.readline() == "ready\n"
    os.write(master, b"\x03")
    out, _ = process.communicate(timeout=30)
    os.close(master)
    assert (out, process.returncode) == ("got\n", 0)


def test_children_that_outlive_the_command(bench: Bench, via: str) -> None:
    """Within the time to linger they are looked at; afterwards they go on without us."""
    asked = ("--via", via, "--policies", str(bench.policies()), "--linger")
    script = f"(sleep 0.3; curl -si {url(bench.net, 4)}) & exit 5"
    code, out, err = bench.run(*asked, "inf", "--", "sh", "-c", script)
    assert (code, err) == (5, "")
    assert "X-Inspected: yes" in out
    script = "sleep 60 >/dev/null 2>&1 & echo $!; exit 5"
    code, out, err = bench.run(*asked, "0", "--", "sh", "-c", script)
    os.kill(int(out), signal.SIGKILL)
    assert code == 5
    assert "1 of the command's processes go on" in err


def test_killed_it_leaves_the_way_open_and_the_next_start_cleans_up(bench: Bench, via: str) -> None:
    script = f"echo ready; read go; curl -si {url(bench.net, 4)}"
    asked = ("--via", via, "--policies", str(bench.policies()))
    process = bench.popen(*asked, "--", "sh", "-c", script, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait(10)
    until(lambda: bench.net.client.ruleset() == "")
    out, _ = process.communicate("go\n", timeout=30)
    assert "hello from" in out
    assert "X-Inspected" not in out
    until(lambda: all(not (path / "cgroup.procs").read_text() for path in left_cgroups()))
    assert bench.run("--via", "nft", "true") == (0, "", "")


# --- without privileges

UNPRIVILEGED = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    # Reading is all that is left: the interpreter may be where only root looks.
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)


def test_without_privileges_programs_are_told_of_the_proxy(bench: Bench) -> None:
    asked = ("--policies", str(bench.policies()), "--", "curl", "-si", url(bench.net, 4))
    process = bench.popen(*asked, before=UNPRIVILEGED)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "X-Inspected: yes" in out
    assert err.startswith("sluicegate exec: connections are not redirected (")
    assert "nft: " in err
    assert "programs that do not heed them go past it" in err


def test_a_redirect_that_was_asked_for_is_not_replaced_by_less(bench: Bench) -> None:
    process = bench.popen("--via", "nft", "--", "echo", "never", before=UNPRIVILEGED)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (125, "")
    assert "connections cannot be redirected here: nft: " in err


def test_variables_of_the_caller_do_not_lead_past_the_proxy(bench: Bench) -> None:
    script = f"curl -si {url(bench.net, 4)}; echo $no_proxy"
    asked = ("--via", "env", "--policies", str(bench.policies()))
    code, out, _ = bench.run(*asked, "--", "sh", "-c", script, before=("env", "no_proxy=*"))
    assert code == 0
    assert "X-Inspected: yes" in out
    assert out.endswith("localhost,127.0.0.0/8,127.0.0.1,::1\n")


@pytest.mark.skipif("ebpf" not in WAYS, reason="provider ebpf is not part of this version")
def test_where_bpf_is_forbidden_nftables_take_its_place_and_the_summary_says_why(
    bench: Bench,
) -> None:
    asked = ("--policies", str(bench.policies()), "--summary", "--", "curl", "-si")
    no_bpf = ("setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon")
    process = bench.popen(*asked, url(bench.net, 4), before=no_bpf)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "X-Inspected: yes" in out
    assert "via nft, exit code 0\n    instead of   ebpf: " in err


def test_without_a_cgroup_nftables_can_tell_the_user(bench: Bench) -> None:
    """Root of a container that may not make cgroups."""
    asked = ("--via", "nft", "--policies", str(bench.policies()), "--as-user", "nobody")
    process = bench.popen(
        *asked,
        "--",
        "curl",
        "-si",
        url(bench.net, 4),
        before=("setpriv", "--bounding-set=-dac_override"),
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "X-Inspected: yes" in out
    assert "so every connection of user nobody is redirected, until the end" in err


# --- users and mistakes


def test_the_command_may_run_as_somebody_else(bench: Bench, via: str) -> None:
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' {url(bench.net, 4, '/admin')}"
    script = f"id -un; echo $HOME; {asked}"
    asked = ("--via", via, "--policies", str(bench.policies()), "--as-user", "nobody")
    code, out, err = bench.run(*asked, "--", "sh", "-c", script)
    assert (code, err) == (0, "")
    assert out.splitlines() == ["nobody", "/nonexistent", "403"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "no command; write: sluicegate exec [options] -- COMMAND"),
        (("--as-user", "no-such-user", "true"), "there is no user 'no-such-user'"),
        (("--set", "limits.no_such=1", "true"), "limits.no_such"),
        (("--policies", "/nonexistent", "true"), "/nonexistent"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    bench: Bench, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = bench.run(*arguments)
    assert (code, out) == (125, "")
    assert told in err
    assert "Traceback" not in err
