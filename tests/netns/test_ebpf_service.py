"""The whole service behind the provider ebpf, its crashes, and what it leaves in the kernel."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ebpf import Group, loaded, needs_ebpf, pins_may_be_mounted, scratch_cgroup
from tests.support.ebpf_service import in_group, service
from tests.support.netns import Lab, Namespace

_TOOLS = [tool for tool in ("curl", "wget") if shutil.which(tool) is None]
pytestmark = [
    *needs_ebpf(),
    pytest.mark.skipif(bool(_TOOLS), reason=f"not installed: {', '.join(_TOOLS)}"),
]

POLICY = """version: 1
policy: programs
rules:
  - id: no-curl
    layer: http_request
    when: {principal.exe: "%s"}
    then: {block: {status: 403, reason: "Not with this program."}}
"""

_SERVER = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\\n")
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", 80), Handler)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def site(_lab: Lab) -> Iterator[None]:
    process = _lab.server.popen(sys.executable, "-c", _SERVER, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        yield
        process.terminate()
        process.wait(10)


@pytest.fixture
def group() -> Iterator[Group]:
    with pins_may_be_mounted(), scratch_cgroup() as made:
        yield made


@pytest.fixture
def policy() -> str:
    curl = shutil.which("curl")
    assert curl is not None
    return POLICY % Path(curl).resolve()


def curl(space: Namespace, group: Group, host: str) -> str:
    """The status that curl sees; 000 where there was no answer."""
    return in_group(
        space, group, "curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}",
        f"http://{host}/",
    )  # fmt: skip


def wget(space: Namespace, group: Group, host: str) -> str:
    return in_group(space, group, "wget", "-q", "-T", "10", "-t", "1", "-O-", f"http://{host}/")


@pytest.mark.usefixtures("site")
def test_one_program_is_blocked_and_another_is_not(
    net: Lab, group: Group, policy: str, tmp_path: Path
) -> None:
    hosts = (net.server_v4, f"[{net.server_v6}]")
    with scratch_cgroup() as own, service(net.client, group, tmp_path, policy, own=own) as running:
        for host in hosts:
            assert curl(net.client, group, host) == "403"
            assert wget(net.client, group, host) == "hello\n"
            assert curl(net.client, own, host) == "200"  # another cgroup: not captured
    flows = running.events("ENDPOINT_CLOSURE")
    assert {flow["destination.ip"] for flow in flows} == {net.server_v4, net.server_v6}
    assert {flow["sluicegate.provider"] for flow in flows} == {"ebpf"}
    assert {Path(flow["process.executable"]).name for flow in flows} == {"curl", "wget"}
    assert {flow["sluicegate.principal.confidence"] for flow in flows} == {"exact"}
    assert {flow["sluicegate.principal.cgroup"] for flow in flows} == {f"/{group.path}"}


@pytest.mark.usefixtures("site")
def test_nothing_is_left_behind(net: Lab, group: Group, policy: str, tmp_path: Path) -> None:
    before = loaded()
    for on_crash in ("open", "closed"):
        extra = ("--set", f"redirect.on_crash={on_crash}", "--set", "redirect.block_quic=true")
        with service(net.client, group, tmp_path, policy, *extra):
            assert len(loaded()["prog"]) == len(before["prog"]) + 9
            assert len(loaded()["link"]) == len(before["link"]) + 9
        assert loaded() == before
        assert pinned() == []
        assert curl(net.client, group, net.server_v4) == "200"


@pytest.mark.usefixtures("site")
def test_killed_with_on_crash_open_the_way_is_free(
    net: Lab, group: Group, policy: str, tmp_path: Path
) -> None:
    before = loaded()
    with service(net.client, group, tmp_path, policy, "--set", "redirect.on_crash=open") as running:
        assert curl(net.client, group, net.server_v4) == "403"
        running.kill()
        assert curl(net.client, group, net.server_v4) == "200"
    assert loaded() == before


@pytest.mark.usefixtures("site")
def test_killed_with_on_crash_closed_nothing_passes_until_it_is_back(
    net: Lab, group: Group, policy: str, tmp_path: Path
) -> None:
    before = loaded()
    with service(net.client, group, tmp_path, policy) as running:
        assert wget(net.client, group, net.server_v4) == "hello\n"
        running.kill()
    for host in (net.server_v4, f"[{net.server_v6}]"):
        assert curl(net.client, group, host) == "000"
        assert wget(net.client, group, host) == ""
    assert len(pinned()) == 1
    with service(net.client, group, tmp_path, policy):
        assert wget(net.client, group, net.server_v4) == "hello\n"
        assert curl(net.client, group, net.server_v4) == "403"
        assert len(pinned()) == 1  # the dead one's are gone
    assert pinned() == []
    assert loaded() == before
    assert curl(net.client, group, net.server_v4) == "200"


@pytest.mark.usefixtures("site")
def test_two_proxies_side_by_side(net: Lab, group: Group, policy: str, tmp_path: Path) -> None:
    """Each captures its own cgroup, and one's end changes nothing for the other."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    allow = POLICY % "/no/such/program"
    ports = ("--listen", "127.0.0.1:15002", "--admin", "127.0.0.1:15022")
    with scratch_cgroup() as other, contextlib.ExitStack() as stack:
        one = stack.enter_context(service(net.client, group, tmp_path / "one", policy))
        with service(net.client, other, tmp_path / "two", allow, *ports) as two:
            assert curl(net.client, group, net.server_v4) == "403"
            assert curl(net.client, other, net.server_v4) == "200"
        assert len(two.events("ENDPOINT_CLOSURE")) == 1
        assert curl(net.client, other, net.server_v4) == "200"
        assert curl(net.client, group, net.server_v4) == "403"
    assert len(one.events("ENDPOINT_CLOSURE")) == 2
    assert len(two.events("ENDPOINT_CLOSURE")) == 1
    assert pinned() == []


_LISTENER_ELSEWHERE = """
import asyncio, os, socket, sys
from proxy.model import Endpoint
from proxy.redirect.ebpf import EbpfProvider
from proxy.redirect.options import OnCrash, RedirectOptions
captured, made_in, moved_to = sys.argv[1:4]
def move(group):
    with open(group + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
move(made_in)
listener = socket.create_server(("::", 15001), family=socket.AF_INET6, dualstack_ipv6=True)
move(moved_to)
provider = EbpfProvider(
    RedirectOptions(Endpoint("::", 15001), cgroup=captured, on_crash=OnCrash.OPEN)
)
provider.install()
print("ready", flush=True)
sock, address = listener.accept()
info = asyncio.run(provider.identify(sock, Endpoint.of(address), 5.0)).info
print(info.original_dst, flush=True)
"""


@pytest.mark.parametrize("below", [True, False])
def test_the_listener_was_made_in_another_cgroup(net: Lab, group: Group, below: bool) -> None:
    """A process that was moved since, deeper or to somewhere else: the listener counts."""
    with scratch_cgroup() as first, scratch_cgroup() as second:
        inner = first.directory / "inner"
        inner.mkdir()
        moved_to = inner if below else second.directory
        words = [sys.executable, "-c", _LISTENER_ELSEWHERE]
        words += [group.path, str(first.directory), str(moved_to)]
        process = net.client.call(subprocess.Popen, words, stdout=subprocess.PIPE, text=True)
        with process.stdout:
            assert process.stdout.readline() == "ready\n"
            in_group(net.client, group, "curl", "-s", "-m", "5", "http://192.0.2.9:8080/")
            assert process.stdout.readline() == "192.0.2.9:8080\n"
        assert process.wait(10) == 0


def pinned() -> list[str]:
    return [path.name for path in Path("/sys/fs/bpf").glob("sluicegate/*")]


def test_what_is_missing_is_told(net: Lab, tmp_path: Path) -> None:
    """`ip netns exec` mounts a /sys of its own, which has no cgroups: a sentence, exit code 3."""
    told = subprocess.run(
        ["ip", "netns", "exec", net.client.name, sys.executable, "-m", "proxy", "run",
         "--redirect", "ebpf"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert told.returncode == 3
    assert "cgroup v2 is not mounted here" in told.stderr


def test_a_port_that_is_taken_leaves_nothing(net: Lab, group: Group, tmp_path: Path) -> None:
    before = loaded()
    with net.client.call(socket.create_server, ("127.0.0.1", 15001)):
        with pytest.raises(AssertionError, match="cannot listen"):
            with service(net.client, group, tmp_path, POLICY % "/x"):
                pass
    assert loaded() == before
