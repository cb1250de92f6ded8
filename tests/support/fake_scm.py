"""Windows' service control manager, faked from its documentation: advapi32 as C callbacks.

Callable through the code's own ctypes declarations, so that a wrong width, order or structure
shows. https://learn.microsoft.com/windows/win32/api/winsvc/: nf-winsvc-… and ns-winsvc-….
What is kept of the documented rules: handles must be ones that were given out and are closed once;
a control reaches a service only if it accepts it; STOPPED is the last word; a pending
state's checkpoints grow.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_P, _U, _I, _W = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint16
STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4
_NEEDED = {1: 1, 5: 4, 6: 8}  #: control -> SERVICE_ACCEPT_ bit it needs
_MAIN = ctypes.CFUNCTYPE(None, _U, _P)
_HANDLER = ctypes.CFUNCTYPE(_U, _U, _U, _P, _P)

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "StartServiceCtrlDispatcherW": (_I, _P),
    "RegisterServiceCtrlHandlerExW": (_P, _P, _HANDLER, _P),
    "SetServiceStatus": (_I, _P, _P),
    "RegisterEventSourceW": (_P, _P, _P),
    "ReportEventW": (_I, _P, _W, _W, _U, _P, _W, _U, _P, _P),
    "DeregisterEventSource": (_I, _P),
    "OpenSCManagerW": (_P, _P, _P, _U),
    "CreateServiceW": (_P, _P, _P, _P, _U, _U, _U, _U, _P, _P, _P, _P, _P, _P),
    "OpenServiceW": (_P, _P, _P, _U),
    "ChangeServiceConfig2W": (_I, _P, _U, _P),
    "DeleteService": (_I, _P),
    "ControlService": (_I, _P, _U, _P),
    "QueryServiceStatus": (_I, _P, _P),
    "CloseServiceHandle": (_I, _P),
}


@dataclass
class Registered:
    """A service in the manager's database."""

    name: str
    display: str
    command: str
    start: int
    account: int | None
    dependencies: list[str]
    state: int = STOPPED
    description: str = ""
    failure: list[tuple[int, int]] = field(default_factory=list)


class FakeManager:
    """`libraries` for the code under test, and the manager's side for the test."""

    def __init__(self, *, by_manager: bool = True, administrator: bool = True) -> None:
        self.by_manager = by_manager
        self.administrator = administrator
        self.services: dict[str, Registered] = {}
        self.reports: list[tuple[int, ...]] = []  #: the seven words of SERVICE_STATUS
        self.events: list[str] = []
        self.mistakes: list[str] = []  #: what the documentation forbids
        self.reported = threading.Condition()
        self._errors = threading.local()
        self._handles: dict[int, object] = {}
        self._next = 0x1000
        self._handler: Any = None
        self._library = _Library(self)

    # --- Libraries

    def load(self, name: str) -> Any:
        assert name == "advapi32"
        return self._library

    def last_error(self) -> int:
        return int(getattr(self._errors, "last", 0))

    # --- the manager's side

    def control(self, code: int) -> int:
        """As the manager would: only what the service accepts. The handler's answer."""
        accepts = self.reports[-1][2]
        assert code == 4 or code > 127 or accepts & _NEEDED.get(code, 0), (code, accepts)
        return int(self._handler(code, 0, None, None))

    def states(self) -> list[int]:
        return [report[1] for report in self.reports]

    def wait_for(self, state: int, seconds: float = 20.0) -> None:
        with self.reported:
            wanted = {state, STOPPED}  # nothing comes after STOPPED
            self.reported.wait_for(lambda: not wanted.isdisjoint(self.states()), seconds)
            assert state in self.states(), (self.states(), self.events)

    # --- for the functions

    def fail(self, error: int) -> int:
        self._errors.last = error
        return 0

    def opened(self, what: object) -> int:
        self._next += 8
        self._handles[self._next] = what
        return self._next

    def of(self, handle: int | None) -> Any:
        if handle not in self._handles:
            self.mistakes.append(f"handle {handle} was not given out, or is closed")
            return None
        return self._handles[handle]

    @property
    def open_handles(self) -> int:
        return len(self._handles)


class _Library:
    """The functions, by their documented signatures."""

    def __init__(self, manager: FakeManager) -> None:
        calls = _Calls(manager)
        self._kept = []
        for name, (result, *arguments) in _SIGNATURES.items():
            callback = ctypes.CFUNCTYPE(result, *arguments)(getattr(calls, name))
            self._kept.append(callback)  # what C calls must not be collected
            # A fresh pointer to it: the code under test sets its own types on this one.
            address = ctypes.cast(callback, _P).value
            setattr(self, name, ctypes.CFUNCTYPE(result)(address))  # type: ignore[arg-type]


class _Calls:
    def __init__(self, manager: FakeManager) -> None:
        self._m = manager

    def StartServiceCtrlDispatcherW(self, table: int) -> int:
        if not self._m.by_manager:
            return self._m.fail(1063)  # ERROR_FAILED_SERVICE_CONTROLLER_CONNECT
        words = (ctypes.c_void_p * 4).from_address(table)
        if words[2] is not None or words[3] is not None:
            self._m.mistakes.append("the table does not end with NULLs")
        main = _MAIN(words[1])  # type: ignore[arg-type]
        thread = threading.Thread(target=main, args=(0, None))  # "a new thread"
        thread.start()
        thread.join()
        return 1

    def RegisterServiceCtrlHandlerExW(self, name: int, handler: Any, context: int) -> int:
        self._m._handler = handler
        return self._m.opened("status")

    def SetServiceStatus(self, handle: int, status: int) -> int:
        if self._m.of(handle) != "status":
            return self._m.fail(6)
        words = tuple((ctypes.c_uint32 * 7).from_address(status))
        with self._m.reported:
            self._check(words)
            self._m.reports.append(words)
            self._m.reported.notify_all()
        return 1

    def _check(self, words: tuple[int, ...]) -> None:
        _, state, accepts, _, _, checkpoint, hint = words
        last = self._m.reports[-1] if self._m.reports else None
        if last is not None and last[1] == STOPPED:
            self._m.mistakes.append("a report after STOPPED")
        if state in (START_PENDING, STOP_PENDING):
            if accepts or not hint or not checkpoint:
                self._m.mistakes.append(f"pending with {words}")
            if last is not None and last[1] == state and checkpoint <= last[5]:
                self._m.mistakes.append("a checkpoint that does not grow")
        elif checkpoint or hint:
            self._m.mistakes.append(f"not pending, but {words}")

    def RegisterEventSourceW(self, server: int, name: int) -> int:
        return self._m.opened("event source")

    def ReportEventW(self, handle: int, *rest: Any) -> int:
        _kind, _category, _event, _sid, count, _size, strings, _data = rest
        pointers = (ctypes.c_void_p * count).from_address(strings)
        self._m.events.extend(text(pointer) or "" for pointer in pointers)
        return 1

    def DeregisterEventSource(self, handle: int) -> int:
        return self.CloseServiceHandle(handle)

    def OpenSCManagerW(self, machine: int, database: int, access: int) -> int:
        if access & 2 and not self._m.administrator:  # SC_MANAGER_CREATE_SERVICE
            return self._m.fail(5)
        return self._m.opened("manager")

    def CreateServiceW(self, manager: int, name: int, display: int, *rest: Any) -> int:
        _access, kind, start, _error, path, _group, tag, needs, account, _password = rest
        if self._m.of(manager) != "manager" or kind != 0x10 or tag:
            return self._m.fail(87)
        known = text(name) or ""
        if known in self._m.services:
            return self._m.fail(1073)
        made = Registered(
            known, text(display) or "", text(path) or "", start, account, texts(needs)
        )
        self._m.services[known] = made
        return self._m.opened(made)

    def OpenServiceW(self, manager: int, name: int, access: int) -> int:
        found = self._m.services.get(text(name) or "")
        if found is None:
            return self._m.fail(1060)
        if access & 0x10020 and not self._m.administrator:
            return self._m.fail(5)
        return self._m.opened(found)

    def ChangeServiceConfig2W(self, handle: int, level: int, info: int) -> int:
        service = self._m.of(handle)
        if level == 1:
            service.description = text(ctypes.c_void_p.from_address(info).value)
        elif level == 2:
            count = ctypes.c_uint32.from_address(info + 24).value
            actions = ctypes.c_void_p.from_address(info + 32).value
            words = (ctypes.c_uint32 * (2 * count)).from_address(actions or 0)
            service.failure = list(zip(words[::2], words[1::2], strict=True))
        return 1

    def DeleteService(self, handle: int) -> int:
        del self._m.services[self._m.of(handle).name]
        return 1

    def ControlService(self, handle: int, control: int, status: int) -> int:
        service = self._m.of(handle)
        if service.state != RUNNING:
            return self._m.fail(1062)
        service.state = STOP_PENDING
        return 1

    def QueryServiceStatus(self, handle: int, status: int) -> int:
        (ctypes.c_uint32 * 7).from_address(status)[1] = self._m.of(handle).state
        return 1

    def CloseServiceHandle(self, handle: int) -> int:
        if self._m.of(handle) is None:
            return self._m.fail(6)
        del self._m._handles[handle]
        return 1


def text(address: int | None) -> str | None:
    """A NUL-terminated UTF-16 string."""
    if not address:
        return None
    units: list[int] = []
    while unit := ctypes.c_uint16.from_address(address + 2 * len(units)).value:
        units.append(unit)
    return b"".join(unit.to_bytes(2, "little") for unit in units).decode("utf-16-le")


def texts(address: int | None) -> list[str]:
    """Strings one behind the other, until an empty one."""
    found: list[str] = []
    while address and (one := text(address)):
        found.append(one)
        address += 2 * len(one) + 2
    return found


def run_in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread
