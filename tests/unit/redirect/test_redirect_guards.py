"""A destination that is the proxy itself is refused, whatever way it is written."""

from __future__ import annotations

import socket

import psutil
import pytest

from proxy.model import Endpoint
from proxy.redirect.guards import SelfGuard, local_addresses, own_address

OWN = [Endpoint("127.0.0.1", 8080), Endpoint("127.0.0.1", 9090)]
LOCAL = frozenset({"127.0.0.1", "::1", "192.0.2.5", "2001:db8::5", "fe80::5"})


@pytest.mark.parametrize("port", [8080, 9090])
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.8.7",
        "0.0.0.0",
        "192.0.2.5",
        "::",
        "::1",
        "0:0::1",
        "2001:db8::5",
        "fe80::5",
        "fe80::5%eth0",
        "::ffff:127.0.0.1",
        "::ffff:192.0.2.5",
    ],
)
def test_our_ports_on_any_address_of_this_machine(host: str, port: int) -> None:
    problem = SelfGuard(OWN, lambda: LOCAL).check(Endpoint(host, port))
    assert problem is not None
    assert "this proxy itself" in problem


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("127.0.0.1", 80),
        Endpoint("192.0.2.6", 8080),
        Endpoint("2001:db8::6", 8080),
        Endpoint("localhost", 8080),  # judged by address, once it is resolved
    ],
)
def test_anything_else_may_be_dialled(endpoint: Endpoint) -> None:
    assert SelfGuard(OWN, lambda: LOCAL).check(endpoint) is None


def test_the_rule_is_a_pure_function() -> None:
    ports = frozenset({8080})
    assert own_address(Endpoint("192.0.2.5", 8080), ports, LOCAL)
    assert not own_address(Endpoint("192.0.2.5", 8080), ports, frozenset())
    assert not own_address(Endpoint("192.0.2.5", 80), ports, LOCAL)


def test_addresses_are_asked_for_only_when_needed_and_again_when_old() -> None:
    now, asked = [0.0], []

    def addresses() -> frozenset[str]:
        asked.append(now[0])
        return frozenset({"192.0.2.5"}) if now[0] < 60 else frozenset({"192.0.2.6"})

    guard = SelfGuard(OWN, addresses, lambda: now[0])
    guard.check(Endpoint("192.0.2.5", 80))
    assert asked == []
    for _ in range(3):
        assert guard.check(Endpoint("192.0.2.5", 8080))
    assert asked == [0.0]
    now[0] = 60.0  # the machine has got another address
    assert guard.check(Endpoint("192.0.2.6", 8080))
    assert guard.check(Endpoint("192.0.2.5", 8080)) is None
    assert asked == [0.0, 60.0]


def test_a_port_that_is_not_known_yet_guards_nothing() -> None:
    assert SelfGuard([Endpoint("127.0.0.1", 0)], lambda: LOCAL).check(OWN[0]) is None


def test_this_machines_addresses_are_found() -> None:
    found = local_addresses()
    assert "127.0.0.1" in found
    addresses = [a for all_ in psutil.net_if_addrs().values() for a in all_]
    for address in addresses:
        if address.family in (socket.AF_INET, socket.AF_INET6):
            assert address.address.partition("%")[0] in found
    assert not any("%" in address for address in found)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.8.7", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("192.0.2.5", True),
        ("2001:db8::5", True),
        ("192.0.2.6", False),
        ("a.test", None),
    ],
)
def test_what_is_this_machine_whatever_the_port(host: str, local: bool | None) -> None:
    assert SelfGuard(OWN, lambda: LOCAL).is_local(Endpoint(host, 443)) is local


def test_addresses_are_looked_up_again_after_five_seconds() -> None:
    now, addresses = [100.0], [frozenset({"192.0.2.5"})]
    guard = SelfGuard([], lambda: addresses[0], lambda: now[0])
    assert guard.is_local(Endpoint("192.0.2.6", 1)) is False
    addresses[0] = frozenset({"192.0.2.6"})
    assert guard.is_local(Endpoint("192.0.2.6", 1)) is False
    now[0] += 5.0
    assert guard.is_local(Endpoint("192.0.2.6", 1)) is True
