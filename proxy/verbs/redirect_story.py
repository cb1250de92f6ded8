"""What `sluicegate redirect status` tells of one redirect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from proxy.errors import RedirectError
from proxy.redirect.external import LastingProvider
from proxy.redirect.options import OnCrash
from proxy.redirect.provider import Health
from proxy.redirect.standing import Record, State, may_look

_Make = Callable[[Record, OnCrash], LastingProvider]
#: Settings that say whose connections are captured, in the order of the sentence.
_SCOPE = ("ports", "uid", "cgroup", "include", "exclude", "prerouting", "exempt_uid")


def story(record: Record, make: _Make) -> dict[str, Any]:
    """As JSON. `whole`: True, False, or None when this user must not look."""
    health = _health(record, make)
    return {
        "listen": record.settings["listen"],
        "provider": record.provider,
        "state": record.state.value,
        "whole": health.ok if may_look() else None,
        "scope": _scope(record),
        "made": f"{_moment(record.made_at)} by {record.made_by}",
        "detail": health.detail.replace("\n", ", "),
        "proxy": _proxy(record.port),
        "trial": _trial(record),
    }


def _health(record: Record, make: _Make) -> Health:
    if not may_look():
        return Health(False, "only root (CAP_NET_ADMIN) may look at it")
    if record.state is State.STARTING:
        return Health(False, "installing it was interrupted: `up` again, or `down`")
    if record.state is State.TRIAL and record.watching() is None:
        return Health(False, "its watcher has ended, and the redirect with it: `down` tidies up")
    if record.state is State.TRIAL and not record.snapshot:
        return Health(True, f"process {record.watcher} holds it and watches over it")
    provider = make(record, OnCrash.CLOSED)
    try:
        provider.adopt()
        health = provider.health()
        if health.ok and provider.snapshot() != record.snapshot:
            return Health(False, f"{health.detail}: somebody has changed it since it was made")
    except RedirectError as error:
        return Health(False, str(error))
    return health


def _scope(record: Record) -> str:
    redirect = record.settings["redirect"]
    said = []
    for key in _SCOPE:
        value = redirect.get(key)
        if value not in (None, [], ""):
            shown = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            said.append(f"{key} {shown}")
    return "; ".join(said)


def _proxy(port: int) -> str:
    """Is there anybody who takes what is captured?"""
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return ""
    listening = [one for one in sockets if one.status == psutil.CONN_LISTEN]
    found = [one for one in listening if tuple(one.laddr)[1:] == (port,)]
    if not found:
        return "nobody listens there: captured connections are refused"
    process = next((one.pid for one in found if one.pid), None)
    return f"process {process} listens" if process else "somebody listens"


def _trial(record: Record) -> str:
    if record.state is not State.TRIAL:
        return ""
    left = max(0.0, record.until - time.time())
    return f"{left:.0f} s left for `sluicegate redirect confirm`"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
