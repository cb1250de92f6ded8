"""The checks of `sluicegate doctor` that are about Linux or Windows. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.service.doctor_facts import Facts
from proxy.service.doctor_findings import Check, Finding, fail, ok, warn

_FULL = 0.8  #: of conntrack
#: As proxy.redirect.ebpf says; nftables' `socket cgroupv2` came with Linux 5.13.
_KERNEL_FOR = {"ebpf": (5, 15), "nft": (5, 13)}


def check_privileges(facts: Facts) -> Iterator[Finding]:
    if facts.privileged:
        yield ok("privileges", f"running as {facts.user}, with what a redirect needs")
        return
    how = "sudo sluicegate doctor" if facts.linux is not None else "an elevated prompt"
    needs = "CAP_NET_ADMIN (ebpf: CAP_BPF too)" if facts.linux is not None else "administrator"
    text = f"running as {facts.user}: a redirect needs {needs}"
    yield warn(
        "privileges", text, f"try again with {how}; explicit and exec --via env need nothing"
    )


def check_kernel(facts: Facts) -> Iterator[Finding]:
    if facts.linux is None:
        return
    version = kernel_version(facts.kernel)
    for provider, wanted in _KERNEL_FOR.items():
        if version is not None and version < wanted:
            text = f"kernel {facts.kernel} is older than {wanted[0]}.{wanted[1]}"
            yield warn("kernel", f"{text}, which {provider} needs", "update the kernel")


def check_cgroup(facts: Facts) -> Iterator[Finding]:
    linux = facts.linux
    if linux is None:
        return
    if linux.cgroup_problem:
        advice = "without it: no ebpf, no scope by cgroup, no exec in the kernel"
        yield warn("cgroup", linux.cgroup_problem, advice)
    elif not linux.cgroup_writable:
        advice = "sluicegate exec makes one there: run it as root, or with a delegated cgroup"
        yield warn("cgroup", f"no cgroup can be made in {linux.cgroup}", advice)
    else:
        yield ok("cgroup", f"cgroup v2: {linux.cgroup}")


def check_bpf(facts: Facts) -> Iterator[Finding]:
    linux = facts.linux
    if linux is None or "ebpf" not in facts.providers:
        return
    if linux.bpf_problem:
        advice = "run as root with CAP_BPF; a container may forbid bpf(2) by seccomp"
        yield warn("bpf", f"bpf(2) cannot be used: {linux.bpf_problem}", advice)
    elif linux.bpf_problem == "":
        yield ok("bpf", "bpf(2) can be used")
    if not linux.btf:
        advice = "use a kernel built with CONFIG_DEBUG_INFO_BTF, or provider nft"
        yield warn("bpf", "/sys/kernel/btf/vmlinux is missing: programs cannot be fitted", advice)
    if linux.jit == 0:
        advice = "sysctl net.core.bpf_jit_enable=1"
        yield warn("bpf", "the BPF compiler is off: every connect() is interpreted", advice)
    if linux.lockdown == "confidentiality":
        advice = "boot without lockdown=confidentiality, or use provider nft"
        yield warn("bpf", "kernel lockdown keeps BPF programs from reading", advice)


def check_redirector(facts: Facts) -> Iterator[Finding]:
    linux = facts.linux
    if linux is None or "ebpf" not in facts.providers:
        return
    if linux.libbpf_problem:
        advice = "apt install libbpf1 (or dnf install libbpf), or use provider nft"
        yield warn("redirector", linux.libbpf_problem, advice)
    if linux.redirector_problem:
        advice = "apt install clang libbpf-dev, or use provider nft"
        yield warn("redirector", linux.redirector_problem, advice)
    elif linux.redirector:
        yield ok("redirector", f"the eBPF object is {linux.redirector}")


def check_nft(facts: Facts) -> Iterator[Finding]:
    linux = facts.linux
    if linux is None:
        return
    if linux.nft is None:
        yield warn("nft", "nft is not installed", "apt install nftables (or dnf, apk)")
    elif linux.nft_problem:
        advice = "run as root; or modprobe nf_tables nft_chain_nat nft_redir nft_fib_inet"
        yield warn("nft", linux.nft_problem, advice)
    else:
        yield ok("nft", linux.nft)
    for table in linux.stale_tables:
        text = f"table inet {table} captures connections, and nobody listens for them"
        advice = f"start the proxy that made it, or: nft delete table inet {table}"
        yield fail("nft", text, advice)


def check_conntrack(facts: Facts) -> Iterator[Finding]:
    linux = facts.linux
    if linux is None or linux.conntrack is None:
        return
    used, most = linux.conntrack
    if most and used > _FULL * most:
        advice = f"sysctl net.netfilter.nf_conntrack_max={most * 2}; or use ebpf, which needs none"
        text = f"{used} of {most} connections are tracked; when it is full, new ones are dropped"
        yield warn("conntrack", text, advice)
    else:
        yield ok("conntrack", f"{used} of {most} connections are tracked")


def check_ipv6(facts: Facts) -> Iterator[Finding]:
    if facts.linux is not None and not facts.linux.ipv6_loopback:
        advice = "redirect IPv4 only: --set redirect.ipv6=false"
        yield warn("ipv6", "::1 cannot be listened on: redirected IPv6 would not arrive", advice)


# --- Windows


def check_windows(facts: Facts) -> Iterator[Finding]:
    windows = facts.windows
    if windows is None:
        return
    if windows.wfp_problem:
        advice = "run in an elevated prompt: netsh wfp show state needs it"
        yield warn("wfp", windows.wfp_problem, advice)
    if windows.driver is None and not windows.ebpf:
        advice = "install the driver of deploy/redirector, or eBPF for Windows"
        yield warn("driver", "there is no redirector: neither a driver nor eBPF", advice)
    elif windows.driver is not None and windows.driver.upper() != "RUNNING":
        yield warn("driver", f"the driver is {windows.driver.lower()}", "sc start sluicegate")
    if windows.test_signing is False and not windows.ebpf:
        advice = "bcdedit /set testsigning on, and restart; or sign the driver"
        yield warn("signing", "test-signed drivers are not loaded", advice)


def kernel_version(release: str) -> tuple[int, int] | None:
    """6.18.44-generic -> (6, 18)."""
    numbers = release.split("-")[0].split(".")
    if len(numbers) < 2 or not (numbers[0].isdigit() and numbers[1].isdigit()):
        return None
    return int(numbers[0]), int(numbers[1])


SYSTEM_CHECKS: tuple[Check, ...] = (
    *(check_privileges, check_kernel, check_cgroup, check_bpf, check_redirector),
    *(check_nft, check_conntrack, check_ipv6, check_windows),
)
