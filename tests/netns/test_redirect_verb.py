"""`sluicegate redirect`: made, seen and taken down apart from any proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.netns import Lab, listening, needs_netns
from tests.support.nft import reaches
from tests.support.redirect_verb import PORT, Verb, flags, refused, routing

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


def test_up_stays_and_down_removes_exactly_it(net: Lab, verb: Verb, provider: str) -> None:
    net.router.run("nft", "add table inet foreign { chain c { tcp dport 1 accept; }; }")
    before = routing(net.router)
    with listening(net.server, net.server_v4, 80) as server:
        told = verb.apart("up", *flags(provider))
        assert f"up: {provider} to [::]:{PORT}" in told
        assert "nobody listens there" in told
        assert refused(net.client, net.server_v4)
        assert verb.status()[0]["whole"] is True
        verb("up", *flags(provider), "--ports", "443")  # again, and otherwise
        assert reaches(net.client, server, net.server_v4, 80)
        assert "removed" in verb("down")
        assert routing(net.router) == before
        assert "nothing is installed" in verb("down")
        assert verb.status() == []
    net.router.run("nft", "delete", "table", "inet", "foreign")


@pytest.mark.parametrize("damage", ["nft flush ruleset", "nft flush chain inet {table} {chain}"])
def test_status_tells_whether_it_is_whole(net: Lab, verb: Verb, provider: str, damage: str) -> None:
    verb("up", *flags(provider))
    words = damage.format(table=f"sluicegate_{PORT}", chain="prerouting")
    net.router.run(*words.split())
    (one,) = verb.status(code=1)
    assert one["whole"] is False
    assert "somebody" in one["detail"]
    verb("up", *flags(provider))
    assert verb.status()[0]["whole"] is True


def test_scopes(net: Lab, verb: Verb) -> None:
    verb(
        "up", "--uid", "nobody", "--ports", "80,8000-8100", "--exclude", "10.77.1.0/24",
        "--include", "10.0.0.0/8", "--exempt-uid", "daemon",
    )  # fmt: skip
    rules = net.router.ruleset()
    for part in ("skuid 65534", "80, 8000-8100", "10.77.1.0/24", "!= 10.0.0.0/8", "skuid 1 return"):
        assert part in rules
    assert "uid 65534" in verb.status()[0]["scope"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ("--provider tproxy", 1, "redirect.prerouting"),
        ("--uid no-such-user", 2, "no user"),
        ("--ports 0", 2, "--ports"),
        ("--listen 127.0.0.1:0", 2, "--listen"),
        ("--set redirect.on_crash=open", 2, "on_crash"),
        ("--set redirect.provider=explicit", 1, "only nft, tproxy and ebpf"),
        ("--cgroup no/such.slice", 1, "no cgroup"),
        ("--confirm soon", 2, "--confirm"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    verb: Verb, words: str, code: int, complaint: str
) -> None:
    before = routing(verb.space)
    assert complaint in verb("up", *words.split(), code=code)
    assert routing(verb.space) == before
    assert verb.status() == []


def test_another_redirect_to_the_same_listener_is_not_overwritten(net: Lab, verb: Verb) -> None:
    verb("up", *flags("nft"))
    assert "sluicegate redirect down" in verb("up", *flags("tproxy"), code=1)
    assert verb.status()[0]["provider"] == "nft"
    verb("up", "--listen", "[::]:15002", "--provider", "tproxy", "--prerouting", "inside")
    assert len(verb.status()) == 2
    verb("down", "--listen", "[::]:15002")
    assert [one["listen"] for one in verb.status()] == [f"[::]:{PORT}"]


def test_a_change_that_fails_leaves_what_was_in_force(net: Lab, verb: Verb, provider: str) -> None:
    """Nobody meant to open the way."""
    verb("up", *flags(provider))
    before = routing(net.router)
    verb("up", *flags(provider)[:-1], f"0.0.0.0:{PORT}", code=1)  # IPv6 has no listener
    assert routing(net.router) == before
    (one,) = verb.status()
    assert (one["listen"], one["whole"]) == (f"[::]:{PORT}", True)
