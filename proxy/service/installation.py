"""Sluicegate as a service of this machine: a plan of steps, told first and then carried out.

One face for both systems, `Installer`. Linux: a systemd unit. Windows: the service control
manager. Steps are values, so that --dry-run tells exactly what would be done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Protocol

from proxy.errors import StartError
from proxy.service.scm import State
from proxy.service.scm_manager import Registration, ServiceManager
from proxy.service.systemd import MARK, filled_in, shipped_unit

_SECONDS = 30.0
_UNITS = Path("etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to be done: in words for people, and how."""

    text: str
    act: Callable[[], None] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What is there. `state`: the system's own word for it."""

    name: str
    installed: bool
    running: bool
    state: str
    place: str = ""  #: the unit's file


class Installer(Protocol):
    """Raises StartError, each with what to do about it."""

    def plan_install(self, config: Path | None, user: str) -> list[Step]: ...

    def plan_uninstall(self) -> list[Step]:
        """Empty: it is not installed."""

    def report(self) -> Report: ...

    def after_install(self, user: str) -> str:
        """What to do next, a sentence."""


def make_installer(name: str, root: Path) -> Installer:
    """This system's. `root`: where Linux's files are, / unless this is a test or an image."""
    if sys.platform == "win32":
        return WindowsInstaller(name, ServiceManager())
    if sys.platform.startswith("linux"):
        return SystemdInstaller(name, root)
    raise StartError("services are made for systemd and for Windows; here use `sluicegate run`")


# --- Linux


Run = Callable[[Sequence[str]], str]


def run_systemctl(arguments: Sequence[str]) -> str:
    """Its first line, whatever its exit status: `is-active` tells by both. Raises StartError."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"systemctl {' '.join(arguments)}: {error}") from error
    if done.returncode and not arguments[0].startswith("is-"):
        raise StartError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip().partition("\n")[0]


class SystemdInstaller:
    """One unit file, which is ours by its first line; another's is never touched."""

    def __init__(self, name: str, root: Path = Path("/"), run: Run | None = None) -> None:
        self._unit = f"{name}.service"
        self._name = name
        self._file = root / _UNITS / self._unit
        self._run = run if run is not None else _systemctl_of(root)

    def plan_install(self, config: Path | None, user: str) -> list[Step]:
        self._check_ours()
        command = [*own_command(), "run"]
        if config is not None:
            command += ["--config", str(config.resolve())]
        text = filled_in(shipped_unit().read_text(encoding="utf-8"), command, user)
        steps = [Step(f"write {self._file}", lambda: self._write(text))]
        return steps + self._systemctl("daemon-reload")

    def plan_uninstall(self) -> list[Step]:
        if not self._file.exists():
            return []
        self._check_ours()
        steps = self._systemctl("disable", "--now", self._unit)
        steps.append(Step(f"remove {self._file}", self._remove))
        return steps + self._systemctl("daemon-reload")

    def report(self) -> Report:
        installed = self._file.is_file()
        state = self._run(["is-active", self._unit]) if self._run and installed else ""
        if installed and not state:
            state = "unknown: systemd does not run here"
        place = str(self._file) if installed else ""
        return Report(self._name, installed, state == "active", state or "not installed", place)

    def after_install(self, user: str) -> str:
        start = f"start it, now and with the system: systemctl enable --now {self._unit}"
        if _has_user(user):
            return start
        make = f"useradd --system --home-dir / --shell /usr/sbin/nologin {user}"
        return f"there is no user {user} yet: {make}; then {start}"

    def _systemctl(self, *arguments: str) -> list[Step]:
        """Nothing where systemd does not run: a container, an image that is being built."""
        run = self._run
        if run is None:
            return []
        return [Step(f"systemctl {' '.join(arguments)}", lambda: _call(run, arguments))]

    def _check_ours(self) -> None:
        if self._file.exists() and not self._file.read_text("utf-8", "replace").startswith(MARK):
            raise StartError(
                f"{self._file} was not written by `sluicegate service install`: remove it "
                f"yourself, or choose another --name"
            )

    def _write(self, text: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft = self._file.with_suffix(".new")
            draft.write_text(text, encoding="utf-8")
            os.replace(draft, self._file)  # whole or not at all
        except OSError as error:
            raise StartError(f"cannot write {self._file}: {error.strerror}; run as root") from error

    def _remove(self) -> None:
        try:
            self._file.unlink()
        except OSError as error:
            raise StartError(f"cannot remove {self._file}: {error.strerror}") from error


def _call(run: Run, arguments: Sequence[str]) -> None:
    run(arguments)


def _systemctl_of(root: Path) -> Run | None:
    """systemctl, if this is the running system and systemd is its init (sd_booted(3))."""
    booted = root == Path("/") and Path("/run/systemd/system").is_dir()
    return run_systemctl if booted and shutil.which("systemctl") else None


def _has_user(name: str) -> bool:
    import pwd  # on Unix only

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def own_command() -> list[str]:
    """How this installation is started: its script, or its interpreter with the module.

    Raises StartError in a source tree: a service has another working directory.
    """
    script = Path(sys.executable).with_name("sluicegate")
    if script.is_file():
        return [str(script)]
    try:
        distribution("sluicegate")
    except PackageNotFoundError:
        raise StartError(
            "Sluicegate runs from its source tree here, where a service would not find it: "
            "install it (python3 -m pip install .) and use that installation's `sluicegate`"
        ) from None
    return [sys.executable, "-m", "proxy"]


# --- Windows


class WindowsInstaller:
    """A service of its own process, started with the system, as LocalSystem."""

    def __init__(self, name: str, manager: ServiceManager) -> None:
        self._name = name
        self._manager = manager

    def plan_install(self, config: Path | None, user: str) -> list[Step]:
        """`user` is for systemd: redirect records are set by administrators only."""
        command = host_command(self._name, config)
        wanted = Registration(
            self._name,
            "Sluicegate",
            "Inline policy on TCP streams of redirected connections",
            command,
            ("Tcpip", "BFE"),  # the filter engine's service
        )
        text = f"make service {self._name}: {command}"
        return [Step(text, lambda: self._manager.create(wanted))]

    def plan_uninstall(self) -> list[Step]:
        if self._manager.state(self._name) is None:
            return []
        return [Step(f"stop and remove service {self._name}", self._delete)]

    def report(self) -> Report:
        state = self._manager.state(self._name)
        word = "not installed" if state is None else state.name.lower()
        return Report(self._name, state is not None, state is State.RUNNING, word)

    def after_install(self, user: str) -> str:
        return f"it starts with the system; now: sc start {self._name}"

    def _delete(self) -> None:
        self._manager.delete(self._name)


def host_command(name: str, config: Path | None) -> str:
    """What the manager starts; see windows_entry.py for why it is not the script."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    entry = Path(__file__).parents[1] / "windows_entry.py"
    words = [base, "-I", str(entry), sysconfig.get_path("purelib"), "service", "host"]
    words += ["--name", name]
    if config is not None:
        words += ["--config", str(config.resolve())]
    # Microsoft C's rules, which CreateServiceW's lpBinaryPathName follows.
    return subprocess.list2cmdline(words)
