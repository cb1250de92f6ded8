"""The nftables ruleset of a redirect, as one line of nft's own language. Pure.

One line is one transaction, for `nft -f -` and for `nft -i` alike. The native language and
not JSON: nft 1.0.6 (Debian 12) silently ignores a table's flags in JSON and knows no `socket
cgroupv2` there. Only numbers, canonical addresses and names that `RedirectOptions` has
checked are written into it. Follows nft(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from proxy.redirect.options import OnCrash, RedirectOptions

_BEFORE_FILTERS = -100  # NF_IP_PRI_NAT_DST, nft(8) "dstnat"
OURS = "sluicegate redirect to"  #: how the comments of our tables begin
LINK_LOCAL = "fe80::/10"  # RFC 4291 2.4: says nothing without an interface, so not dialled


def table_line(options: RedirectOptions, cgroup_level: int = 0, cgroup_root: str = "") -> str:
    """Our table, which redirects to `options.listen.port`. `clear_line` goes before it.

    `cgroup_root` is where cgroup v2 is mounted below /sys/fs/cgroup ("" or "unified/", hybrid);
    `cgroup_level` the depth of `options.cgroup`.
    """
    chains = []
    if options.output:
        chains.append(_chain("output", options, _scope(options, cgroup_level, cgroup_root)))
    if options.prerouting:
        names = ", ".join(f'"{name}"' for name in options.prerouting)
        chains.append(_chain("prerouting", options, f"iifname {{ {names} }} "))
    flags = "flags owner; " if options.on_crash is OnCrash.OPEN else ""
    table = f"table inet {options.table}"
    return f"{table} {{ {flags}{comment(options)}; {'; '.join(chains)}; }}"


def comment(options: RedirectOptions) -> str:
    """Says whose the table is, to people and to us."""
    return f'comment "{OURS} {options.listen}"'


def clear_line(table: str, *, owned: bool) -> str:
    """Remove a table: one that this nft process owns, or a plain one, be it there or not."""
    # The kernel refuses `add` without `flags owner` for a table that has an owner.
    return (
        f"delete table inet {table}"
        if owned
        else f"add table inet {table}; delete table inet {table}"
    )


def _scope(options: RedirectOptions, cgroup_level: int, cgroup_root: str) -> str:
    """Whose connections are captured, as conditions of the redirecting rule."""
    # Never the other way round (`!= … return`): a packet without such a socket, or of a cgroup
    # that is not so deep, matches neither `==` nor `!=`, and would be captured.
    conditions = ""
    if options.uid is not None:
        conditions += f"meta skuid {options.uid} "
    if options.cgroup is not None:
        path = f'"{cgroup_root}{options.cgroup}"'
        conditions += f"socket cgroupv2 level {cgroup_level} {path} "
    return conditions


def _chain(hook: str, options: RedirectOptions, scope: str) -> str:
    ports = ", ".join(str(ports) for ports in options.ports)
    rules = [
        f"meta mark {options.mark} return",  # our own upstream sockets
        *_exempt_user(hook, options),
        f"ip6 daddr {LINK_LOCAL} return",
        own_addresses(options),
        *excluded(options),
        f"{scope}tcp dport {{ {ports} }} redirect to :{options.listen.port}",
    ]
    head = f"type nat hook {hook} priority {_BEFORE_FILTERS}; policy accept;"
    return f"chain {hook} {{ {head} {'; '.join(rules)}; }}"


def own_addresses(options: RedirectOptions) -> str:
    """This machine's own addresses (127/8 and ::1 are among them), or our ports there."""
    if not options.include_loopback:
        return "fib daddr type local return"
    own = {options.listen.port}
    if options.admin is not None:
        own.add(options.admin.port)
    ports = ", ".join(str(port) for port in sorted(own))
    return f"fib daddr type local tcp dport {{ {ports} }} return"


def _exempt_user(hook: str, options: RedirectOptions) -> list[str]:
    """The proxy's own connections, told by its user where it has no privilege for a mark."""
    if options.exempt_uid is None or hook != "output":  # nobody's socket made what arrives
        return []
    return [f"meta skuid {options.exempt_uid} return"]


def excluded(options: RedirectOptions) -> list[str]:
    """What is left alone by its destination: CIDRs by family, and unwanted families."""
    rules = []
    for family, nfproto, wanted in (("ip", "ipv4", options.ipv4), ("ip6", "ipv6", options.ipv6)):
        if networks := _of_family(nfproto, options.exclude):
            rules.append(f"{family} daddr {{ {networks} }} return")
        included = _of_family(nfproto, options.include)
        if not wanted or (options.include and not included):
            rules.append(f"meta nfproto {nfproto} return")
        elif included:
            rules.append(f"{family} daddr != {{ {included} }} return")
    return rules


def _of_family(nfproto: str, cidrs: tuple[str, ...]) -> str:
    """Those of one family, merged (an nft interval set refuses overlaps), with commas between."""
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    merged: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
    if nfproto == "ipv4":
        merged = ipaddress.collapse_addresses(n for n in networks if n.version == 4)
    else:
        merged = ipaddress.collapse_addresses(n for n in networks if n.version == 6)
    return ", ".join(map(str, merged))
