"""Who made a connection, from what the driver said and what Windows shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from proxy.model import Confidence, Endpoint, Principal
from proxy.redirect.context import ContextFlag, RedirectContext
from proxy.redirect.principal_windows import Ends, WindowsPrincipals
from proxy.redirect.winprocess import Processes, to_epoch
from proxy.redirect.wintcp import Connections
from tests.support.fake_windows import FakeWindows
from tests.support.fake_winprocess import ALICE, Connection

CLIENT, PROXY = Endpoint("127.0.0.1", 50001), Endpoint("127.0.0.1", 15001)
ENDS = Ends(CLIENT, PROXY)
START = 133_700_000_000_000_000
IMAGE = r"C:\Program Files\Näherei\näher.exe"
NT_PATH = r"\device\harddiskvolume3\program files\näherei\näher.exe"
FULL = ContextFlag.UTF16 | ContextFlag.FULL_PATH
SAID = RedirectContext(
    original=Endpoint("192.0.2.9", 443),
    source=CLIENT,
    pid=40,
    process_start=START,
    uid=None,
    sid=ALICE,
    group_id=999,
    space=1,
    application=NT_PATH,
    flags=FULL,
)
SYSTEM_SID = bytes([1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0])  # S-1-5-18


@pytest.fixture
def system() -> Iterator[FakeWindows]:
    """No handle and no memory of Windows is kept, whatever was asked."""
    found = FakeWindows()
    found.processes.start(40, image=IMAGE, nt_path=NT_PATH, created=START, package="Some.App_abc")
    yield found
    assert found.processes.open_handles == {}
    assert found.processes.allocated == {}


def principals(system: FakeWindows) -> WindowsPrincipals:
    return WindowsPrincipals(Processes(system.libraries), Connections(system.libraries))


def test_the_process_that_connected_is_still_there(system: FakeWindows) -> None:
    assert principals(system).look_up(SAID, ENDS) == Principal(
        pid=40,
        process_start=to_epoch(START),
        exe=IMAGE,
        user=r"WORKSTATION\alice",
        package="Some.App_abc",
        confidence=Confidence.EXACT,
    )


def test_a_process_without_a_package_is_known_to_have_none(system: FakeWindows) -> None:
    system.processes.start(40, created=START)
    assert principals(system).look_up(SAID, ENDS).package == ""


@pytest.mark.parametrize("gone", ["ended", "replaced"])
def test_a_process_that_has_gone_is_what_the_driver_said(system: FakeWindows, gone: str) -> None:
    """Another process that got the pid is never taken for it."""
    del system.processes.running[40]
    if gone == "replaced":
        system.processes.start(40, image=r"C:\innocent.exe", created=START + 1)
    assert principals(system).look_up(SAID, ENDS) == Principal(
        pid=40,
        process_start=to_epoch(START),
        exe=r"C:\program files\näherei\näher.exe",  # the driver's path, with its drive put back
        user=r"WORKSTATION\alice",
        confidence=Confidence.LIKELY,
    )


def test_a_path_on_no_drive_stays_as_it_is(system: FakeWindows) -> None:
    del system.processes.running[40]
    share = replace(SAID, application=r"\device\mup\server\share\a.exe")
    found = principals(system)
    assert found.look_up(share, ENDS).exe == r"\device\mup\server\share\a.exe"
    near = replace(SAID, application=r"\device\harddiskvolume30\a.exe")
    assert found.look_up(near, ENDS).exe == r"\device\harddiskvolume30\a.exe"


def test_a_short_name_is_no_path(system: FakeWindows) -> None:
    said = replace(SAID, pid=4, application="System", flags=ContextFlag.UTF16, sid=b"")
    found = principals(system).look_up(said, ENDS)
    assert (found.exe, found.comm, found.confidence) == (None, "System", Confidence.LIKELY)


def test_a_pid_without_a_start_time_is_likely_only(system: FakeWindows) -> None:
    said = replace(SAID, process_start=0, sid=b"", application="", flags=ContextFlag(0))
    found = principals(system).look_up(said, ENDS)
    assert (found.exe, found.user) == (IMAGE, r"WORKSTATION\alice")
    assert found.confidence is Confidence.LIKELY


def test_a_protected_process_is_what_the_driver_said(system: FakeWindows) -> None:
    system.processes.running[40].protected = True
    found = principals(system).look_up(SAID, ENDS)
    assert (found.exe, found.confidence) == (r"C:\program files\näherei\näher.exe", "likely")


def test_the_connecting_thread_may_act_for_somebody_else(system: FakeWindows) -> None:
    """The driver's SID counts, not that of the process' token."""
    system.processes.running[40].sid = SYSTEM_SID
    assert principals(system).look_up(SAID, ENDS).user == r"WORKSTATION\alice"


def test_an_account_without_a_name_is_its_sid(system: FakeWindows) -> None:
    system.processes.accounts.clear()
    assert principals(system).look_up(SAID, ENDS).user == "S-1-5-21-1-2-3-1001"
    assert principals(system).look_up(replace(SAID, sid=SYSTEM_SID), ENDS).user == "S-1-5-18"


def test_a_sid_that_is_none_is_nobody(system: FakeWindows) -> None:
    assert principals(system).look_up(replace(SAID, sid=b"\x09" + ALICE[1:]), ENDS).user is None


# --- what is kept


def test_what_is_known_is_not_looked_up_again(system: FakeWindows) -> None:
    found = principals(system)
    assert found.known(SAID) is None
    first = found.look_up(SAID, ENDS)
    system.calls.clear()
    assert found.known(SAID) == first
    asked = [call.split("(")[0] for call in system.calls]
    assert asked == ["OpenProcess", "GetProcessTimes", "CloseHandle"]


def test_what_is_known_of_a_pid_ends_with_its_process(system: FakeWindows) -> None:
    found = principals(system)
    found.look_up(SAID, ENDS)
    system.processes.start(40, created=START + 1)
    assert found.known(SAID) is None
    del system.processes.running[40]
    assert found.known(SAID) is None


def test_another_account_in_the_same_process_is_looked_up(system: FakeWindows) -> None:
    found = principals(system)
    found.look_up(SAID, ENDS)
    assert found.known(replace(SAID, sid=SYSTEM_SID)) is None


# --- the table of connections

NOBODY = replace(SAID, pid=0, process_start=0, sid=b"", application="")


def rows(system: FakeWindows, *found: Connection) -> None:
    system.processes.connections = list(found)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_without_a_pid_the_owner_of_the_connection(system: FakeWindows, host: str) -> None:
    other = Connection((host, 50002), (host, 15001), 41)
    rows(system, other, Connection((host, 50001), (host, 15001), 40))
    ends = Ends(Endpoint(host, 50001), Endpoint(host, 15001))
    found = principals(system).look_up(NOBODY, ends)
    assert (found.pid, found.exe, found.confidence) == (40, IMAGE, Confidence.LIKELY)


def test_two_connections_from_one_port_are_told_apart_by_where_they_go(
    system: FakeWindows,
) -> None:
    local = ("127.0.0.1", 50001)
    elsewhere = Connection(local, ("192.0.2.1", 80), 41)
    rows(system, elsewhere, Connection(local, ("127.0.0.1", 15001), 40))
    assert principals(system).look_up(NOBODY, ENDS).pid == 40
    rows(system, elsewhere, Connection(local, ("192.0.2.2", 80), 42))
    assert principals(system).look_up(NOBODY, ENDS) == Principal()  # it cannot be settled


def test_a_connection_that_has_ended_has_no_owner(system: FakeWindows) -> None:
    rows(system, Connection(("127.0.0.1", 50001), ("127.0.0.1", 15001), 40, state=11))
    assert principals(system).look_up(NOBODY, ENDS) == Principal()


def test_an_owner_that_cannot_be_looked_at_is_its_pid(system: FakeWindows) -> None:
    rows(system, Connection(("127.0.0.1", 50001), ("127.0.0.1", 15001), 77))
    assert principals(system).look_up(NOBODY, ENDS) == Principal(
        pid=77, confidence=Confidence.LIKELY
    )


def test_a_table_that_grows_meanwhile_is_read_again(system: FakeWindows) -> None:
    rows(system, Connection(("127.0.0.1", 50001), ("127.0.0.1", 15001), 40))
    many = [Connection(("127.0.0.1", port), ("192.0.2.1", 80), 41) for port in range(1, 1000)]
    system.processes.new_connections = many
    assert principals(system).look_up(NOBODY, ENDS).pid == 40


# --- this process itself


@pytest.mark.parametrize("elevated", [True, False])
def test_whether_we_are_an_administrator(system: FakeWindows, elevated: bool) -> None:
    system.processes.elevated = elevated
    assert Processes(system.libraries).elevated() is elevated
