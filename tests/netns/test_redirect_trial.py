"""`sluicegate redirect up --confirm`: nobody is locked out by a redirect that was a mistake."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ebpf import needs_ebpf
from tests.support.netns import Lab, needs_netns
from tests.support.redirect_verb import Verb, ended, flags, refused, routing

pytestmark = needs_netns()


@pytest.fixture(params=["nft", "tproxy"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def verb(net: Lab, tmp_path: Path) -> Iterator[Verb]:
    """On the router; nothing stays."""
    before = routing(net.router)
    made = Verb(net.router, tmp_path / "state")
    yield made
    made("down")
    assert routing(net.router) == before
    assert not list(made.state.glob("*"))


def test_a_redirect_that_nobody_confirms_goes_by_itself(
    net: Lab, verb: Verb, provider: str
) -> None:
    before = routing(net.router)
    told = verb.apart("up", *flags(provider), "--confirm", "3s")
    assert "s left for `sluicegate redirect confirm`" in told
    watcher = verb.watcher()
    assert refused(net.client, net.server_v4)
    assert ended(watcher)
    assert routing(net.router) == before
    assert verb.status() == []
    assert "no redirect is on trial" in verb("confirm", code=1)


def test_a_confirmed_redirect_stays(net: Lab, verb: Verb, provider: str) -> None:
    verb.apart("up", *flags(provider), "--confirm", "100s")
    watcher = verb.watcher()
    (one,) = verb.status()
    assert (one["state"], one["whole"]) == ("trial", True)
    assert "on trial" in verb("up", *flags(provider), code=1)
    assert "up: " in verb("confirm")
    assert ended(watcher)
    (one,) = verb.status()
    assert (one["state"], one["whole"]) == ("up", True)
    assert refused(net.client, net.server_v4)


def test_a_trial_ends_with_its_watcher_however_that_ends(
    net: Lab, verb: Verb, provider: str
) -> None:
    """The session is killed with everything in it: nobody is locked out."""
    verb.apart("up", *flags(provider), "--confirm", "100s")
    watcher = verb.watcher()
    children = Path(f"/proc/{watcher}/task/{watcher}/children").read_text().split()
    handles = [os.pidfd_open(int(pid)) for pid in children]
    os.kill(watcher, signal.SIGKILL)
    for handle in handles:  # nft, which holds the table
        with os.fdopen(handle) as file:
            assert select.select([file], [], [], 10.0)[0]
    assert net.router.ruleset() == ""
    assert verb.status(code=1)[0]["whole"] is False
    assert "over before" in verb("confirm", code=1)


def test_down_ends_a_trial(net: Lab, verb: Verb) -> None:
    verb.apart("up", *flags("tproxy"), "--confirm", "100s")
    watcher = verb.watcher()
    verb("down")
    assert ended(watcher)
    assert verb.status() == []


def test_a_trial_survives_the_terminal(net: Lab, verb: Verb) -> None:
    verb.apart("up", *flags("nft"), "--confirm", "100s")
    watcher = verb.watcher()
    assert os.getsid(watcher) == watcher
    for descriptor in (0, 1, 2):
        assert os.readlink(f"/proc/{watcher}/fd/{descriptor}") == "/dev/null"


@needs_ebpf()[1]
def test_programs_of_ebpf_on_trial(net: Lab, verb: Verb) -> None:
    """They are pinned nowhere before they are confirmed."""
    verb.apart("up", "--provider", "ebpf", "--confirm", "100s")
    watcher = verb.watcher()
    assert verb.status()[0]["whole"] is True
    assert refused(net.router, net.server_v4)
    os.kill(watcher, signal.SIGKILL)
    assert ended(watcher)
    assert verb.status(code=1)[0]["whole"] is False
    verb.apart("up", "--provider", "ebpf", "--confirm", "100s")
    verb("confirm")
    assert verb.status()[0]["state"] == "up"
    assert refused(net.router, net.server_v4)
