"""The checks of `sluicegate doctor`: each looks at facts and says one thing. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.service.doctor_checks_system import SYSTEM_CHECKS
from proxy.service.doctor_facts import Facts, Linux, Loop, Rival, Windows
from proxy.service.doctor_findings import Check, Finding, fail, ok, warn

_FDS_PER_FLOW, _FDS_RESERVED = 2, 64
_FEW_FILES = 4096
_OUR_PRIORITY = -100  # as nft(8) names it: dstnat


def run_checks(facts: Facts) -> list[Finding]:
    """All that apply to this system, the conclusion last."""
    found = [finding for check in _CHECKS for finding in check(facts)]
    return [*found, conclusion(facts)]


def check_system(facts: Facts) -> Iterator[Finding]:
    known = facts.linux is not None or facts.windows is not None
    if known:
        yield ok("system", f"{facts.system}, kernel {facts.kernel}")
    else:
        advice = "use the providers explicit and static, which work everywhere"
        yield warn("system", f"{facts.system} has no redirector of ours", advice)


def check_ports(facts: Facts) -> Iterator[Finding]:
    for port in facts.ports:
        name = f"{port.role} {port.endpoint}"
        if port.free:
            yield ok("ports", f"{name} is free")
        elif port.sluicegate:
            yield ok("ports", f"{name} is held by a running Sluicegate")
        else:
            holder = f" by {port.holder}" if port.holder else ""
            option = "--listen" if port.role == "listen" else "--admin"
            advice = f"end what holds it, or choose another with {option}"
            yield fail("ports", f"{name} is in use{holder}", advice)


def check_policies(facts: Facts) -> Iterator[Finding]:
    policies = facts.policies
    if policies is None:
        return
    if not policies.problems:
        yield ok("policies", f"{policies.rules} rules in {policies.directory}")
        return
    more = len(policies.problems) - 1
    also = f" (and {more} more)" if more else ""
    advice = f"see all of it: sluicegate check {policies.directory}"
    yield fail("policies", f"not usable: {policies.problems[0]}{also}", advice)


def check_files(facts: Facts) -> Iterator[Finding]:
    limit = facts.open_files
    if limit is None:
        return
    needed = facts.max_flows * _FDS_PER_FLOW + _FDS_RESERVED
    room = (limit - _FDS_RESERVED) // _FDS_PER_FLOW
    if facts.max_flows and needed > limit:
        text = f"max_flows {facts.max_flows} needs {needed} open files, the limit is {limit}"
        yield fail("files", text, f"raise it (LimitNOFILE={needed}, ulimit -n), or lower max_flows")
    elif limit < _FEW_FILES:
        text = f"the limit of open files, {limit}, leaves room for {max(room, 0)} connections"
        yield warn("files", text, "raise it: LimitNOFILE=65536 in the unit, or ulimit -n 65536")
    else:
        yield ok("files", f"{limit} open files: room for {room} connections")


def check_time(facts: Facts) -> Iterator[Finding]:
    if not facts.monotonic:
        advice = "look at the machine's clock source: /sys/devices/system/clocksource"
        yield fail("time", "the monotonic clock goes back: time-outs cannot be kept", advice)
    elif facts.clock_synchronised is False:
        advice = "start a time service (chrony, systemd-timesyncd): records carry this time"
        yield warn("time", "the clock is not synchronised", advice)
    else:
        known = facts.clock_synchronised is not None
        yield ok("time", "the clock is synchronised" if known else "the monotonic clock is steady")


def check_rivals(facts: Facts) -> Iterator[Finding]:
    others = [rival for rival in facts.rivals if not rival.ours]
    if not others:
        yield ok("redirectors", "nothing else that can be seen here redirects connections")
    for rival in others:
        yield warn("redirectors", *_about(rival))


def _about(rival: Rival) -> tuple[str, str]:
    """What it is, in which order it comes, and what to do."""
    text = f"{rival.kind}: {rival.name}: {rival.does}"
    match rival.kind, rival.priority:
        case "nft", int(priority):
            order = "before" if priority < _OUR_PRIORITY else "after"
            if priority == _OUR_PRIORITY:
                order = "as early as"
            text += f", priority {priority}, {order} ours ({_OUR_PRIORITY})"
            advice = (
                "give each its own connections: redirect.exclude, redirect.uid, redirect.cgroup"
            )
        case "bpf", _:
            advice = "it sees connect() before nftables do; programs of one cgroup run in turn"
        case "wfp", _:
            advice = "exempt each from the other: a connection may be redirected once only"
        case _:
            advice = "make sure that it leaves out the ports, users or cgroups that are ours"
    return text, advice


def check_loops(facts: Facts) -> Iterator[Finding]:
    if facts.loops is None:
        advice = "sluicegate doctor --live, as root: it touches a cgroup of its own only"
        yield warn("loop", "no connection was sent through a redirect", advice)
        return
    for loop in facts.loops:
        name = f"{loop.provider}, IPv{loop.family}: {loop.detail}"
        if loop.ok:
            yield ok("loop", name)
        else:
            yield warn(
                "loop", name, f"provider {loop.provider} cannot be used for IPv{loop.family}"
            )


# --- the end


def conclusion(facts: Facts) -> Finding:
    """Can connections be redirected here? A loop that was tried is the proof."""
    usable = usable_providers(facts)
    if usable:
        return ok("redirect", f"connections can be redirected here: {', '.join(usable)}")
    advice = "mend what is said above, or use: sluicegate run --redirect explicit"
    return fail("redirect", "connections cannot be redirected here", advice)


def usable_providers(facts: Facts) -> list[str]:
    """From best to least."""
    if facts.loops is not None:
        return list(dict.fromkeys(p for p in _TRIED if _came_back(p, facts.loops)))
    if not facts.privileged:
        return []
    if facts.windows is not None:
        return ["wfp"] if _windows_ready(facts.windows) else []
    linux = facts.linux
    if linux is None:
        return []
    ready = {
        "ebpf": _ebpf_ready(facts, linux),
        "nft": linux.nft is not None and not linux.nft_problem,
    }
    return [provider for provider in _TRIED if ready[provider]]


_TRIED = ("ebpf", "nft")


def _came_back(provider: str, loops: tuple[Loop, ...]) -> bool:
    """For one family at least: a machine may have one only."""
    return any(loop.ok for loop in loops if loop.provider == provider)


def _ebpf_ready(facts: Facts, linux: Linux) -> bool:
    wrong = linux.cgroup_problem or linux.libbpf_problem or linux.redirector_problem
    return "ebpf" in facts.providers and linux.btf and linux.bpf_problem == "" and not wrong


def _windows_ready(windows: Windows) -> bool:
    return windows.ebpf or (windows.driver or "").upper() == "RUNNING"


_CHECKS: tuple[Check, ...] = (
    *(check_system, *SYSTEM_CHECKS, check_rivals, check_ports),
    *(check_files, check_time, check_policies, check_loops),
)
