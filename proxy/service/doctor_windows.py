"""What doctor asks a Windows machine. Never run there: its parsers are tested on Linux."""

from __future__ import annotations

import ctypes
import re

from proxy.errors import RedirectError
from proxy.service.doctor_facts import Rival, Windows
from proxy.service.doctor_rivals import wfp_rivals
from proxy.service.doctor_tools import ask

_SERVICE = "sluicegate"
_STATE = re.compile(r"STATE\s*:\s*\d+\s+(\w+)")
_SIGNING = re.compile(r"^testsigning\s+(\w+)", re.MULTILINE | re.IGNORECASE)


def look() -> tuple[Windows, list[Rival]]:
    """Callouts, the driver's service, and what may be loaded."""
    ok, state = ask("netsh", "wfp", "show", "state", "file=-")
    problem, rivals = "" if ok else f"the state of WFP cannot be read: {state[:200]}", []
    if ok:
        try:
            rivals = wfp_rivals(state)
        except RedirectError as error:
            problem = str(error)
    found, service = ask("sc.exe", "query", "type=", "driver", "state=", "all")
    signing_known, boot = ask("bcdedit", "/enum", "{current}")
    windows = Windows(
        elevated=is_elevated(),
        test_signing=test_signing(boot) if signing_known else None,
        driver=driver_state(service) if found else None,
        ebpf=_has("ebpfapi.dll"),
        wfp_problem=problem,
    )
    return windows, rivals


def is_elevated() -> bool:
    """shell32 IsUserAnAdmin; False where there is no such thing."""
    shell = getattr(getattr(ctypes, "windll", None), "shell32", None)
    return bool(shell is not None and shell.IsUserAnAdmin())


def test_signing(boot: str) -> bool:
    """From `bcdedit /enum {current}`; where nothing is said of it, it is off."""
    found = _SIGNING.search(boot)
    return found is not None and found[1].lower() == "yes"


def driver_state(listed: str) -> str | None:
    """Our driver's state in what `sc query type= driver` lists; None: it is not installed."""
    for entry in listed.split("SERVICE_NAME:")[1:]:
        if entry.split(maxsplit=1)[0].lower() == _SERVICE:
            found = _STATE.search(entry)
            return found[1] if found else "in an unknown state"
    return None


def _has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
