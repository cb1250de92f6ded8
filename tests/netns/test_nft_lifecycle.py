"""An nftables redirect comes, goes, and outlives its proxy or not, as it was told."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.errors import RedirectError
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import OnCrash
from tests.support.netns import Lab, Namespace, connect, listening, needs_netns
from tests.support.nft import OPTIONS, installed

pytestmark = needs_netns()


@pytest.mark.parametrize("on_crash", OnCrash)
def test_install_and_remove_again_are_harmless(net: Lab, on_crash: OnCrash) -> None:
    provider = NftProvider(replace(OPTIONS, on_crash=on_crash))
    net.client.call(provider.remove)
    assert not net.client.call(provider.health).ok
    for _ in range(2):
        net.client.call(provider.install)
        once = net.client.ruleset()
        net.client.call(provider.install)
        assert net.client.ruleset() == once
        assert once.count("redirect to :8080") == 1
        assert net.client.call(provider.health).ok
        net.client.call(provider.remove)
        net.client.call(provider.remove)
        assert net.client.ruleset() == ""


def test_other_peoples_rules_are_not_touched(net: Lab) -> None:
    net.client.run("nft", "add table inet foreign { chain c { tcp dport 1 accept; }; }")
    before = net.client.ruleset()
    with installed(net.client, OPTIONS):
        assert "foreign" in net.client.ruleset()
    assert net.client.ruleset() == before
    net.client.run("nft", "delete", "table", "inet", "foreign")


# --- when the proxy dies ---------------------------------------------------------------------

_VICTIM = """
import sys, signal
from proxy.model import Endpoint
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import OnCrash, RedirectOptions
NftProvider(RedirectOptions(Endpoint("127.0.0.1", 8080), on_crash=OnCrash(sys.argv[1]))).install()
print("installed", flush=True)
signal.pause()
"""


def kill_one(space: Namespace, on_crash: OnCrash) -> None:
    """A process that installs the redirect is killed; returns when its children are gone too."""
    victim = space.popen(sys.executable, "-c", _VICTIM, on_crash, stdout=subprocess.PIPE)
    with victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"installed\n"
        assert "redirect to :8080" in space.ruleset()
        children = Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split()
        waiting = [os.pidfd_open(int(pid)) for pid in children]
        victim.send_signal(signal.SIGKILL)
        for handle in waiting:
            wait_for_end(handle)


def wait_for_end(pidfd: int) -> None:
    try:
        assert select.select([pidfd], [], [], 5.0)[0], "nft outlived its proxy"
    finally:
        os.close(pidfd)


def test_on_crash_open_the_redirect_vanishes_with_the_process(net: Lab) -> None:
    kill_one(net.client, OnCrash.OPEN)
    assert net.client.ruleset() == ""


def test_on_crash_closed_the_redirect_stays_until_the_next_proxy_takes_it_over(net: Lab) -> None:
    kill_one(net.client, OnCrash.CLOSED)
    with listening(net.server, net.server_v4, 80), pytest.raises(ConnectionRefusedError):
        connect(net.client, net.server_v4, 80)
    with installed(net.client, replace(OPTIONS, on_crash=OnCrash.OPEN)):
        assert net.client.ruleset().count("redirect to :8080") == 1


def test_a_table_that_another_live_proxy_owns_is_not_taken(net: Lab) -> None:
    owned = replace(OPTIONS, on_crash=OnCrash.OPEN)
    with installed(net.client, owned) as first:
        second = NftProvider(owned)
        with pytest.raises(RedirectError, match="another live process"):
            net.client.call(second.install)
        net.client.call(second.remove)
        assert net.client.call(first.health).ok


def test_health_tells_when_the_redirect_is_gone(net: Lab) -> None:
    with installed(net.client, OPTIONS) as provider:
        net.client.run("nft", "flush", "ruleset")
        health = net.client.call(provider.health)
        assert not health.ok
        assert "removed by somebody else" in health.detail
        net.client.call(provider.install)
        assert net.client.call(provider.health).ok


def test_health_tells_when_the_owner_has_died_and_install_mends_it(net: Lab) -> None:
    with installed(net.client, replace(OPTIONS, on_crash=OnCrash.OPEN)) as provider:
        for pid in net.client.run("ip", "netns", "pids", net.client.name).split():
            with contextlib.suppress(ProcessLookupError):  # the asking `ip` itself
                handle = os.pidfd_open(int(pid))
                os.kill(int(pid), signal.SIGKILL)
                wait_for_end(handle)
        assert "has ended" in net.client.call(provider.health).detail
        net.client.call(provider.install)
        assert net.client.call(provider.health).ok


def test_an_interrupt_from_the_terminal_does_not_open_the_redirect(net: Lab) -> None:
    """Ctrl-C goes to the whole foreground group; the proxy drains behind the redirect."""
    victim = net.client.popen(
        sys.executable, "-c", _VICTIM, OnCrash.OPEN, stdout=subprocess.PIPE, start_new_session=True
    )
    with victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"installed\n"
        children = Path(f"/proc/{victim.pid}/task/{victim.pid}/children").read_text().split()
        assert [os.getsid(int(pid)) == victim.pid for pid in children] == [False]
        waiting = [os.pidfd_open(int(pid)) for pid in children]
        victim.kill()
        for handle in waiting:
            wait_for_end(handle)


def test_without_privileges_it_says_so(net: Lab) -> None:
    as_nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all")
    said = net.client.run(*as_nobody, sys.executable, "-c", _REFUSED)
    assert "CAP_NET_ADMIN" in said


_REFUSED = """
from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import RedirectOptions
try:
    NftProvider(RedirectOptions(Endpoint("127.0.0.1", 8080))).install()
except RedirectError as error:
    print(error)
"""
