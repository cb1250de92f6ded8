"""Every check of doctor on a healthy machine, and on one with that one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.service.doctor_checks import run_checks, usable_providers
from proxy.service.doctor_checks_system import kernel_version
from proxy.service.doctor_facts import Facts, Linux, Loop, Policies, Port, Rival, Windows
from proxy.service.doctor_findings import Finding, Level

LINUX = Linux(
    capabilities=frozenset({"NET_ADMIN", "BPF"}),
    cgroup="/sys/fs/cgroup/user.slice",
    cgroup_writable=True,
    bpf_problem="",
    btf=True,
    jit=1,
    lockdown="none",
    redirector="/opt/redirector.bpf.o",
    nft="nftables v1.0.6",
    conntrack=(10, 1000),
)
LOOPS = tuple(
    Loop(provider, family, True, "came back") for provider in ("ebpf", "nft") for family in (4, 6)
)
HEALTHY = Facts(
    system="linux",
    kernel="6.18.44-generic",
    user="root",
    privileged=True,
    providers=("explicit", "static", "nft", "ebpf"),
    ports=(
        Port("listen", "127.0.0.1:15001", True),
        Port("admin", "127.0.0.1:15021", False, "sluicegate", sluicegate=True),
    ),
    clock_synchronised=True,
    open_files=65536,
    policies=Policies("/etc/sluicegate", 12),
    loops=LOOPS,
    linux=LINUX,
)
WINDOWS = replace(
    HEALTHY,
    system="win32",
    kernel="10",
    linux=None,
    loops=None,
    windows=Windows(elevated=True, test_signing=True, driver="RUNNING"),
)


def on(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    return replace(facts, **changes)


def linux(**changes: Any) -> Facts:
    return on(linux=replace(LINUX, **changes))


def windows(**changes: Any) -> Facts:
    assert WINDOWS.windows is not None
    return on(WINDOWS, windows=replace(WINDOWS.windows, **changes))


def bad(facts: Facts) -> list[Finding]:
    return [finding for finding in run_checks(facts) if finding.level is not Level.OK]


def test_a_healthy_machine_has_nothing_to_do() -> None:
    found = run_checks(HEALTHY)
    assert bad(HEALTHY) == []
    assert all(not finding.advice for finding in found)
    assert found[-1].text == "connections can be redirected here: ebpf, nft"


def test_a_healthy_windows_has_one_thing_that_was_not_tried() -> None:
    assert [finding.check for finding in bad(WINDOWS)] == ["loop"]
    assert usable_providers(WINDOWS) == ["wfp"]


_FULL = "sluicegate_15001"


@pytest.mark.parametrize(
    ("facts", "check", "level", "told"),
    [
        (on(linux=None), "system", "warn", "no redirector of ours"),
        (on(privileged=False, user="ada"), "privileges", "warn", "running as ada"),
        (on(kernel="5.4.0-42"), "kernel", "warn", "older than 5.15, which ebpf needs"),
        (on(kernel="5.14.1"), "kernel", "warn", "older than 5.15, which ebpf needs"),
        (linux(cgroup_problem="cgroup v2 is not mounted"), "cgroup", "warn", "not mounted"),
        (linux(cgroup_writable=False), "cgroup", "warn", "no cgroup can be made"),
        (linux(bpf_problem="Operation not permitted"), "bpf", "warn", "not permitted"),
        (linux(btf=False), "bpf", "warn", "btf/vmlinux is missing"),
        (linux(jit=0), "bpf", "warn", "compiler is off"),
        (linux(lockdown="confidentiality"), "bpf", "warn", "lockdown"),
        (linux(libbpf_problem="no libbpf.so.1"), "redirector", "warn", "no libbpf.so.1"),
        (linux(redirector_problem="no clang"), "redirector", "warn", "no clang"),
        (linux(nft=None), "nft", "warn", "not installed"),
        (linux(nft_problem="the ruleset cannot be read"), "nft", "warn", "cannot be read"),
        (linux(stale_tables=(_FULL,)), "nft", "fail", "nobody listens"),
        (linux(conntrack=(900, 1000)), "conntrack", "warn", "900 of 1000"),
        (linux(ipv6_loopback=False), "ipv6", "warn", "::1"),
        (on(clock_synchronised=False), "time", "warn", "not synchronised"),
        (on(monotonic=False), "time", "fail", "goes back"),
        (on(open_files=256), "files", "warn", "room for 96 connections"),
        (on(open_files=8192, max_flows=9000), "files", "fail", "needs 18064 open files"),
        (
            on(policies=Policies("/p", 0, ("a.yaml:1:1: x", "y"))),
            "policies",
            "fail",
            "(and 1 more)",
        ),
        (on(loops=None), "loop", "warn", "no connection was sent"),
        (
            on(loops=(*LOOPS[:3], replace(LOOPS[3], ok=False, detail="lost"))),
            "loop",
            "warn",
            "lost",
        ),
        (windows(driver=None), "driver", "warn", "neither a driver nor eBPF"),
        (windows(driver="STOPPED"), "driver", "warn", "the driver is stopped"),
        (windows(test_signing=False), "signing", "warn", "not loaded"),
        (windows(wfp_problem="the state of WFP cannot be read"), "wfp", "warn", "cannot be read"),
    ],
)
def test_one_thing_wrong(facts: Facts, check: str, level: str, told: str) -> None:
    found = [finding for finding in bad(facts) if finding.check == check]
    assert {finding.level for finding in found} == {level}
    assert told in found[0].text
    assert found[0].advice


def test_a_port_in_use_says_by_whom_and_what_to_do() -> None:
    port = Port("listen", "127.0.0.1:15001", False, "nginx (process 7)")
    found = [finding for finding in bad(on(ports=(port,))) if finding.check == "ports"]
    assert [finding.level for finding in found] == [Level.FAIL]
    assert "in use by nginx (process 7)" in found[0].text
    assert "--listen" in found[0].advice


@pytest.mark.parametrize(
    ("rival", "told"),
    [
        (Rival("nft", "ip istio output", "redirect", -150), "priority -150, before ours (-100)"),
        (Rival("nft", "ip nat OUTPUT", "dnat", -100), "as early as ours"),
        (Rival("nft", "ip late output", "redirect", 0), "priority 0, after ours"),
        (Rival("iptables-legacy", "ip OUTPUT", "redirect"), "iptables-legacy: ip OUTPUT: redirect"),
        (Rival("bpf", "cil_sock4_connect at /", "may rewrite connect() for IPv4"), "cil_sock4"),
        (Rival("wfp", "Other at ALE_CONNECT_REDIRECT_V4", "redirects"), "Other at"),
    ],
)
def test_others_that_redirect_are_named_with_their_order(rival: Rival, told: str) -> None:
    found = [finding for finding in bad(on(rivals=(rival,))) if finding.check == "redirectors"]
    assert [finding.level for finding in found] == [Level.WARN]
    assert told in found[0].text
    assert found[0].advice
    assert bad(on(rivals=(replace(rival, ours=True),))) == []


@pytest.mark.parametrize(
    ("facts", "usable"),
    [
        (HEALTHY, ["ebpf", "nft"]),
        # A loop that was tried is the proof, whatever else is said.
        (on(loops=LOOPS[2:]), ["nft"]),
        (on(loops=(LOOPS[0],)), ["ebpf"]),
        (on(loops=tuple(replace(loop, ok=False) for loop in LOOPS)), []),
        (on(loops=None), ["ebpf", "nft"]),
        (on(linux(bpf_problem="no"), loops=None), ["nft"]),
        (on(linux(btf=False), loops=None), ["nft"]),
        (on(linux(nft=None, libbpf_problem="no"), loops=None), []),
        (on(loops=None, providers=("nft",)), ["nft"]),
        (on(loops=None, privileged=False), []),
        (on(loops=None, linux=None), []),
        (windows(driver=None), []),
        (windows(driver=None, ebpf=True), ["wfp"]),
    ],
)
def test_what_can_be_used(facts: Facts, usable: list[str]) -> None:
    assert usable_providers(facts) == usable
    last = run_checks(facts)[-1]
    assert last.check == "redirect"
    assert last.level is (Level.OK if usable else Level.FAIL)


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.18.44-fc", (6, 18)),
        ("5.4", (5, 4)),
        ("4.19.0-rc1", (4, 19)),
        ("odd", None),
        ("6.x", None),
    ],
)
def test_kernel_versions(release: str, version: tuple[int, int] | None) -> None:
    assert kernel_version(release) == version
