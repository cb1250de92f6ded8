"""ip(8) of iproute2 as a process; its complaints become RedirectError."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from proxy.errors import RedirectError

_SECONDS = 10.0
# ip-route(8) on a table without a route: the kernel makes tables when they are needed.
_NO_TABLE = "FIB table does not exist"

_HINTS = (
    ("operation not permitted", "it needs CAP_NET_ADMIN: run as root or grant the capability"),
    ("operation not supported", "the kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES)"),
    ("address family not supported", "this machine has no IPv6: set redirect.ipv6 = false"),
)


def change(*words: str) -> None:
    """One change. Raises RedirectError."""
    done = _run(*words)
    if done.returncode != 0:
        raise _explain(words, done.stderr)


def show(*words: str) -> list[dict[str, Any]]:
    """What there is, with numbers for all names; nothing where there is no such table."""
    done = _run("-N", "-json", *words)
    if _NO_TABLE in done.stderr:
        return []
    if done.returncode != 0:
        raise _explain(words, done.stderr)
    try:
        found = json.loads(done.stdout or "[]")
    except ValueError:
        raise RedirectError("ip prints no JSON: it must be iproute2's, 4.19 or later") from None
    return [entry for entry in found if isinstance(entry, dict) and entry]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    places = os.environ.get("PATH", os.defpath)
    try:
        return subprocess.run(
            ["ip", *words],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env={"PATH": f"{places}:/usr/sbin:/sbin", "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RedirectError(f"ip did not answer within {_SECONDS:g} s") from None
    except FileNotFoundError:
        raise RedirectError("ip is not installed: apt install iproute2 (or dnf, apk)") from None
    except OSError as error:
        raise RedirectError(f"ip cannot be started: {error.strerror or error}") from error


def _explain(words: tuple[str, ...], stderr: str) -> RedirectError:
    said = stderr.strip().splitlines()
    known = stderr.lower()
    hint = next((hint for sign, hint in _HINTS if sign in known), "")
    text = f"ip {' '.join(words)}: {said[0][:200] if said else 'failed'}"
    return RedirectError(text + (f"; {hint}" if hint else ""))
