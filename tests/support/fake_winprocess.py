"""Fake processes, tokens, accounts and the TCP table. Written from the pages in winsock_facts."""

from __future__ import annotations

import ctypes
import ipaddress
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.winsock_facts import (
    MIB_TCP6ROW_OWNER_PID,
    MIB_TCPROW_OWNER_PID,
    TOKEN_ELEVATION,
    TOKEN_USER,
    fact,
)

Fail = Callable[[str | int, int], int]
_CURRENT_PROCESS = 2**64 - 1  # GetCurrentProcess: "a pseudo handle … (HANDLE)-1"
_ESTABLISHED = 5  # MIB_TCP_STATE_ESTAB
#: S-1-5-21-1-2-3-1001, as win32/api/winnt/ns-winnt-sid lays it out.
ALICE = bytes([1, 5, 0, 0, 0, 0, 0, 5]) + b"".join(
    number.to_bytes(4, "little") for number in (21, 1, 2, 3, 1001)
)


@dataclass
class Process:
    """A running program."""

    pid: int
    image: str = r"C:\Windows\System32\curl.exe"
    nt_path: str = r"\device\harddiskvolume3\windows\system32\curl.exe"
    created: int = 133_700_000_000_000_000  #: FILETIME
    sid: bytes = ALICE
    package: str | None = None
    protected: bool = False  #: OpenProcess answers ERROR_ACCESS_DENIED


@dataclass
class Connection:
    """A row of the TCP table."""

    local: tuple[str, int]
    remote: tuple[str, int]
    pid: int
    state: int = _ESTABLISHED


class Processes:
    """kernel32, advapi32 and iphlpapi as far as the providers use them."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail
        self.running: dict[int, Process] = {}
        self.accounts: dict[bytes, tuple[str, str]] = {ALICE: ("WORKSTATION", "alice")}
        self.connections: list[Connection] = []
        self.new_connections: list[Connection] = []  #: appear after the next size query
        self.drives = {"C:": "\\Device\\HarddiskVolume3"}
        self.directory = threading.Event()  #: set: the domain controller answers
        self.directory.set()
        self.elevated = True  #: of this process itself
        self.open_handles: dict[int, object] = {}
        self.allocated: dict[int, Any] = {}  #: what LocalFree has to be called for
        self._next = 0x100

    def start(self, pid: int, **facts: Any) -> Process:
        """A program starts (or another one gets the pid)."""
        self.running[pid] = Process(pid, **facts)
        return self.running[pid]

    # --- kernel32

    def OpenProcess(self, access: int, inherit: int, pid: int) -> int:
        process = self.running.get(pid)
        if process is None:
            return self._fail("ERROR_INVALID_PARAMETER", 0)
        if process.protected or access != fact("PROCESS_QUERY_LIMITED_INFORMATION"):
            return self._fail("ERROR_ACCESS_DENIED", 0)
        return self._handle(process)

    def CloseHandle(self, handle: int | None) -> int:
        if self.open_handles.pop(handle or 0, None) is None:
            return self._fail("ERROR_INVALID_HANDLE", 0)
        return 1

    def GetCurrentProcess(self) -> int:
        return _CURRENT_PROCESS

    def GetProcessTimes(self, handle: int, created: int, ended: int, kernel: int, user: int) -> int:
        process = self._process(handle)
        if process is None or not all((created, ended, kernel, user)):
            return self._fail("ERROR_INVALID_HANDLE", 0)
        ctypes.c_uint32.from_address(created).value = process.created & 0xFFFFFFFF
        ctypes.c_uint32.from_address(created + 4).value = process.created >> 32
        for address in (ended, kernel, user):
            ctypes.memset(address, 0, 8)
        return 1

    def QueryFullProcessImageNameW(self, handle: int, flags: int, name: int, size: int) -> int:
        process = self._process(handle)
        if process is None:
            return self._fail("ERROR_INVALID_HANDLE", 0)
        text = process.nt_path if flags == 1 else process.image  # PROCESS_NAME_NATIVE
        room = ctypes.c_uint32.from_address(size)
        if room.value < len(text) + 1:
            return self._fail("ERROR_INSUFFICIENT_BUFFER", 0)
        _write_text(name, text)
        room.value = len(text)  # "not including the null-terminating character"
        return 1

    def GetPackageFamilyName(self, handle: int, length: int, name: int | None) -> int:
        """Returns the error itself, not a BOOL."""
        process = self._process(handle)
        if process is None:
            return fact("ERROR_INVALID_HANDLE")
        if process.package is None:
            return fact("APPMODEL_ERROR_NO_PACKAGE")
        room = ctypes.c_uint32.from_address(length)
        too_small = room.value < len(process.package) + 1
        room.value = len(process.package) + 1  # "including the null-terminator"
        if name is None or too_small:
            return fact("ERROR_INSUFFICIENT_BUFFER")
        _write_text(name, process.package)
        return fact("ERROR_SUCCESS")

    def QueryDosDeviceW(self, device: int, target: int, characters: int) -> int:
        """Strings, each with its NUL, and one NUL more; the number of characters stored."""
        found = self.drives.get(ctypes.string_at(device, 4).decode("utf-16-le"))
        if found is None:
            return self._fail("ERROR_FILE_NOT_FOUND", 0)
        text = f"{found}\0\\Device\\Before\0"
        if characters < len(text) + 1:
            return self._fail("ERROR_INSUFFICIENT_BUFFER", 0)
        _write_text(target, text)
        return len(text) + 1

    def LocalFree(self, memory: int | None) -> int:
        """NULL is success; the handle itself is failure."""
        return 0 if self.allocated.pop(memory or 0, None) is not None else memory or 0

    # --- advapi32

    def OpenProcessToken(self, handle: int, access: int, token: int) -> int:
        process = "self" if handle == _CURRENT_PROCESS else self._process(handle)
        if process is None:
            return self._fail("ERROR_INVALID_HANDLE", 0)
        if access != fact("TOKEN_QUERY"):
            return self._fail("ERROR_ACCESS_DENIED", 0)
        ctypes.c_uint64.from_address(token).value = self._handle(("token", process))
        return 1

    def GetTokenInformation(
        self, token: int, kind: int, out: int | None, size: int, needed: int
    ) -> int:
        found = self.open_handles.get(token)
        if not isinstance(found, tuple):
            return self._fail("ERROR_INVALID_HANDLE", 0)
        if kind == fact("TokenElevation"):
            data = TOKEN_ELEVATION.packing.pack(int(self.elevated))
        else:
            assert kind == fact("TokenUser")
            # The SID stands behind the structure, in the same buffer, which points to it.
            data = TOKEN_USER.packing.pack((out or 0) + TOKEN_USER.size, 0) + found[1].sid
        ctypes.c_uint32.from_address(needed).value = len(data)
        if out is None or size < len(data):
            return self._fail("ERROR_INSUFFICIENT_BUFFER", 0)
        ctypes.memmove(out, data, len(data))
        return 1

    def ConvertSidToStringSidW(self, sid: int, text: int) -> int:
        found = self._sid(sid)
        if found is None:
            return self._fail("ERROR_INVALID_SID", 0)
        authority = int.from_bytes(found[2:8], "big")
        numbers = [int.from_bytes(found[i : i + 4], "little") for i in range(8, len(found), 4)]
        printed = "-".join(map(str, ("S", found[0], authority, *numbers)))
        memory = ctypes.create_string_buffer(printed.encode("utf-16-le") + b"\0\0")
        self.allocated[ctypes.addressof(memory)] = memory
        ctypes.c_uint64.from_address(text).value = ctypes.addressof(memory)
        return 1

    def LookupAccountSidW(
        self, system: int | None, sid: int, name: int | None, name_size: int,
        domain: int | None, domain_size: int, use: int,
    ) -> int:  # fmt: skip
        self.directory.wait(60)
        found = self.accounts.get(self._sid(sid) or b"")
        if found is None:
            return self._fail("ERROR_NONE_MAPPED", 0)
        rooms = [ctypes.c_uint32.from_address(size) for size in (domain_size, name_size)]
        small = any(room.value < len(t) + 1 for room, t in zip(rooms, found, strict=True))
        for room, text, target in zip(rooms, found, (domain, name), strict=True):
            if small or target is None:
                room.value = len(text) + 1  # "including the terminating null character"
            else:
                _write_text(target, text)
                room.value = len(text)
        if small:
            return self._fail("ERROR_INSUFFICIENT_BUFFER", 0)
        ctypes.c_uint32.from_address(use).value = 1  # SidTypeUser
        return 1

    # --- iphlpapi

    def GetExtendedTcpTable(
        self, table: int | None, size: int, order: int, family: int, kind: int, reserved: int
    ) -> int:
        """Returns the error itself."""
        if kind != fact("TCP_TABLE_OWNER_PID_CONNECTIONS") or reserved:
            return fact("ERROR_INVALID_PARAMETER")
        six = family == fact("AF_INET6")
        rows = [self._row(one) for one in self.connections if (":" in one.local[0]) == six]
        data = len(rows).to_bytes(4, "little") + b"".join(rows)
        room = ctypes.c_uint32.from_address(size)
        too_small = table is None or room.value < len(data)
        room.value = len(data)
        if too_small or table is None:
            self.connections += self.new_connections
            self.new_connections = []
            return fact("ERROR_INSUFFICIENT_BUFFER")
        ctypes.memmove(table, data, len(data))
        return 0

    def _row(self, one: Connection) -> bytes:
        local, remote = (ipaddress.ip_address(a[0]).packed for a in (one.local, one.remote))
        local_port, remote_port = (a[1].to_bytes(2, "big") for a in (one.local, one.remote))
        if len(local) == 4:
            return MIB_TCPROW_OWNER_PID.packing.pack(
                one.state, local, local_port, remote, remote_port, one.pid
            )
        return MIB_TCP6ROW_OWNER_PID.packing.pack(
            local, 0, local_port, remote, 0, remote_port, one.state, one.pid
        )

    # --- handles and memory

    def _handle(self, what: object) -> int:
        self._next += 4
        self.open_handles[self._next] = what
        return self._next

    def _process(self, handle: int) -> Process | None:
        found = self.open_handles.get(handle)
        return found if isinstance(found, Process) else None

    def _sid(self, address: int | None) -> bytes | None:
        """A SID of revision 1 says its own length: 8 bytes and 4 for each sub-authority."""
        if not address:
            return None
        head = ctypes.string_at(address, 2)
        return ctypes.string_at(address, 8 + 4 * head[1]) if head[0] == 1 else None


def _write_text(address: int, text: str) -> None:
    data = text.encode("utf-16-le") + b"\0\0"
    ctypes.memmove(address, data, len(data))
