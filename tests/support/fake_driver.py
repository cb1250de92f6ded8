"""Our Windows driver, faked at its device: what driver.c does with the four control codes."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from proxy.redirect import driver_windows
from tests.support.fake_windows import FakeWindows

_NAMES = {getattr(driver_windows, name): name for name in ("CONFIGURE", "START", "STOP", "STATUS")}
HANDLE = 0x53470000  #: unlike those of the fake processes
_P, _U, _I = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32


class FakeDriver:
    """kernel32's part, and behind it what driver.c does with the four control codes."""

    def __init__(self, system: FakeWindows, scope: Any = None) -> None:
        """`scope`: the driver's scope.c, compiled, which judges configurations."""
        self.calls: list[str] = []
        self.config = b""
        self.started = self.orphaned = False
        self.missing = False
        self.busy = False
        self.open: set[int] = set()
        self.system, self._scope = system, scope
        kernel = system.load("kernel32")
        self._close_another = kernel.CloseHandle
        create = ctypes.CFUNCTYPE(_P, _P, _U, _U, _P, _U, _U, _P)
        control = ctypes.CFUNCTYPE(_I, _P, _U, _P, _U, _P, _U, _P, _P)
        for name, kind, call in (
            ("CreateFileW", create, self.create),
            ("DeviceIoControl", control, self.control),
            ("CloseHandle", ctypes.CFUNCTYPE(_I, _P), self.close),
        ):
            setattr(kernel, name, kind(call))

    def create(self, name: int, access: int, *rest: Any) -> int:
        assert ctypes.string_at(name, 30).decode("utf-16-le") == "\\\\.\\Sluicegate\0"
        if self.missing:
            return self.system.fail(2, -1)
        self.open.add(HANDLE)
        return HANDLE

    def control(self, handle: int, code: int, data: int, size: int, *rest: Any) -> int:
        out, _room, got, _overlapped = rest
        assert handle in self.open
        if self.busy:
            return self.system.fail(170, 0)
        given = ctypes.string_at(data, size) if data else b""
        if code == driver_windows.CONFIGURE:
            if self._scope is not None and not self._scope.sg_config_valid(given, len(given)):
                return self.system.fail(87, 0)
            self.config = given
        elif code == driver_windows.START:
            if not self.config:
                return self.system.fail(22, 0)
            self.started, self.orphaned = True, False
        elif code == driver_windows.STOP:
            self.started, self.config = False, b""
        else:
            pid = struct.unpack_from("<I", self.config, 12)[0] if self.config else 0
            told = struct.pack("<IIII6Q", 1, self.started, pid, self.orphaned, 5, 4, 3, 2, 1, 0)
            ctypes.memmove(out, told, len(told))
            _U.from_address(got).value = len(told)
        self.calls.append(_NAMES[code])
        return 1

    def close(self, handle: int) -> int:
        if handle not in self.open:
            return int(self._close_another(handle))
        self.open.remove(handle)
        if self.started:
            self.orphaned = bool(struct.unpack_from("<H", self.config, 6)[0] & 8)
            self.started = self.orphaned
        return 1
