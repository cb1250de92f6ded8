"""Windows' service control manager as a service sees it: advapi32 through ctypes.

One small interface (`Dispatcher`), so that the host in windows_service.py knows nothing of
ctypes and runs in tests. Modules import everywhere; what is used away from Windows raises
StartError. Pages: https://learn.microsoft.com/windows/win32/api/winsvc/, named at each.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.errors import RedirectError, StartError
from proxy.redirect.winapi import (
    Declarations,
    Libraries,
    SystemLibraries,
    declare,
    i32,
    pointer,
    u32,
)

OWN_PROCESS = 0x10  #: SERVICE_WIN32_OWN_PROCESS
NO_ERROR = 0
ERROR_ACCESS_DENIED = 5
ERROR_CALL_NOT_IMPLEMENTED = 120
ERROR_FAILED_SERVICE_CONTROLLER_CONNECT = 1063
ERROR_EXCEPTION_IN_SERVICE = 1064
ERROR_SERVICE_SPECIFIC_ERROR = 1066
_EVENTLOG_ERROR_TYPE = 1  # nf-winbase-reporteventw
_EVENT_ID = 1

u16 = ctypes.c_uint16
# On 32-bit Windows callbacks are stdcall; elsewhere there is one convention.
_CALLBACK: Any = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)
MAIN_FUNCTION = _CALLBACK(None, u32, pointer)  # nc-winsvc-lpservice_main_functionw
HANDLER_FUNCTION = _CALLBACK(u32, u32, u32, pointer, pointer)  # nc-winsvc-lphandler_function_ex


class State(enum.IntEnum):
    """dwCurrentState, ns-winsvc-service_status."""

    STOPPED = 1
    START_PENDING = 2
    STOP_PENDING = 3
    RUNNING = 4
    CONTINUE_PENDING = 5
    PAUSE_PENDING = 6
    PAUSED = 7


class Control(enum.IntEnum):
    """What the manager asks; nc-winsvc-lphandler_function_ex."""

    STOP = 1
    INTERROGATE = 4
    SHUTDOWN = 5
    PARAMCHANGE = 6


class Accepts(enum.IntFlag):
    """dwControlsAccepted. INTERROGATE is always accepted."""

    NONE = 0
    STOP = 1
    SHUTDOWN = 4
    PARAMCHANGE = 8


@dataclass(frozen=True, slots=True)
class Status:
    """One report to the manager. `wait_hint`: seconds until the next, while pending."""

    state: State
    accepts: Accepts = Accepts.NONE
    checkpoint: int = 0
    wait_hint: float = 0.0
    exit_code: int = NO_ERROR
    specific_code: int = 0  #: with ERROR_SERVICE_SPECIFIC_ERROR


class Dispatcher(Protocol):
    """What the host needs of the manager."""

    def run(self, main: Callable[[], None]) -> None:
        """Call `main` in a thread of the manager's; returns when it has stopped.

        Raises StartError when the process was not started by the manager.
        """

    def register(self, handler: Callable[[int], int]) -> None:
        """From within `main`, first of all; the handler runs in another thread.

        Raises StartError.
        """

    def report(self, status: Status) -> None:
        """Tell how far it is; from any thread. Raises StartError."""

    def complain(self, text: str) -> None:
        """An error for whoever looks into the event log: a service has no standard error."""


class ServiceStatus(ctypes.Structure):
    """SERVICE_STATUS."""

    _fields_ = (
        ("dwServiceType", u32),
        ("dwCurrentState", u32),
        ("dwControlsAccepted", u32),
        ("dwWin32ExitCode", u32),
        ("dwServiceSpecificExitCode", u32),
        ("dwCheckPoint", u32),
        ("dwWaitHint", u32),
    )


class ServiceTableEntry(ctypes.Structure):
    """SERVICE_TABLE_ENTRYW; a table ends with an entry of NULLs."""

    _fields_ = (("lpServiceName", pointer), ("lpServiceProc", pointer))


_ADVAPI: Declarations = {
    # nf-winsvc-startservicectrldispatcherw, nf-winsvc-registerservicectrlhandlerexw
    "StartServiceCtrlDispatcherW": (i32, (pointer,)),
    "RegisterServiceCtrlHandlerExW": (pointer, (pointer, HANDLER_FUNCTION, pointer)),
    # nf-winsvc-setservicestatus
    "SetServiceStatus": (i32, (pointer, pointer)),
    # win32/api/winbase/nf-winbase-registereventsourcew, -reporteventw, -deregistereventsource
    "RegisterEventSourceW": (pointer, (pointer, pointer)),
    "ReportEventW": (
        i32,
        (pointer, u16, u16, u32, pointer, u16, u32, pointer, pointer),
    ),
    "DeregisterEventSource": (i32, (pointer,)),
}  # fmt: skip


def wide(text: str) -> Any:
    """A string as Windows takes it: UTF-16 with its NUL. ctypes' own has 4 bytes on Linux."""
    data = text.encode("utf-16-le", "surrogatepass") + b"\0\0"
    return ctypes.create_string_buffer(data, len(data))


def advapi32(functions: Declarations, libraries: Libraries | None = None) -> tuple[Any, Libraries]:
    """The library with its types, and where its errors are. Raises StartError."""
    if libraries is None and not hasattr(ctypes, "WinDLL"):
        raise StartError("this is not Windows: its service manager is not here")
    libraries = libraries or SystemLibraries()
    try:
        return declare(libraries, "advapi32", functions), libraries
    except RedirectError as error:
        raise StartError(str(error)) from error


class WindowsDispatcher:
    """The real one. Keeps its callbacks alive: the manager calls them until the process ends."""

    def __init__(self, name: str, libraries: Libraries | None = None) -> None:
        self._api, self._libraries = advapi32(_ADVAPI, libraries)
        self._name = name
        self._wide_name = wide(name)
        self._handle: Any = None
        self._callbacks: list[Any] = []

    def run(self, main: Callable[[], None]) -> None:
        entry = MAIN_FUNCTION(lambda count, arguments: main())
        self._callbacks.append(entry)
        table = (ServiceTableEntry * 2)()
        table[0].lpServiceName = ctypes.addressof(self._wide_name)
        table[0].lpServiceProc = ctypes.cast(entry, pointer).value
        if not self._api.StartServiceCtrlDispatcherW(ctypes.byref(table)):
            raise StartError(self._not_dispatched(self._libraries.last_error()))

    def register(self, handler: Callable[[int], int]) -> None:
        call = HANDLER_FUNCTION(lambda control, event, data, context: handler(control))
        self._callbacks.append(call)
        self._handle = self._api.RegisterServiceCtrlHandlerExW(self._wide_name, call, None)
        if not self._handle:
            raise StartError(
                f"RegisterServiceCtrlHandlerExW failed, error {self._libraries.last_error()}"
            )

    def report(self, status: Status) -> None:
        told = ServiceStatus(
            OWN_PROCESS,
            status.state,
            status.accepts,
            status.exit_code,
            status.specific_code,
            status.checkpoint,
            int(status.wait_hint * 1000),
        )
        if not self._api.SetServiceStatus(self._handle, ctypes.byref(told)):
            raise StartError(f"SetServiceStatus failed, error {self._libraries.last_error()}")

    def complain(self, text: str) -> None:
        source = self._api.RegisterEventSourceW(None, self._wide_name)
        if not source:
            return  # a full or forbidden log must not keep the service from running
        message = wide(text)
        strings = (pointer * 1)(ctypes.addressof(message))
        self._api.ReportEventW(
            source, _EVENTLOG_ERROR_TYPE, 0, _EVENT_ID, None, 1, 0, ctypes.byref(strings), None
        )
        self._api.DeregisterEventSource(source)

    @staticmethod
    def _not_dispatched(error: int) -> str:
        if error == ERROR_FAILED_SERVICE_CONTROLLER_CONNECT:
            return (
                "`service host` is what Windows' service manager starts; by hand use "
                "`sluicegate run`, or `sluicegate service install` and `sc start`"
            )
        return f"StartServiceCtrlDispatcherW failed, error {error}"
