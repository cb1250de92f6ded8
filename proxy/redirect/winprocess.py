"""Processes of Windows: what runs under a pid, and for whom.

What cannot be found out (the process has gone, it is protected, the account is unknown) is
None: a principal is known in part, or not at all, and that is for policy to judge. Handles are
always closed. Pages of learn.microsoft.com are named as in tests/support/winsock_facts.py.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from proxy.redirect.winapi import (
    Declarations,
    Libraries,
    declare,
    i32,
    pointer,
    u32,
)

PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
TOKEN_QUERY = 0x0008
TOKEN_USER_CLASS, TOKEN_ELEVATION_CLASS = 1, 20  # winnt.h: TOKEN_INFORMATION_CLASS
_PATH_CHARACTERS = 32768  # the longest path of Windows
_NAME_CHARACTERS = 512  # of an account or a package family, and more than either may have
_DRIVES_FRESH_SECONDS = 60.0
_FILETIME_EPOCH = 116444736000000000  # 1970-01-01 in 100 ns since 1601-01-01


class FileTime(ctypes.Structure):
    """win32/api/minwinbase/ns-minwinbase-filetime"""

    _fields_ = (("dwLowDateTime", u32), ("dwHighDateTime", u32))


class SidAndAttributes(ctypes.Structure):
    """win32/api/winnt/ns-winnt-sid_and_attributes"""

    _fields_ = (("Sid", pointer), ("Attributes", u32))


class TokenUser(ctypes.Structure):
    """win32/api/winnt/ns-winnt-token_user"""

    _fields_ = (("User", SidAndAttributes),)


class TokenElevation(ctypes.Structure):
    """win32/api/winnt/ns-winnt-token_elevation"""

    _fields_ = (("TokenIsElevated", u32),)


_KERNEL: Declarations = {
    "OpenProcess": (pointer, (u32, i32, u32)),
    "CloseHandle": (i32, (pointer,)),
    "GetCurrentProcess": (pointer, ()),
    "GetProcessTimes": (i32, (pointer,) * 5),
    "QueryFullProcessImageNameW": (i32, (pointer, u32, pointer, pointer)),
    "GetPackageFamilyName": (i32, (pointer, pointer, pointer)),
    "QueryDosDeviceW": (u32, (pointer, pointer, u32)),
    "LocalFree": (pointer, (pointer,)),
}
_ADVAPI: Declarations = {
    "OpenProcessToken": (i32, (pointer, u32, pointer)),
    "GetTokenInformation": (i32, (pointer, i32, pointer, u32, pointer)),
    "ConvertSidToStringSidW": (i32, (pointer, pointer)),
    "LookupAccountSidW": (i32, (pointer,) * 7),
}


@dataclass(frozen=True, slots=True)
class Described:
    """A process as Windows tells it now. None: it does not; `package` "": it has none."""

    started: int  #: FILETIME
    image: str | None
    sid: bytes
    package: str | None


def to_epoch(filetime: int) -> float | None:
    """FILETIME in seconds since the epoch; None for 0."""
    return (filetime - _FILETIME_EPOCH) / 1e7 if filetime else None


class Processes:
    """kernel32 and advapi32. Safe to use from several threads."""

    def __init__(self, libraries: Libraries, clock: Callable[[], float] = time.monotonic) -> None:
        self._kernel = declare(libraries, "kernel32", _KERNEL)
        self._advapi = declare(libraries, "advapi32", _ADVAPI)
        self._last_error = libraries.last_error
        self._clock = clock
        self._drives: dict[str, str] = {}
        self._drives_until = float("-inf")

    # --- processes

    def started(self, pid: int) -> int | None:
        """When the process that has this pid now began, as FILETIME."""
        with self._open(pid) as process:
            return self._started(process) if process else None

    def describe(self, pid: int) -> Described | None:
        """All of one process, read under one handle, so that it cannot be two."""
        with self._open(pid) as process:
            started = self._started(process) if process else None
            if process is None or started is None:
                return None
            return Described(
                started, self._image(process), self._user(process), self._package(process)
            )

    def elevated(self) -> bool:
        """Is this process an elevated administrator, or the system?"""
        with self._token(self._kernel.GetCurrentProcess()) as token:
            if token is None:
                return False
            data = self._token_information(token, TOKEN_ELEVATION_CLASS)
            return data is not None and TokenElevation.from_buffer(data).TokenIsElevated != 0

    def _started(self, process: int) -> int | None:
        created, ended, kernel, user = (FileTime() for _ in range(4))
        times = map(ctypes.byref, (created, ended, kernel, user))
        if not self._kernel.GetProcessTimes(process, *times):
            return None
        return int(created.dwHighDateTime) << 32 | int(created.dwLowDateTime)

    def _image(self, process: int) -> str | None:
        name, size = _text_buffer(_PATH_CHARACTERS), u32(_PATH_CHARACTERS)
        query = self._kernel.QueryFullProcessImageNameW
        if not query(process, 0, name, ctypes.byref(size)):  # 0: a Win32 path, with its drive
            return None
        return _text(name, size.value)

    def _package(self, process: int) -> str | None:
        """The package family; "" for APPMODEL_ERROR_NO_PACKAGE."""
        name, size = _text_buffer(_NAME_CHARACTERS), u32(_NAME_CHARACTERS)
        error = self._kernel.GetPackageFamilyName(process, ctypes.byref(size), name)
        if error == 15700:
            return ""
        return _text(name, size.value - 1) if error == 0 else None

    def _user(self, process: int) -> bytes:
        """The token's user as a binary SID; empty when it cannot be read."""
        with self._token(process) as token:
            if token is None:
                return b""
            data = self._token_information(token, TOKEN_USER_CLASS)
            return b"" if data is None else _pointed_sid(data)

    def _token_information(self, token: int, kind: int) -> ctypes.Array[ctypes.c_char] | None:
        needed = u32(0)
        information = self._advapi.GetTokenInformation
        information(token, kind, None, 0, ctypes.byref(needed))
        buffer = ctypes.create_string_buffer(max(needed.value, ctypes.sizeof(TokenUser)))
        if not information(token, kind, buffer, len(buffer), ctypes.byref(needed)):
            return None
        return buffer

    @contextmanager
    def _open(self, pid: int) -> Iterator[int | None]:
        process = self._kernel.OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid)
        try:
            yield process or None
        finally:
            if process:
                self._kernel.CloseHandle(process)

    @contextmanager
    def _token(self, process: int) -> Iterator[int | None]:
        token = pointer()
        opened = self._advapi.OpenProcessToken(process, TOKEN_QUERY, ctypes.byref(token))
        try:
            yield token.value if opened else None
        finally:
            if opened:
                self._kernel.CloseHandle(token.value)

    # --- accounts and paths

    def account(self, sid: bytes) -> str | None:
        """DOMAIN\\name of a SID, or the SID's own text. May ask a domain controller: slow."""
        return self._account_name(sid) or self._sid_text(sid) if sid else None

    def _account_name(self, sid: bytes) -> str | None:
        name, domain = _text_buffer(_NAME_CHARACTERS), _text_buffer(_NAME_CHARACTERS)
        name_size, domain_size, use = u32(_NAME_CHARACTERS), u32(_NAME_CHARACTERS), i32()
        found = self._advapi.LookupAccountSidW(
            None, ctypes.create_string_buffer(sid, len(sid)),
            name, ctypes.byref(name_size), domain, ctypes.byref(domain_size), ctypes.byref(use),
        )  # fmt: skip
        if not found:
            return None
        account, realm = _text(name, name_size.value), _text(domain, domain_size.value)
        return f"{realm}\\{account}" if realm else account

    def _sid_text(self, sid: bytes) -> str | None:
        text = pointer()
        binary = ctypes.create_string_buffer(sid, len(sid))
        if not self._advapi.ConvertSidToStringSidW(binary, ctypes.byref(text)) or not text.value:
            return None
        try:
            return _text_at(text.value)
        finally:
            self._kernel.LocalFree(text.value)

    def with_drive(self, path: str) -> str:
        """An NT path (\\device\\harddiskvolume3\\…) as a Win32 path, where a drive is its device.

        What a driver tells of a program is an NT path in lower case (FWPS ALE_APP_ID).
        """
        for device, drive in self._devices().items():
            if path.lower().startswith(device.lower() + "\\"):
                return drive + path[len(device) :]
        return path

    def _devices(self) -> dict[str, str]:
        now = self._clock()
        if now >= self._drives_until:
            self._drives, self._drives_until = self._ask_devices(), now + _DRIVES_FRESH_SECONDS
        return self._drives

    def _ask_devices(self) -> dict[str, str]:
        found = {}
        target = _text_buffer(_NAME_CHARACTERS)
        for letter in map(chr, range(ord("A"), ord("Z") + 1)):
            drive = ctypes.create_string_buffer(f"{letter}:\0".encode("utf-16-le"))
            if self._kernel.QueryDosDeviceW(drive, target, _NAME_CHARACTERS):
                # "one or more null-terminated strings": the first is the current mapping.
                found[_text(target, _NAME_CHARACTERS).partition("\0")[0]] = f"{letter}:"
        return found


def _pointed_sid(data: ctypes.Array[ctypes.c_char]) -> bytes:
    """The SID that a TOKEN_USER points to, which stands in the same buffer; else empty."""
    start = (TokenUser.from_buffer(data).User.Sid or 0) - ctypes.addressof(data)
    if not 0 <= start <= len(data) - 8:
        return b""
    # win32/api/winnt/ns-winnt-sid: 8 bytes, the second of which counts the 4-byte parts behind.
    return data.raw[start : start + 8 + 4 * data.raw[start + 1]]


def _text_buffer(characters: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(characters * 2)


def _text(buffer: ctypes.Array[ctypes.c_char], characters: int) -> str:
    return buffer.raw[: characters * 2].decode("utf-16-le", "replace")


def _text_at(address: int) -> str:
    """UTF-16 up to its NUL."""
    end = address
    while ctypes.string_at(end, 2) != b"\0\0":
        end += 2
    return ctypes.string_at(address, end - address).decode("utf-16-le", "replace")
