"""`sluicegate exec`: one command with its connections redirected, and nothing left afterwards.

The ways in are tried from the best to the least; the command starts when one is in force. It
is in a cgroup of its own, which is captured; we are outside of it, so that our own connections
go out. on_crash is `open`: when we are killed, the redirect goes with us.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proxy.errors import RedirectError, StartError
from proxy.redirect.registry import PROVIDER_NAMES
from proxy.service.app import Observe
from proxy.service.exec_cgroup import ScopedCgroup
from proxy.service.exec_command import CANNOT_INVOKE, NOT_FOUND, Command, User
from proxy.service.exec_environment import proxy_environment
from proxy.service.exec_proxy import ProxyThread
from proxy.service.listener import can_listen
from proxy.settings import Settings

VIA = ("ebpf", "nft", "env")  #: from the best to the least
FAILED = 125  #: we ourselves could not do it; as of env(1), nice(1), timeout(1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and how. `settings` makes settings of the flags of one way in."""

    words: Sequence[str]
    ways: Sequence[str]
    settings: Callable[[Mapping[str, object]], Settings]
    user: User | None = None
    linger: float = 2.0  #: seconds for children that outlive the command
    observe: Observe | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    via: str
    instead_of: tuple[str, ...] = ()  #: better ways in, and why they were not taken


@dataclass(slots=True)
class _Way:
    """A way in that is in force."""

    name: str
    proxy: ProxyThread
    cgroup: ScopedCgroup | None
    environment: dict[str, str]
    instead_of: tuple[str, ...] = ()


def ways_of(via: str) -> tuple[str, ...]:
    """What `--via` stands for, as far as this version has it."""
    wanted = VIA if via == "auto" else (via,)
    return tuple(way for way in wanted if way == "env" or way in PROVIDER_NAMES)


def run_command(plan: Plan) -> Outcome:
    """Everything from the fork to the last removal. Raises SluicegateError before the start."""
    command = Command(plan.words, plan.user)  # first of all: no threads yet
    try:
        way = _open_way(plan)
    except BaseException:
        command.abandon()
        raise
    try:
        code = _run(command, way, plan.linger)
    finally:
        _close_way(way)
    return Outcome(code, way.name, way.instead_of)


def _run(command: Command, way: _Way, linger: float) -> int:
    if way.cgroup is not None:
        way.cgroup.add(command.pid)
    if problem := command.start(way.environment):
        say(problem)
    code = command.wait()
    if problem and code not in (CANNOT_INVOKE, NOT_FOUND):
        return CANNOT_INVOKE
    if way.cgroup is not None:
        way.cgroup.wait_empty(linger, command.interrupted)
    return code


# --- ways in


def _open_way(plan: Plan) -> _Way:
    """The first that works; what is wrong with those before it is told with the last resort."""
    reasons = []
    for name in plan.ways:
        try:
            way = _open_env(plan) if name == "env" else _open_redirect(plan, name)
        except RedirectError as error:
            reasons.append(f"{name}: {error}")
            continue
        if name == "env":
            _warn_of_env(reasons)
        way.instead_of = tuple(reasons)
        return way
    raise StartError("connections cannot be redirected here: " + "; ".join(reasons))


def _open_redirect(plan: Plan, name: str) -> _Way:
    cgroup, scope = _scope(plan.user, name)
    flags = {"redirect.provider": name, "redirect.on_crash": "open", **scope}
    if not can_listen("::1"):  # redirected IPv6 would have nowhere to arrive
        flags["redirect.ipv6"] = False
        say("IPv6 is not looked at: this machine has no ::1 for it to arrive at")
    try:
        proxy = ProxyThread(plan.settings(flags), plan.observe)
    except BaseException:
        if cgroup is not None:
            cgroup.remove()
        raise
    return _Way(name, proxy, cgroup, {})


def _scope(user: User | None, name: str) -> tuple[ScopedCgroup | None, dict[str, object]]:
    """The command's own cgroup; without one, nftables can tell its user, if that is not ours.

    Raises RedirectError.
    """
    try:
        cgroup = ScopedCgroup()
    except RedirectError as error:
        if name != "nft" or user is None or user.uid == os.geteuid():
            raise
        say(f"{error}; so every connection of user {user.name} is redirected, until the end")
        return None, {"redirect.uid": user.uid}
    return cgroup, {"redirect.cgroup": cgroup.path}


def _open_env(plan: Plan) -> _Way:
    settings = plan.settings({"redirect.provider": "explicit"})
    proxy = ProxyThread(settings, plan.observe)
    loopback = settings.redirect.include_loopback
    return _Way("env", proxy, None, proxy_environment(proxy.listening, include_loopback=loopback))


def _warn_of_env(reasons: Sequence[str]) -> None:
    why = f" ({'; '.join(reasons)})" if reasons else ""
    say(
        f"connections are not redirected{why}; the command is only told of the proxy by "
        f"http_proxy, ALL_PROXY and the like: programs that do not heed them go past it"
    )


def _close_way(way: _Way) -> None:
    """The redirect goes first; then who is left in the cgroup goes back to where we are."""
    try:
        way.proxy.stop()
    finally:
        if way.cgroup is not None and (left := way.cgroup.remove()):
            say(
                f"{left} of the command's processes go on; their new connections are not "
                f"looked at any more (--linger SECONDS waits for them)"
            )


def say(text: str) -> None:
    print(f"sluicegate exec: {text}", file=sys.stderr, flush=True)
