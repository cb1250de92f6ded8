"""The whole service behind a real nftables redirect: real curl, wget and nginx in namespaces.

In `client` an application and the proxy, in `server` nginx. The router stands between them
and in one test carries the proxy itself.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.netns import Lab, Namespace, needs_netns

_TOOLS = [tool for tool in ("curl", "wget", "nginx") if shutil.which(tool) is None]
pytestmark = [
    *needs_netns(),
    pytest.mark.peers,
    pytest.mark.skipif(bool(_TOOLS), reason=f"not installed: {', '.join(_TOOLS)}"),
]

POLICY = """version: 1
policy: lab
description: For the namespaces.
rules:
  - id: no-admin
    layer: http_request
    when: {path: "/admin*"}
    then: {block: {status: 403, reason: "Not here."}}
  - id: strip
    layer: http_response
    then: {headers: {remove: [Server], set: {X-Inspected: "yes"}}}
  - id: banner
    layer: http_response
    when: {content_type: text/html}
    then: {inject_banner: {html: "<p id=banner>inspected</p>", at: body_start}}
  - id: no-telnet
    layer: auth_connect
    when: {dst.port: 8000}
    then: {block: {hard: true}}
"""

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log {dir}/access.log; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{
    types {{ text/html html; text/plain txt; }}
    gzip on; gzip_min_length 1; listen 80; listen [::]:80; listen 8000; root {dir}/www;
    location = /peer {{ default_type text/plain; return 200 "$remote_addr"; }}
  }}
}}
"""


PAGE = """<!doctype html><html><head><title>t</title><script>var x = "<body>";</script></head>
<body class="a>b"><h1>Page</h1><img src="/small.txt"></body></html>
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nginx's folder, with a small file and one of 100 MB (sparse)."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "www").mkdir()
    (folder / "www" / "small.txt").write_text("hello\n")
    with (folder / "www" / "large.bin").open("wb") as large:
        large.truncate(100_000_000)
    (folder / "www" / "page.html").write_text(PAGE)
    (folder / "nginx.conf").write_text(NGINX.format(dir=folder))
    for path in (folder, folder / "www"):
        path.chmod(0o755)
    return folder


@contextlib.contextmanager
def nginx(space: Namespace, site: Path) -> Iterator[None]:
    process = space.popen(
        "nginx", "-p", str(site), "-c", str(site / "nginx.conf"), stderr=subprocess.DEVNULL
    )
    try:
        retry = ("--retry", "20", "--retry-all-errors", "--retry-delay", "0")
        space.run("curl", "-s", *retry, "-o", "/dev/null", "http://127.0.0.1/small.txt")
        yield
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class Running:
    process: subprocess.Popen[str]
    policies: Path
    events_file: Path

    def events(self, action: str) -> list[dict[str, object]]:
        lines = self.events_file.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event.action"] == action]

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024


@contextlib.contextmanager
def proxy(space: Namespace, folder: Path, *extra: str) -> Iterator[Running]:
    """`sluicegate run --redirect nft`, ready; ended by SIGTERM with exit code 0."""
    policies = folder / "policies"
    policies.mkdir()
    (policies / "lab.yaml").write_text(POLICY)
    events = folder / "events.jsonl"
    process = space.popen(
        sys.executable, "-m", "proxy", "run", "--redirect", "nft", "--policies", str(policies),
        "--events", str(events), *extra, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert " ready: listening on " in line, line + process.stderr.read()
        yield Running(process, policies, events)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(40)
        if process.stderr is not None:
            process.stderr.close()
    assert code == 0


def test_applications_of_this_machine_are_redirected(net: Lab, site: Path, tmp_path: Path) -> None:
    with nginx(net.server, site), proxy(net.client, tmp_path) as service:
        for host in (net.server_v4, f"[{net.server_v6}]"):
            told = net.client.run("curl", "-si", f"http://{host}/small.txt")
            assert told.endswith("\n\nhello\n")
            assert "X-Inspected: yes\n" in told
            assert "Server:" not in told
        page = net.client.run("curl", "-s", "-w", "%{http_code}", f"http://{net.server_v4}/admin")
        assert page.endswith("403")
        assert "Not here." in page
        assert net.client.run("wget", "-qO-", f"http://{net.server_v4}/small.txt") == "hello\n"
        refused = f"http://{net.server_v4}:8000/"
        assert net.client.run("curl", "-s", refused, "-w", "%{http_code}", check=False) == "000"
    flows = service.events("ENDPOINT_CLOSURE")
    assert {flow["destination.ip"] for flow in flows} == {net.server_v4, net.server_v6}
    assert {flow["sluicegate.provider"] for flow in flows} == {"nft"}
    assert [flow["sluicegate.outcome"] for flow in flows].count("blocked") == 1


def test_a_keep_alive_connection_is_judged_request_by_request(
    net: Lab, site: Path, tmp_path: Path
) -> None:
    base = f"http://{net.server_v4}"
    with nginx(net.server, site), proxy(net.client, tmp_path):
        targets = ("/small.txt", "/admin", "/small.txt")
        asked = [part for target in targets for part in ("-o", "/dev/null", base + target)]
        told = net.client.run("curl", "-s", *asked, "-w", "%{http_code} %{num_connects}\n")
    assert told.split("\n")[:3] == ["200 1", "403 0", "200 0"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="not installed: chromium")
def test_a_browser_shows_the_banner(net: Lab, site: Path, tmp_path: Path) -> None:
    """Chromium asks for compressed pages, preconnects and keeps connections."""
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-quic")  # fmt: skip
    with nginx(net.server, site), proxy(net.client, tmp_path) as service:
        document = net.client.run(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", *quiet,
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            f"http://{net.server_v4}/page.html",
        )  # fmt: skip
    assert '<body class="a&gt;b"><p id="banner">inspected</p><h1>Page</h1>' in document
    assert "/small.txt" in {event["url.path"] for event in service.events("EXCHANGE")}


def test_a_large_download_is_whole_and_memory_stays_flat(
    net: Lab, site: Path, tmp_path: Path
) -> None:
    url = f"http://{net.server_v4}/large.bin"
    with nginx(net.server, site), proxy(net.client, tmp_path) as service:
        net.client.run("curl", "-s", "-o", "/dev/null", f"http://{net.server_v4}/small.txt")
        before = service.resident_bytes()
        size = net.client.run("curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", url)
        assert size == "100000000"
        assert service.resident_bytes() - before < 8_000_000


def test_a_router_redirects_what_passes_through_it(net: Lab, site: Path, tmp_path: Path) -> None:
    listen = ("--listen", "[::]:15001", "--set", 'redirect.prerouting=["inside"]')
    with nginx(net.server, site), proxy(net.router, tmp_path, *listen) as service:
        told = net.client.run("curl", "-si", f"http://{net.server_v4}/small.txt")
        assert "X-Inspected: yes\n" in told
        direct = net.client.run("curl", "-s", f"http://{net.router_v4}:15001/", check=False)
        assert direct == ""  # a client that was not redirected is refused
    flow = service.events("ENDPOINT_CLOSURE")[0]
    assert flow["source.ip"] == net.client_v4
    assert [event["sluicegate.reason"] for event in service.events("CLASSIFY_DROP")] == [
        "not_redirected"
    ]


def test_a_redirect_that_somebody_removes_is_noticed(net: Lab, site: Path, tmp_path: Path) -> None:
    """Without it traffic passes by unseen: not ready any more, and an event."""
    with proxy(net.client, tmp_path, "--admin", "127.0.0.1:15099") as service:
        ready = (
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "http://127.0.0.1:15099/readyz",
        )
        assert net.client.run(*ready) == "200"
        net.client.run("nft", "flush", "ruleset")
        deadline = time.monotonic() + 20
        while net.client.run(*ready) != "503":
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert [event["sluicegate.state"] for event in service.events("REDIRECT_HEALTH")] == ["lost"]


def test_a_client_that_was_not_redirected_is_let_in_where_settings_say_so(
    net: Lab, site: Path, tmp_path: Path
) -> None:
    """The row `no_redirect_info` of the exception table, open: counted, and sent to `upstream`."""
    settings = ["--listen", "[::]:15001", "--upstream", f"{net.server_v4}:80"]
    settings += ["--set", 'redirect.prerouting=["inside"]']
    settings += ["--set", "exceptions.no_redirect_info=open"]
    with nginx(net.server, site), proxy(net.router, tmp_path, *settings) as service:
        told = net.client.run("curl", "-s", f"http://{net.router_v4}:15001/small.txt")
        assert told == "hello\n"
    applied = service.events("EXCEPTION_POLICY")
    assert [
        (event["sluicegate.exception.cause"], event["sluicegate.exception.action"])
        for event in applied
    ] == [("no_redirect_info", "open")]


def test_a_loop_is_found_when_the_mark_is_lost(net: Lab, site: Path, tmp_path: Path) -> None:
    """Our own upstream connections captured on purpose: one hop, then refused."""
    with nginx(net.server, site), proxy(net.client, tmp_path) as service:
        ruleset = net.client.ruleset()
        assert "mark" in ruleset
        broken = "\n".join(line for line in ruleset.splitlines() if "meta mark" not in line)
        net.client.run("nft", "-f", "-", input=f"flush ruleset\n{broken}")
        told = net.client.run(
            "curl", "-s", "-m", "10", "-w", "%{http_code}", f"http://{net.server_v4}/small.txt"
        )
        assert told.endswith("502")
    assert [event["sluicegate.reason"] for event in service.events("CLASSIFY_DROP")] == ["loop"]
