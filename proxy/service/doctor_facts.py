"""What doctor knows of a machine: plain data, gathered elsewhere, judged by doctor_checks.

None means that it could not be found out, and is never taken for good or bad.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rival:
    """Something else on this machine that redirects connections."""

    kind: str  #: nft | iptables-legacy | bpf | wfp
    name: str  #: "inet istio output", "connect4 cil_sock4_connect at /"
    does: str  #: redirect | tproxy | dnat | rewrites connect() | …
    priority: int | None = None  #: nft: of its chain; lower is earlier
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """One of our own endpoints, before the service has it."""

    role: str  #: listen | admin
    endpoint: str
    free: bool
    holder: str = ""  #: who has it, as far as that can be told
    sluicegate: bool = False  #: a running Sluicegate has it


@dataclass(frozen=True, slots=True)
class Loop:
    """A connection of our own through a real redirect, in a cgroup of its own."""

    provider: str
    family: int  #: 4 | 6
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Policies:
    directory: str
    rules: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Linux:
    """The kernel's side of a redirect."""

    capabilities: frozenset[str]  #: effective ones, of those that matter
    cgroup: str = ""  #: our own, below a cgroup v2 mount; empty: `cgroup_problem` says why
    cgroup_problem: str = ""
    cgroup_writable: bool = False
    bpf_problem: str | None = None  #: why bpf(2) cannot be used; empty: it can
    btf: bool = False
    jit: int | None = None  #: net.core.bpf_jit_enable
    lockdown: str = ""  #: none | integrity | confidentiality
    libbpf_problem: str = ""
    redirector: str = ""  #: the BPF object, built or found
    redirector_problem: str = ""
    nft: str | None = None  #: what `nft --version` says; None: not installed
    nft_problem: str = ""  #: why the ruleset cannot be read
    conntrack: tuple[int, int] | None = None  #: entries now, and at most
    ipv6_loopback: bool = True
    stale_tables: tuple[str, ...] = ()  #: tables of ours at whose port nobody listens


@dataclass(frozen=True, slots=True)
class Windows:
    elevated: bool = False
    test_signing: bool | None = None
    driver: str | None = None  #: state of our callout driver's service; None: not installed
    ebpf: bool = False  #: ebpfapi.dll is there
    wfp_problem: str = ""  #: why the state of WFP cannot be read


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks may look at."""

    system: str  #: sys.platform
    kernel: str
    user: str
    privileged: bool
    providers: tuple[str, ...]  #: what this version has
    ports: tuple[Port, ...] = ()
    rivals: tuple[Rival, ...] = ()
    clock_synchronised: bool | None = None
    monotonic: bool = True
    open_files: int | None = None  #: soft limit; None: no such limit
    max_flows: int = 0  #: as set; 0: derived
    policies: Policies | None = None
    loops: tuple[Loop, ...] | None = None  #: None: not tried
    linux: Linux | None = None
    windows: Windows | None = None
