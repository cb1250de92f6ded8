"""The ruleset of TPROXY as text, and what complaints of ip become; the kernel: tests/netns."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect import ip_command
from proxy.redirect.options import Managed, OnCrash, PortRange, RedirectOptions
from proxy.redirect.registry import make_provider
from proxy.redirect.tproxy_rules import tproxy_line

OPTIONS = RedirectOptions(
    Endpoint("127.0.0.1", 8080), ports=(PortRange(80, 80),), prerouting=("eth1",)
)


def test_the_whole_table() -> None:
    assert tproxy_line(OPTIONS) == (
        'table inet sluicegate_8080 { comment "sluicegate redirect to 127.0.0.1:8080"; '
        "chain capture { meta mark 21319 return; ip6 daddr fe80::/10 return; "
        "fib daddr type local return; "
        'meta nfproto ipv4 iifname { "eth1" } tcp dport { 80 } '
        "tproxy ip to 127.0.0.1:8080 meta mark set 1397170064 accept; "
        'meta nfproto ipv6 iifname { "eth1" } tcp dport { 80 } '
        "tproxy ip6 to [::1]:8080 meta mark set 1397170064 accept; "
        'iifname { "eth1" } tcp dport { 80 } reject with tcp reset; }; '
        "chain prerouting { type filter hook prerouting priority -150; policy accept; "
        "tcp flags & (fin | syn | rst | ack) == syn goto capture; "
        "meta l4proto { tcp, icmp, ipv6-icmp } socket wildcard 1 return; "
        "meta l4proto { tcp, icmp, ipv6-icmp } socket transparent 1 "
        "meta mark set 1397170064 accept; }; }"
    )


def test_open_owns_its_table_and_refuses_nothing() -> None:
    line = tproxy_line(replace(OPTIONS, on_crash=OnCrash.OPEN))
    assert "flags owner;" in line
    assert "reject" not in line


@pytest.mark.parametrize(
    ("host", "family"),
    [("0.0.0.0", "IPv6"), ("10.0.0.1", "IPv6"), ("::1", "IPv4"), ("fd00::1", "IPv4")],
)
def test_a_family_without_a_listener_is_told(host: str, family: str) -> None:
    with pytest.raises(RedirectError, match=f"takes no {family}"):
        tproxy_line(replace(OPTIONS, listen=Endpoint(host, 8080)))
    one = replace(
        OPTIONS, listen=Endpoint(host, 8080), ipv4=family == "IPv6", ipv6=family == "IPv4"
    )
    assert tproxy_line(one).count(" tproxy ") == 1


@pytest.mark.parametrize("number", [-1, 255, 2**32])
def test_a_number_must_be_a_free_table(number: int) -> None:
    with pytest.raises(RedirectError, match="route_mark"):
        replace(OPTIONS, route_mark=number)


@pytest.mark.parametrize("name", ["static", "explicit"])
def test_only_what_installs_something_can_stand_apart(name: str) -> None:
    options = replace(OPTIONS, managed=Managed.EXTERNAL, upstream=Endpoint("192.0.2.1", 80))
    with pytest.raises(RedirectError, match="only nft, tproxy and ebpf"):
        make_provider(name, options)


# --- ip(8) -----------------------------------------------------------------------------------


def fake_ip(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "ip"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for ip")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'RTNETLINK answers: Operation not permitted' >&2; exit 2", "CAP_NET_ADMIN"),
        ("echo 'RTNETLINK answers: Address family not supported' >&2; exit 2", "redirect.ipv6"),
        ("echo 'what is this' >&2; exit 1", "ip -4 rule list: what is this"),
        ("exit 1", "failed"),
        ("echo 0: from all lookup local", "iproute2"),
    ],
)
def test_complaints_of_ip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    fake_ip(tmp_path, monkeypatch, script)
    with pytest.raises(RedirectError) as caught:
        ip_command.show("-4", "rule", "list")
    assert words in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for ip")
def test_a_table_that_is_not_there_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Error: ipv4: FIB table does not exist.\nDump terminated"
    fake_ip(tmp_path, monkeypatch, f"echo '[ ]x'; echo '{said}' >&2; exit 2")
    assert ip_command.show("-4", "route", "show", "table", "777") == []


def test_a_missing_ip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(ip_command.subprocess, "run", missing)
    with pytest.raises(RedirectError, match="iproute2"):
        ip_command.change("rule", "add")
