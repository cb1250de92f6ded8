"""The service host of Windows against a fake service control manager."""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import SettingsError, StartError
from proxy.service import windows_service
from proxy.service.scm import ServiceStatus, ServiceTableEntry, WindowsDispatcher
from proxy.service.scm_manager import FailureActions
from proxy.service.windows_service import WindowsService
from proxy.settings import Settings, load_settings
from tests.support.fake_scm import (
    RUNNING,
    START_PENDING,
    STOP_PENDING,
    STOPPED,
    FakeManager,
    run_in_thread,
)

STOP, PAUSE, INTERROGATE, SHUTDOWN, PARAMCHANGE = 1, 2, 4, 5, 6
POLICY = (
    "version: 1\npolicy: p\ndescription: One rule.\nrules:\n  - id: r\n    layer: http_request\n"
)
POLICY += "    when: {path: /x}\n    then: {block: {status: 403}}\n"


class Hosted:
    """A stand-in for the service: what was asked of it, in order."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.stopping = asyncio.Event()
        self.asked: list[str] = []
        self.answer: dict[str, Any] = {"ok": True}
        self.drained = asyncio.Event()
        self.drained.set()

    async def start(self) -> None:
        self.asked.append("start")

    async def drain(self) -> None:
        self.asked.append("drain")
        await self.drained.wait()

    async def close(self) -> None:
        self.asked.append("close")

    async def reload(self) -> dict[str, Any]:
        self.asked.append("reload")
        return self.answer


class Machine:
    """A manager that has started the service in its thread."""

    def __init__(
        self,
        make: Callable[..., Any] = Hosted,
        load: Callable[[], Settings] = Settings,
        **options: bool,
    ) -> None:
        self.manager = FakeManager(**options)
        self.hosted: Any = None

        def made(settings: Settings, loop: asyncio.AbstractEventLoop) -> Any:
            self.hosted = make(settings, loop)
            return self.hosted

        dispatcher = WindowsDispatcher("sluicegate", self.manager)
        self.thread = run_in_thread(WindowsService(dispatcher, load, made).run)

    def ended(self) -> list[tuple[int, ...]]:
        """Every report; each one was allowed."""
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.manager.mistakes == []
        return self.manager.reports


def with_drain(seconds: str) -> Settings:
    return load_settings(
        environment={}, flags={"redirect.provider": "explicit", "times.drain_seconds": seconds}
    )


def test_the_structures_have_the_sizes_of_64_bit_windows() -> None:
    sizes = [ctypes.sizeof(kind) for kind in (ServiceStatus, ServiceTableEntry, FailureActions)]
    assert sizes == [28, 16, 40]


def test_a_life_from_start_to_stop() -> None:
    machine = Machine()
    machine.manager.wait_for(RUNNING)
    assert machine.manager.control(STOP) == 0
    reports = machine.ended()
    states = [report[1] for report in reports]
    assert states[0] == START_PENDING
    assert list(dict.fromkeys(states)) == [
        START_PENDING,
        RUNNING,
        STOP_PENDING,
        STOPPED,
    ]
    running = next(report for report in reports if report[1] == RUNNING)
    assert (running[0], running[2]) == (0x10, 1 | 4 | 8)  # own process; stop, shutdown, paramchange
    assert reports[-1][3:5] == (0, 0)
    assert machine.hosted.asked == ["start", "drain", "close"]


def test_the_stop_hint_covers_the_drain() -> None:
    machine = Machine(load=lambda: with_drain("45s"))
    machine.manager.wait_for(RUNNING)
    machine.manager.control(STOP)
    hints = {report[6] for report in machine.ended() if report[1] == STOP_PENDING}
    assert hints == {55_000}


def test_a_stop_is_reported_before_the_handler_returns() -> None:
    """The manager gives a handler 30 seconds; this one waits for nothing."""
    machine = Machine()
    machine.manager.wait_for(RUNNING)
    machine.hosted.drained.clear()
    machine.manager.control(STOP)
    assert machine.manager.states()[-1] == STOP_PENDING
    machine.hosted.loop.call_soon_threadsafe(machine.hosted.drained.set)
    assert machine.ended()[-1][1] == STOPPED


def test_a_shutdown_does_not_wait_for_a_long_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_service, "_SHUTDOWN_DRAIN", 0.05)
    machine = Machine(load=lambda: with_drain("10min"))
    machine.manager.wait_for(RUNNING)
    machine.hosted.drained.clear()  # this drain would never end
    machine.manager.control(SHUTDOWN)
    assert machine.ended()[-1][1] == STOPPED
    assert machine.hosted.asked == ["start", "drain", "close"]


def test_paramchange_reloads_and_refusals_are_in_the_event_log() -> None:
    machine = Machine()
    machine.manager.wait_for(RUNNING)
    machine.hosted.answer = {"ok": False, "problems": ["a.yaml:3:5: no such layer"]}
    assert machine.manager.control(PARAMCHANGE) == 0
    machine.manager.control(STOP)
    machine.ended()
    assert machine.hosted.asked == ["start", "reload", "drain", "close"]
    assert machine.manager.events == [
        "policies refused, the last good ones stay: a.yaml:3:5: no such layer"
    ]


def test_interrogate_repeats_the_state_and_unknown_controls_are_refused() -> None:
    machine = Machine()
    machine.manager.wait_for(RUNNING)
    before = len(machine.manager.reports)
    assert machine.manager.control(INTERROGATE) == 0
    assert machine.manager.states()[before:] == [RUNNING]
    assert machine.manager.control(200) == 120  # ERROR_CALL_NOT_IMPLEMENTED
    machine.manager.control(STOP)
    machine.ended()


def test_pending_work_reports_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_service, "_START_HINT", 0.02)
    machine: Machine

    class Slow(Hosted):
        async def start(self) -> None:
            while machine.manager.states().count(START_PENDING) < 4:
                await asyncio.sleep(0)

    made = threading.Event()

    def make(*arguments: Any) -> Hosted:
        made.wait(20)
        return Slow(*arguments)

    machine = Machine(make)
    made.set()
    machine.manager.wait_for(RUNNING)
    machine.manager.control(STOP)
    pending = [report[5] for report in machine.ended() if report[1] == START_PENDING]
    assert pending == list(range(1, len(pending) + 1))
    assert len(pending) >= 4


def refuse_settings() -> Settings:
    raise SettingsError([])


@pytest.mark.parametrize(("error", "code"), [("start", 3), ("settings", 2)])
def test_what_keeps_it_from_starting_is_told(error: str, code: int) -> None:
    class Refused(Hosted):
        async def start(self) -> None:
            raise StartError("port 15001 is taken")

    machine = Machine(Refused) if error == "start" else Machine(load=refuse_settings)
    last = machine.ended()[-1]
    assert (last[1], last[3], last[4]) == (STOPPED, 1066, code)
    assert RUNNING not in machine.manager.states()
    assert machine.manager.events[0].startswith("cannot start:")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_unexpected_end_is_still_reported() -> None:
    """Without STOPPED the manager would wait for ever."""

    class Broken(Hosted):
        async def start(self) -> None:
            raise ZeroDivisionError

    last = Machine(Broken).ended()[-1]
    assert (last[1], last[3]) == (STOPPED, 1064)


def test_by_hand_it_says_what_to_use_instead() -> None:
    manager = FakeManager(by_manager=False)
    dispatcher = WindowsDispatcher("sluicegate", manager)
    with pytest.raises(StartError, match="sluicegate run"):
        WindowsService(dispatcher, Settings, Hosted).run()


@pytest.mark.skipif(hasattr(ctypes, "WinDLL"), reason="this is Windows")
def test_away_from_windows_it_says_so() -> None:
    with pytest.raises(StartError, match="not Windows"):
        WindowsDispatcher("sluicegate")


# --- the whole proxy, hosted


def test_the_real_service_is_hosted(tmp_path: Path) -> None:
    """Starts, answers, reloads a changed policy, stops; the manager sees every step."""
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "p.yaml").write_text(POLICY)
    events = tmp_path / "events.jsonl"
    flags = {
        "listen": "127.0.0.1:0",
        "admin.listen": "127.0.0.1:0",
        "redirect.provider": "explicit",
        "policies": str(policies),
        "events.path": str(events),
    }
    from proxy.service.app import Service

    machine = Machine(Service, lambda: load_settings(environment={}, flags=flags))
    machine.manager.wait_for(RUNNING)
    with socket.create_server(("127.0.0.1", 0)) as origin:
        assert status(machine, origin.getsockname()[1], "/x") == b"403"
        (policies / "p.yaml").write_text(POLICY.replace("403", "451"))
        machine.manager.control(PARAMCHANGE)
        while status(machine, origin.getsockname()[1], "/x") != b"451":
            pass  # each turn is a connection of its own; the test's time-out ends it
    machine.manager.control(STOP)
    assert machine.ended()[-1][1:5] == (STOPPED, 0, 0, 0)
    told = [json.loads(line)["event.action"] for line in events.read_text().splitlines()]
    assert told.count("SERVICE_START") == 1
    assert told[-1] == "SERVICE_STOP"


def status(machine: Machine, origin: int, path: str) -> bytes:
    """What the hosted proxy answers to a request for that path of a local server."""
    listening = machine.hosted.listening[0]
    with socket.create_connection((listening.host, listening.port), 5) as client:
        target = f"http://127.0.0.1:{origin}{path}"
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n".encode())
        return client.recv(12)[9:]


def test_the_entry_finds_packages_and_runs_the_command(tmp_path: Path) -> None:
    """As the manager starts it: the base interpreter, isolated, told where the packages are."""
    root = Path(__file__).parents[3]
    packages = f"{sysconfig.get_path('purelib')}\n{root}\n"
    (tmp_path / "these.pth").write_text(packages)
    base = getattr(sys, "_base_executable", sys.executable)
    entry = root / "proxy/windows_entry.py"
    done = subprocess.run(
        [base, "-I", str(entry), str(tmp_path), "version", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "sluicegate" in json.loads(done.stdout)
