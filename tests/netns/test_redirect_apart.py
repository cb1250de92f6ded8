"""A proxy on a redirect that `sluicegate redirect up` made: it uses it, and leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ebpf import needs_ebpf
from tests.support.netns import Lab, needs_netns
from tests.support.redirect_verb import PORT, Verb, flags, get, proxy, refused, routing, web

NOBODY = 65534

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


def test_a_proxy_uses_what_up_has_made_and_leaves_it(net: Lab, verb: Verb, provider: str) -> None:
    verb("up", *flags(provider), "--set", "redirect.keep_client_address=true")
    made = routing(net.router)
    settings = (
        "--redirect", provider, "--listen", f"[::]:{PORT}", "--set", "redirect.prerouting=inside",
        "--set", "redirect.keep_client_address=true",
    )  # fmt: skip
    with web(net.server):
        with proxy(net.router, *settings):
            for host, client, router in (
                (net.server_v4, net.client_v4, "10.77.2.1"),
                (f"[{net.server_v6}]", net.client_v6, "fd77:2::1"),
            ):
                seen = client if provider == "tproxy" else router
                assert get(net.client, f"http://{host}/") == (200, seen)
                assert get(net.client, f"http://{host}/admin")[0] == 403
            assert "nobody" not in verb.apart("status")
        assert routing(net.router) == made
        assert refused(net.client, net.server_v4)
        verb("down")
        assert get(net.client, f"http://{net.server_v4}/admin") == (200, net.client_v4)


def test_an_unprivileged_proxy_behind_a_redirect_that_root_made(net: Lab, tmp_path: Path) -> None:
    """It cannot mark its connections: the rules know it by its user."""
    verb = Verb(net.client, tmp_path / "state")
    try:
        verb("up", "--exempt-uid", "nobody")
        settings = ("--redirect", "nft", "--set", f"redirect.exempt_uid={NOBODY}")
        with web(net.server), proxy(net.client, *settings, uid=NOBODY):
            assert get(net.client, f"http://{net.server_v4}/") == (200, net.client_v4)
            assert get(net.client, f"http://{net.server_v4}/admin")[0] == 403
    finally:
        verb("down")


def test_a_proxy_that_could_not_tell_its_own_connections_does_not_start(net: Lab) -> None:
    with pytest.raises(AssertionError, match=r"redirect\.exempt_uid"):
        with proxy(net.client, "--redirect", "nft", uid=NOBODY):
            pass


@needs_ebpf()[1]
def test_programs_of_ebpf_stay_for_the_proxy(net: Lab, verb: Verb) -> None:
    verb.apart("up", "--provider", "ebpf")
    host = net.server_v4
    with web(net.server):
        assert refused(net.router, host)
        for _ in range(2):
            with proxy(net.router, "--redirect", "ebpf"):
                assert get(net.router, f"http://{host}/")[0] == 200
                assert get(net.router, f"http://[{net.server_v6}]/admin")[0] == 403
            assert refused(net.router, host)
            assert verb.status()[0]["whole"] is True
        verb("down")
        assert get(net.router, f"http://{host}/admin")[0] == 200
