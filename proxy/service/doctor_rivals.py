"""Who else redirects connections here: read out of what the systems' own tools print. Pure.

Two redirectors on one machine can hide connections from each other, or send them around in a
circle; so doctor names the others, and in which order they come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.redirect.wfp_state import parse_state
from proxy.service.doctor_facts import Rival

#: Statements of nftables that change where a packet goes, libnftables-json(5).
_NFT_STATEMENTS = ("redirect", "tproxy", "dnat")
_OUR_TABLE = re.compile(r"sluicegate_(\d+)")
_LEGACY_TARGETS = re.compile(r"^-A (\S+) .*-j (REDIRECT|TPROXY|DNAT)\b", re.MULTILINE)
#: Attach types that see connect(2), as bpftool-cgroup(8) names them in different versions.
_CONNECT = re.compile(r"(?:cgroup_inet|connect)([46])(?:_connect)?$")
#: What the programs of our own redirector are called (the kernel keeps 15 characters).
_OUR_PROGRAMS = "sluicegate_"


def nft_rivals(ruleset: Mapping[str, Any]) -> list[Rival]:
    """From `nft -j list ruleset`; ours are among them, and marked."""
    items = ruleset.get("nftables", [])
    chains = {_chain_of(item["chain"], "name"): item["chain"] for item in items if "chain" in item}
    found: dict[Rival, None] = {}
    for item in items:
        rule = item.get("rule")
        if rule is None:
            continue
        for does in _statements(rule.get("expr", [])):
            chain = chains.get(_chain_of(rule, "chain"), {})
            hook = f" (hook {chain['hook']})" if "hook" in chain else ""
            name = f"{rule['family']} {rule['table']} {rule['chain']}{hook}"
            ours = _OUR_TABLE.fullmatch(rule["table"]) is not None
            found[Rival("nft", name, does, chain.get("prio"), ours)] = None
    return list(found)


def our_tables(ruleset: Mapping[str, Any]) -> dict[str, int]:
    """Tables of ours, and the port that each leads to."""
    names = [item["table"]["name"] for item in ruleset.get("nftables", []) if "table" in item]
    return {name: int(match[1]) for name in names if (match := _OUR_TABLE.fullmatch(name))}


def legacy_rivals(saved: str, family: str) -> list[Rival]:
    """From `iptables-legacy-save` or its IPv6 twin; `family` is ip or ip6."""
    found = dict.fromkeys(_LEGACY_TARGETS.findall(saved))
    return [
        Rival("iptables-legacy", f"{family} {chain}", target.lower()) for chain, target in found
    ]


def bpf_rivals(tree: list[Mapping[str, Any]], mount: str, own: str) -> list[Rival]:
    """From `bpftool -j cgroup tree`: connect programs at our cgroup or above it.

    `own` is our cgroup's path below `mount`.
    """
    found = []
    for entry in tree:
        path = "/" + str(entry["cgroup"]).removeprefix(mount).strip("/")
        if path != "/" and not f"/{own.strip('/')}/".startswith(f"{path}/"):
            continue
        for program in entry.get("programs", ()):
            kind = _CONNECT.search(str(program.get("attach_type", "")))
            if kind:
                name = program.get("name") or f"program {program.get('id')}"
                ours = str(name).startswith(_OUR_PROGRAMS)
                does = f"may rewrite connect() for IPv{kind[1]}"
                found.append(Rival("bpf", f"{name} at {path}", does, ours=ours))
    return found


def wfp_rivals(state: str) -> list[Rival]:
    """From the XML of `netsh wfp show state`, in the order in which WFP asks them.

    Raises RedirectError for what is not such XML.
    """
    found = []
    for one in parse_state(state).redirectors():
        does = f"redirects, by filter weight {one.filter.weight} of sublayer {one.filter.sublayer}"
        ours = one.callout.name.lower().startswith("sluicegate")
        found.append(Rival("wfp", str(one), does, ours=ours))
    return found


def _chain_of(item: Mapping[str, Any], key: str) -> tuple[str, str, str]:
    return item["family"], item["table"], item[key]


def _statements(value: object) -> Iterator[str]:
    """Every redirecting statement of a rule; a map may hold some deep inside."""
    if isinstance(value, list):
        for inner in value:
            yield from _statements(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in _NFT_STATEMENTS:
                yield key
            else:
                yield from _statements(inner)
