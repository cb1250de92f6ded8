"""What a provider may be told, and what is refused before it reaches the kernel."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions, Unredirected
from proxy.redirect.registry import make_provider

LISTEN = Endpoint("127.0.0.1", 8080)


def test_the_defaults_are_a_cautious_redirect() -> None:
    options = RedirectOptions(LISTEN)
    assert options.unredirected is Unredirected.REFUSE
    assert options.on_crash is OnCrash.CLOSED
    assert not options.include_loopback
    assert PortRange(80, 80) in options.ports
    assert PortRange(22, 22) not in options.ports
    assert options.table == "sluicegate_8080"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(80, (80, 80)), ("443", (443, 443)), ("8000-8100", (8000, 8100)), (65535, (65535, 65535))],
)
def test_ports(value: int | str, expected: tuple[int, int]) -> None:
    assert PortRange.parse(value) == expected
    assert PortRange.parse(str(PortRange.parse(value))) == expected


@pytest.mark.parametrize("value", [0, 65536, -1, "", "http", "80-", "-80", "90-80", "1-2-3", "٣"])
def test_what_is_no_port(value: int | str) -> None:
    with pytest.raises(ValueError, match="is not a TCP port"):
        PortRange.parse(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"nft_table": "a b"},
        {"nft_table": "x; flush ruleset"},
        {"prerouting": ('eth0" accept',)},
        {"prerouting": ("",)},
        {"prerouting": ("a" * 16,)},
        {"cgroup": "/absolute"},
        {"cgroup": "a/../b"},
        {"cgroup": 'a"b'},
        {"cgroup": ""},
        {"exclude": ("10.0.0.0/33",)},
        {"exclude": ("example.com",)},
        {"mark": 0},
        {"mark": 2**32},
        {"ports": ()},
    ],
)
def test_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RedirectError):
        RedirectOptions(LISTEN, **wrong)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RedirectOptions(LISTEN).mark = 1  # type: ignore[misc]


def test_an_unknown_provider_is_refused_with_those_that_exist() -> None:
    with pytest.raises(RedirectError, match=r"'wfq'.*explicit, nft"):
        make_provider("wfq", RedirectOptions(LISTEN))


def test_static_needs_an_upstream() -> None:
    with pytest.raises(RedirectError, match="--upstream"):
        make_provider("static", RedirectOptions(LISTEN))
