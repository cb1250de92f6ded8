"""`sluicegate service`: the systemd unit below a directory of the test's, and Windows' manager."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy import cli
from proxy.errors import StartError
from proxy.service import installation
from proxy.service.installation import SystemdInstaller, WindowsInstaller, host_command
from proxy.service.scm_manager import ServiceManager
from proxy.service.systemd import filled_in, quoted, shipped_unit
from tests.support.fake_scm import RUNNING, FakeManager

UNIT = "etc/systemd/system/sluicegate.service"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")


@pytest.fixture(autouse=True)
def an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "own_command", lambda: ["/opt/sg/bin/sluicegate"])


def service(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["service", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# --- systemd


@linux
def test_install_writes_the_shipped_unit_with_the_paths_of_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "my settings.toml"
    config.write_text("")
    code, out, _ = service(
        capsys, "install", "--root", str(tmp_path), "--config", str(config), "--user", "root"
    )
    unit = (tmp_path / UNIT).read_text()
    assert code == 0
    assert f'\nExecStart=/opt/sg/bin/sluicegate run --config "{config}"\n' in unit
    assert "\nUser=root\nGroup=root\n" in unit
    assert "CapabilityBoundingSet=CAP_NET_ADMIN" in unit
    assert f"write {tmp_path / UNIT}" in out
    assert "systemctl enable --now sluicegate.service" in out


@linux
def test_a_dry_run_tells_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = service(capsys, "install", "--root", str(tmp_path), "--dry-run")
    assert (code, out) == (0, f"would write {tmp_path / UNIT}\n")
    assert list(tmp_path.iterdir()) == []


@linux
def test_installed_again_it_is_replaced_and_uninstalled_it_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", str(tmp_path))
    assert service(capsys, "install", *root, "--user", "root")[0] == 0
    assert service(capsys, "install", *root, "--user", "nobody")[0] == 0
    assert "User=nobody" in (tmp_path / UNIT).read_text()
    code, out, _ = service(capsys, "uninstall", *root)
    assert (code, out) == (0, f"remove {tmp_path / UNIT}\n")
    assert list((tmp_path / UNIT).parent.iterdir()) == []
    assert service(capsys, "uninstall", *root)[:2] == (1, "there is no service sluicegate\n")


@linux
def test_a_unit_of_somebody_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).write_text("[Service]\nExecStart=/bin/true\n")
    for act in ("install", "uninstall"):
        code, _, err = service(capsys, act, "--root", str(tmp_path))
        assert code == 3
        assert "was not written by" in err
    assert (tmp_path / UNIT).read_text() == "[Service]\nExecStart=/bin/true\n"


@linux
def test_status_is_text_or_json_and_its_code_says_whether_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", str(tmp_path))
    code, out, _ = service(capsys, "status", *root, "--json")
    assert code == 1
    assert json.loads(out) == {
        "name": "sluicegate",
        "installed": False,
        "running": False,
        "state": "not installed",
        "place": "",
    }
    service(capsys, "install", *root)
    code, out, _ = service(capsys, "status", *root)
    assert code == 1
    assert str(tmp_path / UNIT) in out


class Systemctl:
    """What systemctl was asked for; `is-active` answers."""

    def __init__(self, state: str = "active") -> None:
        self.state = state
        self.asked: list[str] = []

    def __call__(self, arguments: Sequence[str]) -> str:
        self.asked.append(" ".join(arguments))
        return self.state if arguments[0] == "is-active" else ""


def test_systemd_is_told(tmp_path: Path) -> None:
    systemctl = Systemctl()
    installer = SystemdInstaller("gate", tmp_path, systemctl)
    steps = installer.plan_install(None, "root")
    assert [step.text for step in steps][1:] == ["systemctl daemon-reload"]
    assert systemctl.asked == []  # a plan is not yet done
    for step in steps:
        step.act()
    report = installer.report()
    assert (report.installed, report.running, report.state) == (True, True, "active")
    for step in installer.plan_uninstall():
        step.act()
    assert systemctl.asked == [
        "daemon-reload",
        "is-active gate.service",
        "disable --now gate.service",
        "daemon-reload",
    ]


def test_a_missing_settings_file_is_told_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = service(
        capsys, "install", "--root", str(tmp_path), "--config", str(tmp_path / "none.toml")
    )
    assert (code, list(tmp_path.iterdir())) == (3, [])
    assert "there is no settings file" in err


@pytest.mark.parametrize("name", ["../x", "a b", "", "a/b", "ä"])
def test_names_that_are_not_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = service(capsys, "status", "--name", name)
    assert code == 3
    assert "not a name for a service" in err


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/opt/a-b/c.toml", "/opt/a-b/c.toml"),
        ("/opt/a b", '"/opt/a b"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
    ],
)
def test_words_of_a_unit_are_quoted(word: str, expected: str) -> None:
    assert quoted(word) == expected


def test_what_would_break_out_of_a_unit_is_refused() -> None:
    with pytest.raises(StartError, match="cannot stand"):
        quoted("a\nExecStartPre=/bin/false")
    with pytest.raises(StartError, match="not the name of a user"):
        filled_in(shipped_unit().read_text(), ["x"], "root\nExecStartPre=/bin/false")


def test_a_source_tree_is_not_installed_as_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real question
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    def missing(name: str) -> None:
        raise installation.PackageNotFoundError

    monkeypatch.setattr(installation, "distribution", missing)
    with pytest.raises(StartError, match="install it"):
        installation.own_command()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_what_is_written(tmp_path: Path) -> None:
    config = tmp_path / "50% of $HOME.toml"
    text = filled_in(shipped_unit().read_text(), ["/bin/true", str(config)], "root")
    (tmp_path / "sluicegate.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "sluicegate.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    mine = [line for line in done.stderr.splitlines() if "sluicegate.service" in line]
    assert (done.returncode, mine) == (0, [])


# --- Windows


def windows(**options: bool) -> tuple[FakeManager, WindowsInstaller]:
    manager = FakeManager(**options)
    return manager, WindowsInstaller("sluicegate", ServiceManager(manager))


def test_a_windows_service_is_made_and_removed(tmp_path: Path) -> None:
    manager, installer = windows()
    for step in installer.plan_install(tmp_path / "s.toml", "ignored"):
        step.act()
    made = manager.services["sluicegate"]
    assert made.command == host_command("sluicegate", tmp_path / "s.toml")
    assert (made.display, made.start, made.account) == ("Sluicegate", 2, None)
    assert made.dependencies == ["Tcpip", "BFE"]
    assert made.description
    assert made.failure == [(1, 1000)] * 3  # restarted a second after a failure
    assert installer.report().state == "stopped"
    made.state = RUNNING
    assert installer.report().running
    for step in installer.plan_uninstall():
        step.act()
    assert (manager.services, installer.plan_uninstall()) == ({}, [])
    assert (manager.open_handles, manager.mistakes) == (0, [])


def test_the_hosts_command_line_survives_blanks(tmp_path: Path) -> None:
    config = tmp_path / "my settings.toml"
    command = host_command("sluicegate", config)
    assert f'service host --name sluicegate --config "{config}"' in command
    assert re.search(r"-I \S+windows_entry\.py ", command)


@pytest.mark.parametrize(
    ("options", "twice", "sentence"),
    [({"administrator": False}, False, "run this elevated"), ({}, True, "already")],
)
def test_what_windows_refuses_has_its_sentence(
    options: dict[str, bool], twice: bool, sentence: str
) -> None:
    manager, installer = windows(**options)
    step = installer.plan_install(None, "")[0]
    if twice:
        step.act()
    with pytest.raises(StartError, match=sentence):
        step.act()
    assert manager.open_handles == 0


def test_nothing_installed_is_reported() -> None:
    manager, installer = windows()
    report = installer.report()
    assert (report.installed, report.running, report.state) == (False, False, "not installed")
    assert manager.open_handles == 0
