"""The nftables ruleset of a TPROXY redirect, as one line of nft's own language. Pure.

Only the first packet of a connection (SYN) is given to the listener. The others are told by
their socket, on both sides: those of a client that was captured, and the server's answers to a
connection that we made with the client's address. Both get a mark, by which policy routing
delivers them here. So connections from before the redirect go on past us.

Follows nft(8) (TPROXY STATEMENT, SOCKET EXPRESSION) and the kernel's
Documentation/networking/tproxy.rst.
"""

from __future__ import annotations

from proxy.errors import RedirectError
from proxy.redirect.nft_rules import LINK_LOCAL, comment, excluded, own_addresses
from proxy.redirect.options import OnCrash, RedirectOptions

_MANGLE = -150  # NF_IP_PRI_MANGLE: after connection tracking, before routing
# The errors about a connection (RFC 1191's "fragmentation needed") are its packets, too.
_OURS = "meta l4proto { tcp, icmp, ipv6-icmp }"
_FIRST = "tcp flags & (fin | syn | rst | ack) == syn"


def tproxy_line(options: RedirectOptions) -> str:
    """Our table; `nft_rules.clear_line` goes before it. Raises RedirectError."""
    flags = "flags owner; " if options.on_crash is OnCrash.OPEN else ""
    head = f"type filter hook prerouting priority {_MANGLE}; policy accept;"
    known = [
        f"{_FIRST} goto capture",
        # A listener on all addresses "is" the socket of whatever passes by to its port.
        f"{_OURS} socket wildcard 1 return",
        f"{_OURS} socket transparent 1 meta mark set {options.route_table} accept",
    ]
    return (
        f"table inet {options.table} {{ {flags}{comment(options)}; "
        f"chain capture {{ {'; '.join(_capture(options))}; }}; "
        f"chain prerouting {{ {head} {'; '.join(known)}; }}; }}"
    )


def _capture(options: RedirectOptions) -> list[str]:
    names = ", ".join(f'"{name}"' for name in options.prerouting)
    ports = ", ".join(map(str, options.ports))
    scope = f"iifname {{ {names} }} tcp dport {{ {ports} }}"
    rules = [
        f"meta mark {options.mark} return",
        f"ip6 daddr {LINK_LOCAL} return",
        own_addresses(options),
        *excluded(options),
        *(
            f"meta nfproto {nfproto} {scope} {target} meta mark set {options.route_table} accept"
            for nfproto, target in _targets(options)
        ),
    ]
    if options.on_crash is OnCrash.CLOSED:
        # `tproxy` matches only while there is a listener: without this rule they would pass.
        rules.append(f"{scope} reject with tcp reset")
    return rules


def _targets(options: RedirectOptions) -> list[tuple[str, str]]:
    """For each family that is captured, the statement that names its listener."""
    host, port = options.listen.host, options.listen.port
    four, six = "", ""
    match host:
        case "::":
            four, six = f"tproxy ip to :{port}", f"tproxy ip6 to :{port}"
        case "127.0.0.1":  # the service listens on ::1, too
            four, six = f"tproxy ip to {host}:{port}", f"tproxy ip6 to [::1]:{port}"
        case "0.0.0.0":
            four = f"tproxy ip to :{port}"
        case _ if ":" in host:
            six = f"tproxy ip6 to [{host}]:{port}"
        case _:
            four = f"tproxy ip to {host}:{port}"
    _check(options, four, six)
    pairs = (("ipv4", four, options.ipv4), ("ipv6", six, options.ipv6))
    return [(nfproto, target) for nfproto, target, wanted in pairs if wanted]


def _check(options: RedirectOptions, four: str, six: str) -> None:
    listen = options.listen
    for name, other, target, wanted in (
        ("IPv4", "IPv6", four, options.ipv4),
        ("IPv6", "IPv4", six, options.ipv6),
    ):
        if wanted and not target:
            raise RedirectError(
                f"{listen} takes no {name}: listen on 127.0.0.1:{listen.port} or "
                f"[::]:{listen.port}, or redirect {other} only"
            )
