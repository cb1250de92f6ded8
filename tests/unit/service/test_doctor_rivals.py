"""What the systems' own tools print about redirectors, read."""

from __future__ import annotations

import pytest

from proxy.errors import RedirectError
from proxy.service.doctor_facts import Rival
from proxy.service.doctor_linux import lockdown
from proxy.service.doctor_rivals import (
    bpf_rivals,
    legacy_rivals,
    nft_rivals,
    our_tables,
    wfp_rivals,
)
from proxy.service.doctor_windows import driver_state, test_signing

signing_of = test_signing  # under its own name pytest would take it for a test
del test_signing


def chain(table: str, name: str, prio: int, family: str = "inet") -> dict[str, object]:
    hook = {"type": "nat", "hook": "output", "prio": prio, "policy": "accept"}
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1, **hook}}


def rule(table: str, name: str, *expr: object, family: str = "inet") -> dict[str, object]:
    return {"rule": {"family": family, "table": table, "chain": name, "expr": list(expr)}}


def test_nft_rules_that_redirect_with_hook_and_priority() -> None:
    ruleset = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "mesh", "handle": 1}},
            chain("mesh", "out", -150),
            rule("mesh", "out", {"match": {}}, {"redirect": {"port": 15001}}),
            rule("mesh", "out", {"redirect": {"port": 15001}}),
            rule("mesh", "out", {"accept": None}),
            {"table": {"family": "inet", "name": "sluicegate_15001", "handle": 2}},
            chain("sluicegate_15001", "output", -100),
            rule("sluicegate_15001", "output", {"redirect": {"port": 15001}}),
            rule("nat", "DOCKER", {"dnat": {"addr": "172.17.0.2"}}, family="ip"),
            rule("maps", "deep", {"vmap": {"data": {"set": [["a", {"tproxy": {"port": 1}}]]}}}),
        ]
    }
    assert nft_rivals(ruleset) == [
        Rival("nft", "inet mesh out (hook output)", "redirect", -150),
        Rival("nft", "inet sluicegate_15001 output (hook output)", "redirect", -100, ours=True),
        Rival("nft", "ip nat DOCKER", "dnat"),
        Rival("nft", "inet maps deep", "tproxy"),
    ]
    assert our_tables(ruleset) == {"sluicegate_15001": 15001}


def test_an_empty_ruleset() -> None:
    assert nft_rivals({}) == []
    assert our_tables({"nftables": []}) == {}


def test_legacy_rules() -> None:
    saved = """*nat
:OUTPUT ACCEPT [0:0]
-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080
-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1
-A OUTPUT -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 8080
-A OUTPUT -j ACCEPT
COMMIT
"""
    assert legacy_rivals(saved, "ip") == [
        Rival("iptables-legacy", "ip OUTPUT", "redirect"),
        Rival("iptables-legacy", "ip PREROUTING", "dnat"),
    ]


def program(kind: str, name: str) -> dict[str, object]:
    return {"id": 7, "attach_type": kind, "attach_flags": "multi", "name": name}


def test_bpf_programs_that_see_our_connects() -> None:
    """At our cgroup and above, not beside it; in the words of old and new bpftools."""
    mount = "/sys/fs/cgroup/unified"
    tree = [
        {"cgroup": mount, "programs": [program("cgroup_inet4_connect", "cil_sock4_conne")]},
        {"cgroup": f"{mount}/a", "programs": [program("connect6", "")]},
        {"cgroup": f"{mount}/a/b", "programs": [program("cgroup_inet4_connect", "sluicegate_c4")]},
        {"cgroup": f"{mount}/ab", "programs": [program("connect4", "beside")]},
        {"cgroup": f"{mount}/a/b/c", "programs": [program("connect4", "below")]},
        {"cgroup": mount, "programs": [program("cgroup_inet4_getpeername", "other")]},
    ]
    assert bpf_rivals(tree, mount, "a/b") == [
        Rival("bpf", "cil_sock4_conne at /", "may rewrite connect() for IPv4"),
        Rival("bpf", "program 7 at /a", "may rewrite connect() for IPv6"),
        Rival("bpf", "sluicegate_c4 at /a/b", "may rewrite connect() for IPv4", ours=True),
    ]
    assert [rival.name for rival in bpf_rivals(tree, mount, "")] == ["cil_sock4_conne at /"]


def wfp(name: str, layer: str, number: int) -> str:
    return f"""<item><calloutKey>{{{number}}}</calloutKey>
      <displayData><name>{name}</name></displayData>
      <flags numItems="1"><item>FWPM_CALLOUT_FLAG_REGISTERED</item></flags>
      <applicableLayer>{layer}</applicableLayer><calloutId>{number}</calloutId></item>
      <item><filterKey>{{f{number}}}</filterKey><displayData><name>{name}</name></displayData>
      <layerKey>{layer}</layerKey><subLayerKey>{{s}}</subLayerKey>
      <action><type>FWP_ACTION_CALLOUT_TERMINATING</type><filterType>{{{number}}}</filterType></action>
      <filterId>{number}</filterId>
      <effectiveWeight><type>FWP_UINT64</type><uint64>{number}</uint64></effectiveWeight></item>"""


def test_callouts_of_windows_in_their_order() -> None:
    redirect, other = "FWPM_LAYER_ALE_CONNECT_REDIRECT_V4", "FWPM_LAYER_STREAM_V4"
    items = wfp("Mesh", redirect, 5) + wfp("Sluicegate", redirect, 9) + wfp("Scanner", other, 7)
    found = wfp_rivals(f"<wfpstate><layers>{items}</layers></wfpstate>")
    assert [(rival.name.split(" at ")[0], rival.ours) for rival in found] == [
        ("Sluicegate", True),
        ("Mesh", False),
    ]
    assert "filter weight 5" in found[1].does


def test_what_is_not_the_state_of_wfp_is_said() -> None:
    with pytest.raises(RedirectError):
        wfp_rivals("The Base Filtering Engine is not running.")


@pytest.mark.parametrize(
    ("boot", "on"),
    [
        ("identifier  {current}\ntestsigning             Yes\n", True),
        ("identifier  {current}\nTESTSIGNING No\n", False),
        ("identifier  {current}\n", False),
    ],
)
def test_whether_windows_loads_test_signed_drivers(boot: str, on: bool) -> None:
    assert signing_of(boot) is on


def test_the_state_of_the_driver() -> None:
    listed = """
SERVICE_NAME: other
        STATE              : 1  STOPPED

SERVICE_NAME: Sluicegate
DISPLAY_NAME: Sluicegate
        TYPE               : 1  KERNEL_DRIVER
        STATE              : 4  RUNNING
"""
    assert driver_state(listed) == "RUNNING"
    assert driver_state(listed.replace("Sluicegate\nDISPLAY", "x\nDISPLAY")) is None


def test_the_mode_of_lockdown_is_in_brackets() -> None:
    assert lockdown("none [integrity] confidentiality") == "integrity"
    assert lockdown("") == ""
