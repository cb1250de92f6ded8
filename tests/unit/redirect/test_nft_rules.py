"""The ruleset as text, and what nft's complaints become. The kernel's part: tests/netns."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect import nft_command
from proxy.redirect.nft import NftProvider
from proxy.redirect.nft_command import NftTimeout, TableOwner, explain, run
from proxy.redirect.nft_rules import clear_line, table_line
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions

OPTIONS = RedirectOptions(Endpoint("127.0.0.1", 8080), ports=(PortRange(80, 80), PortRange(90, 99)))
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nftables is Linux's")


def test_the_whole_table() -> None:
    assert table_line(OPTIONS) == (
        'table inet sluicegate_8080 { comment "sluicegate redirect to 127.0.0.1:8080"; '
        "chain output { "
        "type nat hook output priority -100; policy accept; "
        "meta mark 21319 return; ip6 daddr fe80::/10 return; fib daddr type local return; "
        "tcp dport { 80, 90-99 } redirect to :8080; }; }"
    )


def test_one_line_is_one_transaction() -> None:
    everything = replace(
        OPTIONS,
        exclude=("10.0.0.0/8", "2001:db8::/32"),
        prerouting=("br0", "veth1"),
        uid=1000,
        cgroup="a/b",
        include_loopback=True,
        admin=Endpoint("127.0.0.1", 9090),
        on_crash=OnCrash.OPEN,
        ipv6=False,
    )
    line = table_line(everything, 2, "unified/")
    assert "\n" not in line
    assert line.startswith('table inet sluicegate_8080 { flags owner; comment "sluice')
    assert 'meta skuid 1000 socket cgroupv2 level 2 "unified/a/b" tcp dport' in line
    assert 'iifname { "br0", "veth1" } tcp dport' in line
    assert "fib daddr type local tcp dport { 8080, 9090 } return" in line
    output, _, prerouting = line.partition("chain prerouting")
    for chain in (output, prerouting):
        assert "ip daddr { 10.0.0.0/8 } return; ip6 daddr { 2001:db8::/32 } return" in chain
        assert "meta nfproto ipv6 return" in chain
        assert chain.rstrip("; }").endswith("redirect to :8080")
    assert "skuid" not in prerouting  # a forwarded packet has no socket of this machine


def test_overlapping_networks_are_merged() -> None:
    line = table_line(replace(OPTIONS, exclude=("10.1.0.0/16", "10.0.0.0/8", "10.1.2.3")))
    assert "ip daddr { 10.0.0.0/8 } return" in line


def test_clearing() -> None:
    assert clear_line("t", owned=False) == "add table inet t; delete table inet t"
    assert clear_line("t", owned=True) == "delete table inet t"


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (
            "Operation not permitted (you must be root)\nnetlink: Error: cache initialization "
            "failed: Operation not permitted\n",
            "CAP_NET_ADMIN",
        ),
        ("/dev/stdin:1:1-9: Error: Could not process rule: Operation not permitted\n", "another"),
        ("/dev/stdin:1:1-9: Error: Could not process rule: No such file or directory", "nft_chain"),
        ("/dev/stdin:1:1-9: Error: Could not process rule: Operation not supported\n", "5.12"),
        ("/dev/stdin:1:1-9: Error: cgroupv2 path fails: No such file or directory\n", "cgroup"),
        ("netlink: Error: cache initialization failed: Protocol not supported\n", "nf_tables"),
        ("something new\n", "something new"),
        ("", "failed"),
    ],
)
def test_complaints_say_what_is_missing(stderr: str, words: str) -> None:
    assert words in str(explain(stderr))


@pytest.fixture
def fake_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `nft` that is a shell script, found first."""
    path = tmp_path / "nft"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


@linux
def test_nft_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_command, "_environment", lambda: {"PATH": "/nonexistent"})
    for start in (lambda: run("x"), TableOwner):
        with pytest.raises(RedirectError, match="not installed"):
            start()


@linux
def test_nft_does_not_answer(fake_nft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_command, "_SECONDS", 0.1)
    fake_nft.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    owner = TableOwner()
    with pytest.raises(NftTimeout):
        owner.apply("x")
    owner.close()
    assert not owner.alive
    fake_nft.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(NftTimeout):
        run("x")


@linux
def test_an_owner_that_ends_at_once(fake_nft: Path) -> None:
    fake_nft.write_text("#!/bin/sh\nread line\necho 'Error: no luck' >&2\nexit 1\n")
    owner = TableOwner()
    with pytest.raises(RedirectError, match="no luck"):
        owner.apply("x")
    owner.close()
    owner.close()


@linux
def test_the_environment_of_nft(fake_nft: Path) -> None:
    """No history file of `nft -i`, and English whatever the locale."""
    fake_nft.write_text('#!/bin/sh\necho "$HOME $LC_ALL"\n')
    assert run("x") == "/dev/null C\n"


@linux
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"listen": Endpoint("192.0.2.1", 8080)}, "listen on 127.0.0.1:8080"),
        ({"prerouting": ("br0",)}, r"listen on \[::\]:8080"),
        ({"listen": Endpoint("0.0.0.0", 8080)}, "takes no IPv6"),
        ({"listen": Endpoint("::1", 8080)}, "takes no IPv4"),
    ],
)
def test_a_listener_that_would_get_nothing_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(RedirectError, match=why):
        NftProvider(replace(OPTIONS, **changes)).install()  # type: ignore[arg-type]


@linux
def test_without_the_right_to_mark_nothing_is_installed(
    fake_nft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no")

    fake_nft.write_text(f"#!/bin/sh\ntouch {fake_nft}.called\n")
    monkeypatch.setattr(socket.socket, "setsockopt", refuse, raising=False)
    provider = NftProvider(OPTIONS)
    with pytest.raises(RedirectError, match=r"CAP_NET_ADMIN.*explicit needs no privileges"):
        provider.install()
    provider.remove()
    assert not Path(f"{fake_nft}.called").exists()


def test_other_systems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(RedirectError, match="Linux only"):
        NftProvider(OPTIONS).install()


def test_only_included_networks() -> None:
    """A family without a network in `include` is not captured at all."""
    four = table_line(replace(OPTIONS, include=("10.0.0.0/8",), exclude=("10.1.0.0/16",)))
    assert (
        "ip daddr { 10.1.0.0/16 } return; ip daddr != { 10.0.0.0/8 } return; "
        "meta nfproto ipv6 return;" in four
    )
    both = table_line(replace(OPTIONS, include=("10.0.0.0/8", "2001:db8::/32")))
    assert "ip6 daddr != { 2001:db8::/32 } return" in both
    assert "nfproto" not in both


def test_a_proxy_known_by_its_user_is_exempt_where_it_makes_connections() -> None:
    line = table_line(replace(OPTIONS, exempt_uid=15001, prerouting=("br0",)))
    output, _, prerouting = line.partition("chain prerouting")
    assert "meta skuid 15001 return" in output
    assert "skuid" not in prerouting
    with pytest.raises(RedirectError, match="root"):
        replace(OPTIONS, exempt_uid=0)
