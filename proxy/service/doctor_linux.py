"""What doctor asks a Linux machine: /proc, /sys, and the tools of nftables, iptables and BPF."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
from collections.abc import Sequence
from typing import Any

from proxy.errors import RedirectError
from proxy.service.doctor_facts import Linux, Rival
from proxy.service.doctor_rivals import bpf_rivals, legacy_rivals, nft_rivals, our_tables
from proxy.service.doctor_tools import ask, number, read
from proxy.service.exec_cgroup import locate
from proxy.service.listener import can_listen

#: linux/capability.h; the numbers never change.
_CAPABILITIES = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
_SYS_BPF = {"x86_64": 321, "aarch64": 280}  # asm/unistd.h
_EFAULT, _EINVAL, _E2BIG = 14, 22, 7
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex has 208, and may grow


def look(providers: Sequence[str]) -> tuple[Linux, list[Rival]]:
    """Everything but what every system has."""
    ruleset, nft_problem = _ruleset()
    cgroup, cgroup_problem, writable = _cgroup()
    redirector, libbpf_problem, redirector_problem = _redirector(providers)
    ok, version = ask("nft", "--version")
    linux = Linux(
        capabilities=capabilities(),
        cgroup=cgroup,
        cgroup_problem=cgroup_problem,
        cgroup_writable=writable,
        bpf_problem=_bpf_problem(),
        btf=os.path.exists("/sys/kernel/btf/vmlinux"),
        jit=number("/proc/sys/net/core/bpf_jit_enable"),
        lockdown=lockdown(read("/sys/kernel/security/lockdown") or ""),
        libbpf_problem=libbpf_problem,
        redirector=redirector,
        redirector_problem=redirector_problem,
        nft=version if ok else None,
        nft_problem=nft_problem if ok else "",
        conntrack=_conntrack(),
        ipv6_loopback=can_listen("::1"),
        stale_tables=tuple(
            name for name, port in our_tables(ruleset).items() if not _is_listening(port)
        ),
    )
    return linux, [*nft_rivals(ruleset), *_legacy(), *_bpf()]


def capabilities() -> frozenset[str]:
    """Effective ones of this thread, of those that matter here: capabilities(7)."""
    for line in (read("/proc/thread-self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for name, bit in _CAPABILITIES.items() if mask >> bit & 1)
    return frozenset()


def lockdown(text: str) -> str:
    """The one in brackets of `none [integrity] confidentiality`; kernel_lockdown(7)."""
    return text.partition("[")[2].partition("]")[0]


def clock_synchronised() -> bool | None:
    """adjtimex(2) with nothing to set; None where the C library has no such call."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return None
    libc.adjtimex.argtypes, libc.adjtimex.restype = [ctypes.c_void_p], ctypes.c_int
    state = int(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return None if state < 0 else state != _TIME_ERROR


def _ruleset() -> tuple[dict[str, Any], str]:
    ok, told = ask("nft", "-j", "list", "ruleset")
    if not ok:
        return {}, f"the ruleset cannot be read: {told.splitlines()[0] if told else 'no answer'}"
    try:
        return json.loads(told or "{}"), ""
    except ValueError:
        return {}, "nft printed a ruleset that is not JSON"


def _cgroup() -> tuple[str, str, bool]:
    try:
        mount, own = locate()
    except RedirectError as error:
        return "", str(error), False
    return str(mount / own), "", os.access(mount / own, os.W_OK)


def _bpf_problem() -> str | None:
    """Ask bpf(2) to create a map of no size: EINVAL means that we could, EPERM that we may not."""
    call = _SYS_BPF.get(os.uname().machine)
    if call is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    attributes = ctypes.create_string_buffer(128)
    arguments = (ctypes.c_long(call), ctypes.c_int(0), attributes, ctypes.c_uint(len(attributes)))
    result = libc.syscall(*arguments)
    if result >= 0:
        os.close(result)
        return ""
    error = ctypes.get_errno()
    return "" if error in (_EINVAL, _E2BIG, _EFAULT) else os.strerror(error)


def _redirector(providers: Sequence[str]) -> tuple[str, str, str]:
    """(where the eBPF object is, what is wrong with libbpf, what with the object)."""
    if "ebpf" not in providers:
        return "", "", ""
    from proxy.redirect import ebpf_object, libbpf

    libbpf_problem = redirector_problem = where = ""
    try:
        libbpf.library()
    except RedirectError as error:
        libbpf_problem = str(error)
    try:
        where = str(ebpf_object.find_object())
    except RedirectError as error:
        redirector_problem = str(error)
    return where, libbpf_problem, redirector_problem


def _conntrack() -> tuple[int, int] | None:
    used = number("/proc/sys/net/netfilter/nf_conntrack_count")
    most = number("/proc/sys/net/netfilter/nf_conntrack_max")
    return None if used is None or most is None else (used, most)


def _legacy() -> list[Rival]:
    """Rules of the old iptables, which nft does not list: /proc names the tables in use."""
    found = []
    for family, names, tool in (
        ("ip", "/proc/net/ip_tables_names", "iptables-legacy-save"),
        ("ip6", "/proc/net/ip6_tables_names", "ip6tables-legacy-save"),
    ):
        if not {"nat", "mangle"} & set((read(names) or "").split()):
            continue
        ok, saved = ask(tool)
        if ok:
            found += legacy_rivals(saved, family)
        else:
            found.append(Rival("iptables-legacy", family, f"has rules, and {saved}"))
    return found


def _bpf() -> list[Rival]:
    ok, told = ask("bpftool", "-j", "cgroup", "tree")
    if not ok or shutil.which("bpftool") is None:
        return []
    with contextlib.suppress(ValueError, RedirectError, KeyError):  # another bpftool's shape
        mount, own = locate()
        return bpf_rivals(json.loads(told or "[]"), str(mount), own)
    return []


def _is_listening(port: int) -> bool:
    """Does anybody on this machine listen there? proc_net(5): state 0A."""
    wanted = f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (read(path) or "").splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[3] == "0A":
                return True
    return False
