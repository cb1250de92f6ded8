"""A real Prometheus scrapes the endpoint with the configuration that we ship."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from proxy.account.metrics import Counters
from proxy.model import Endpoint
from proxy.service.admin import AdminServer

FOLDER = Path(__file__).parents[3] / "deploy" / "prometheus"

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed"),
]


@pytest.fixture
def configuration(tmp_path: Path) -> tuple[Path, int]:
    """The shipped files, but for the port and for a test's patience."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    text = (FOLDER / "prometheus.yml").read_text()
    text = text.replace("scrape_interval: 15s", "scrape_interval: 1s")
    (tmp_path / "prometheus.yml").write_text(text.replace("9911", str(port)))
    return tmp_path, port


async def test_prometheus_takes_every_metric(configuration: tuple[Path, int]) -> None:
    folder, port = configuration
    counters = Counters()
    counters.flows_open = 42

    async def reload() -> dict[str, Any]:
        return {"ok": True}

    server = AdminServer(
        Endpoint("127.0.0.1", port),
        metrics=counters,
        status=dict,
        reload=reload,
        ready=lambda: True,
    )
    await server.start()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        web = sock.getsockname()[1]
    prometheus = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{web}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            result = await _query(web, "sluicegate_flows_open")
        assert [sample["value"][1] for sample in result] == ["42"]
        result = await _query(web, 'up{job="sluicegate"}')
        assert [sample["value"][1] for sample in result] == ["1"]
    finally:
        prometheus.terminate()
        await prometheus.wait()
        await server.stop()


async def _query(port: int, expression: str) -> list[dict[str, Any]]:
    """Ask until there is an answer: Prometheus starts and scrapes in its own time."""
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            answer = await asyncio.to_thread(lambda: opener.open(url, timeout=5).read())
        except OSError:
            answer = b'{"data": {"result": []}}'  # ECONNREFUSED, 503: not up yet
        result: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        if result:
            return result
        await asyncio.sleep(0.1)
