"""WFP's control codes through the real ctypes declarations, answered by the fake."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest

from proxy.errors import WinApiError
from proxy.redirect import winapi
from proxy.redirect.winapi import Winsock
from tests.support.fake_windows import FakeWindows
from tests.support.fake_winsock import TooSmall
from tests.support.winsock_facts import ERRORS, Fact, fact

CONTEXT = winapi.SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT
RECORDS = winapi.SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS
SET = winapi.SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS


class World(NamedTuple):
    system: FakeWindows
    winsock: Winsock
    accepted: socket.socket
    records: bytes
    context: bytes


@pytest.fixture
def world() -> Iterator[World]:
    """A redirected connection, accepted."""
    system = FakeWindows()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        system.driver.proxy_port = listener.getsockname()[1]
        with system.driver.connect(("192.0.2.9", 443), 7), listener.accept()[0] as accepted:
            (captured,) = system.driver.captured.values()
            assert captured.context is not None
            winsock = Winsock(system.libraries)
            yield World(system, winsock, accepted, captured.records, captured.context)


def test_records_and_context_are_those_of_the_connection(world: World) -> None:
    assert world.winsock.query(world.accepted.fileno(), RECORDS) == world.records
    assert world.winsock.query(world.accepted.fileno(), CONTEXT) == world.context


@pytest.mark.parametrize("too_small", TooSmall)
@pytest.mark.parametrize("size", [1023, 1024, 1025, 5000, 65536])
def test_the_buffer_grows_whatever_windows_says_of_a_small_one(
    world: World, too_small: TooSmall, size: int
) -> None:
    """The pages contradict each other; each reading has to do."""
    world.system.winsock.too_small = too_small
    world.system.winsock.grow_by = size - len(world.records)
    found = world.winsock.query(world.accepted.fileno(), RECORDS)
    assert found == world.records.ljust(size, b"\0")


def test_a_told_size_is_asked_for_once(world: World) -> None:
    world.system.winsock.grow_by = 40000 - len(world.records)
    world.winsock.query(world.accepted.fileno(), RECORDS)
    assert [call.partition("out=")[2] for call in world.system.calls] == [
        "1024) -> error 0x7a",
        "40000) -> 0",
    ]


@pytest.mark.parametrize("too_small", TooSmall)
def test_data_without_end_are_refused(world: World, too_small: TooSmall) -> None:
    world.system.winsock.too_small = too_small
    world.system.winsock.grow_by = 65536
    with pytest.raises(WinApiError, match="SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: "):
        world.winsock.query(world.accepted.fileno(), RECORDS)
    assert len(world.system.calls) <= 4


@pytest.mark.parametrize("error", ERRORS, ids=lambda row: row.name)
@pytest.mark.parametrize("code", [CONTEXT, RECORDS, SET], ids=["context", "records", "set"])
def test_every_documented_error_is_told_in_its_own_words(
    world: World, error: Fact, code: int
) -> None:
    world.system.winsock.broken[code] = error.name
    ask = {SET: partial(world.winsock.set_records, records=b"x")}.get(
        code, partial(world.winsock.query, code=code)
    )
    with pytest.raises(WinApiError) as found:
        ask(world.accepted.fileno())
    assert found.value.code == error.value
    assert winapi.SENTENCES[error.value] in str(found.value)


def test_an_error_that_no_page_knows_keeps_its_number(world: World) -> None:
    assert str(winapi.failed("X", 87)) == "X: Windows gives no documented reason, error 87"
    assert str(winapi.failed("X", 0x80320009)).endswith("error 0x80320009")


def test_who_was_not_redirected_has_neither(world: World) -> None:
    world.system.driver.captured.clear()
    for code in (CONTEXT, RECORDS):
        with pytest.raises(WinApiError) as found:
            world.winsock.query(world.accepted.fileno(), code)
        assert found.value.code == winapi.FWP_E_NOT_FOUND  # unsigned, as it is printed


def test_a_socket_that_is_not_connected_and_none_at_all(world: World) -> None:
    with socket.socket() as idle, pytest.raises(WinApiError, match="the client has left"):
        world.winsock.query(idle.fileno(), CONTEXT)
    with pytest.raises(WinApiError, match="not a socket"):
        world.winsock.query(2**40, CONTEXT)  # a SOCKET has 64 bits, and none is lost on the way


def test_records_go_onto_a_new_socket_only(world: World) -> None:
    with socket.socket() as new:
        world.winsock.set_records(new.fileno(), world.records)
        new.bind(("127.0.0.1", 0))
        assert world.system.winsock.records_of(new.getsockname()) == world.records
        with pytest.raises(WinApiError, match="not acceptable"):
            world.winsock.set_records(new.fileno(), world.records)


def test_without_privileges_records_are_refused(world: World) -> None:
    world.system.winsock.privileged = False
    with socket.socket() as new, pytest.raises(WinApiError, match="run the proxy elevated"):
        world.winsock.set_records(new.fileno(), world.records)


@pytest.mark.parametrize("records", [b"", b"something else"])
def test_records_that_windows_has_not_given_are_refused(world: World, records: bytes) -> None:
    with socket.socket() as new, pytest.raises(WinApiError) as found:
        world.winsock.set_records(new.fileno(), records)
    assert found.value.code == fact("WSAEINVAL")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_original_destination_for_the_host_network_service(host: str) -> None:
    system, six = FakeWindows(), ":" in host
    destination = ("2001:db8::9" if six else "192.0.2.9", 8443)
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        system.driver.proxy_port = listener.getsockname()[1]
        with system.driver.connect(destination), listener.accept()[0] as accepted:
            winsock = Winsock(system.libraries)
            found = winsock.original_destination(accepted.fileno(), six=six)
            assert len(found) == (28 if six else 16)
            assert int.from_bytes(found[:2], "little") == (23 if six else 2)
            with pytest.raises(WinApiError, match="protocol of this socket"):
                winsock.original_destination(accepted.fileno(), six=not six)
