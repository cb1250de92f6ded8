"""`sluicegate doctor`: gather the facts of this machine and have them judged.

Nothing is changed but, for the loop test, a cgroup and a redirect of its own that are gone when
it returns.
"""

from __future__ import annotations

import getpass
import os
import platform
import socket
import sys
import time

import psutil

from proxy.errors import SluicegateError
from proxy.model import Endpoint
from proxy.policy.store import check_directory
from proxy.redirect.registry import PROVIDER_NAMES
from proxy.service import doctor_linux, doctor_windows
from proxy.service.client import fetch_status
from proxy.service.doctor_checks import run_checks
from proxy.service.doctor_facts import Facts, Linux, Policies, Port, Rival, Windows
from proxy.service.doctor_findings import Finding
from proxy.service.doctor_live import run_loops
from proxy.settings import Settings

_BY_CGROUP = ("ebpf", "nft")  #: providers whose scope can be one cgroup
_NEEDED = {"NET_ADMIN"}


def examine(settings: Settings, *, live: bool | None = None) -> list[Finding]:
    """All findings. `live`: send connections around; None: where there are privileges to."""
    return run_checks(gather(settings, live=live))


def gather(settings: Settings, *, live: bool | None = None) -> Facts:
    """Blocks for up to some seconds: it starts tools and connects to the admin endpoint."""
    linux: Linux | None = None
    windows: Windows | None = None
    rivals: list[Rival] = []
    if sys.platform.startswith("linux"):
        linux, rivals = doctor_linux.look(PROVIDER_NAMES)
    elif sys.platform == "win32":
        windows, rivals = doctor_windows.look()
    privileged = _is_privileged(linux, windows)
    ways = [name for name in _BY_CGROUP if name in PROVIDER_NAMES]
    tried = linux is not None and (privileged if live is None else live)
    return Facts(
        system=sys.platform,
        kernel=platform.release(),
        user=_user(),
        privileged=privileged,
        providers=PROVIDER_NAMES,
        ports=_ports(settings),
        rivals=tuple(rivals),
        clock_synchronised=doctor_linux.clock_synchronised() if linux is not None else None,
        monotonic=_is_steady(),
        open_files=_open_files(),
        max_flows=settings.max_flows,
        policies=_policies(settings),
        loops=run_loops(ways) if tried else None,
        linux=linux,
        windows=windows,
    )


def _is_privileged(linux: Linux | None, windows: Windows | None) -> bool:
    if linux is not None:
        return linux.capabilities >= _NEEDED
    return windows is not None and windows.elevated


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"


def _policies(settings: Settings) -> Policies:
    directory = settings.policies_dir()
    report = check_directory(directory)
    return Policies(str(directory), report.rules, tuple(map(str, report.problems)))


def _ports(settings: Settings) -> tuple[Port, ...]:
    running = _running(settings)
    return (
        _port("listen", settings.listen_endpoint(), running),
        _port("admin", settings.admin_endpoint(), running),
    )


def _running(settings: Settings) -> frozenset[str]:
    """The endpoints of a Sluicegate that answers at our admin endpoint."""
    try:
        status = fetch_status(settings.admin_endpoint(), settings.admin_token())
    except SluicegateError:
        return frozenset()
    return frozenset([str(status.get("admin")), *map(str, status.get("listen", ()))])


def _port(role: str, endpoint: Endpoint, running: frozenset[str]) -> Port:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if sys.platform != "win32":  # there it means something else
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((endpoint.host, endpoint.port))
            sock.listen(1)
        except OSError as error:
            holder = _holder(endpoint.port) or str(error.strerror)
            return Port(role, str(endpoint), False, holder, str(endpoint) in running)
    return Port(role, str(endpoint), True)


def _holder(port: int) -> str:
    """The process that listens there, as far as we may see; for people to read only."""
    try:
        for found in psutil.net_connections("tcp"):
            listens = found.status == psutil.CONN_LISTEN and found.laddr
            if listens and port in found.laddr and found.pid:
                return f"{psutil.Process(found.pid).name()} (process {found.pid})"
    except psutil.Error:
        return ""
    return ""


def _is_steady() -> bool:
    readings = [time.monotonic() for _ in range(1000)]
    return time.get_clock_info("monotonic").monotonic and readings == sorted(readings)


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft
