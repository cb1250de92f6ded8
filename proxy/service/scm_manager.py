"""Windows' service control manager as an administrator sees it: make, remove and ask services.

Handles are closed whatever happens. Pages: learn.microsoft.com/windows/win32/api/winsvc/.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from proxy.errors import StartError
from proxy.redirect.winapi import Declarations, Libraries, i32, pointer, u32
from proxy.service.scm import ERROR_ACCESS_DENIED, OWN_PROCESS, ServiceStatus, State, advapi32, wide

# win32/services/service-security-and-access-rights
_SC_MANAGER_CONNECT, _SC_MANAGER_CREATE_SERVICE = 0x0001, 0x0002
_QUERY_STATUS, _STOP, _DELETE = 0x0004, 0x0020, 0x10000
_CHANGE_CONFIG, _START = 0x0002, 0x0010
_AUTO_START = 2  # SERVICE_AUTO_START
_ERROR_NORMAL = 1  # SERVICE_ERROR_NORMAL
_CONTROL_STOP = 1
_DESCRIPTION, _FAILURE_ACTIONS = 1, 2  # SERVICE_CONFIG_…, nf-winsvc-changeserviceconfig2w
_ACTION_RESTART = 1  # SC_ACTION_RESTART
_RESTART_MS, _RESET_SECONDS = 1000, 60
_DOES_NOT_EXIST, _EXISTS, _NOT_ACTIVE, _MARKED_FOR_DELETE = 1060, 1073, 1062, 1072

_SENTENCES = {
    ERROR_ACCESS_DENIED: "it needs an administrator: run this elevated",
    _DOES_NOT_EXIST: "there is no such service",
    _EXISTS: "there is a service of that name already; `sluicegate service uninstall` removes it",
    _MARKED_FOR_DELETE: "it is being removed: close services.msc and what else looks at it",
}

_ADVAPI: Declarations = {
    "OpenSCManagerW": (pointer, (pointer, pointer, u32)),
    "CreateServiceW": (pointer, (pointer, pointer, pointer, *(u32,) * 4, *(pointer,) * 6)),
    "OpenServiceW": (pointer, (pointer, pointer, u32)),
    "ChangeServiceConfig2W": (i32, (pointer, u32, pointer)),
    "DeleteService": (i32, (pointer,)),
    "ControlService": (i32, (pointer, u32, pointer)),
    "QueryServiceStatus": (i32, (pointer, pointer)),
    "CloseServiceHandle": (i32, (pointer,)),
}


class _Action(ctypes.Structure):
    """SC_ACTION: what to do, and after how many milliseconds."""

    _fields_ = (("Type", u32), ("Delay", u32))


class FailureActions(ctypes.Structure):
    """SERVICE_FAILURE_ACTIONSW."""

    _fields_ = (
        ("dwResetPeriod", u32),
        ("lpRebootMsg", pointer),
        ("lpCommand", pointer),
        ("cActions", u32),
        ("lpsaActions", pointer),
    )


@dataclass(frozen=True, slots=True)
class Registration:
    """A service to be: `command` is the whole command line, quoted as Windows wants it."""

    name: str
    display: str
    description: str
    command: str
    dependencies: tuple[str, ...] = ()


class ServiceManager:
    """Each call opens what it needs and closes it. Raises StartError, with what to do."""

    def __init__(self, libraries: Libraries | None = None) -> None:
        self._api, self._libraries = advapi32(_ADVAPI, libraries)

    def create(self, wanted: Registration) -> None:
        """Started with the system, as LocalSystem, and again a second after a failure."""
        with self._manager(_SC_MANAGER_CONNECT | _SC_MANAGER_CREATE_SERVICE) as manager:
            service = self._create(manager, wanted)
            try:
                self._describe(service, wanted.description)
                self._restart_on_failure(service)
            finally:
                self._api.CloseServiceHandle(service)

    def delete(self, name: str) -> bool:
        """Stop and remove. Whether it was there."""
        with self._opened(name, _STOP | _DELETE) as service:
            if service is None:
                return False
            told = ServiceStatus()
            stopped = self._api.ControlService(service, _CONTROL_STOP, ctypes.byref(told))
            if not stopped and self._libraries.last_error() != _NOT_ACTIVE:
                raise self._failed("stop")
            if not self._api.DeleteService(service):
                raise self._failed("remove")
            return True

    def state(self, name: str) -> State | None:
        """None: there is no such service."""
        with self._opened(name, _QUERY_STATUS) as service:
            if service is None:
                return None
            told = ServiceStatus()
            if not self._api.QueryServiceStatus(service, ctypes.byref(told)):
                raise self._failed("ask")
            return State(told.dwCurrentState)

    def _create(self, manager: Any, wanted: Registration) -> Any:
        # A list of names, each with its NUL, and one more NUL at the end.
        needs = wide("".join(f"{name}\0" for name in wanted.dependencies))
        service = self._api.CreateServiceW(
            manager,
            wide(wanted.name),
            wide(wanted.display),
            _CHANGE_CONFIG | _START,  # SC_ACTION_RESTART needs SERVICE_START
            OWN_PROCESS,
            _AUTO_START,
            _ERROR_NORMAL,
            wide(wanted.command),
            None,
            None,
            needs,
            None,  # LocalSystem: setting redirect records needs an administrator
            None,
        )
        if not service:
            raise self._failed("install")
        return service

    def _describe(self, service: Any, text: str) -> None:
        words = wide(text)
        description = (pointer * 1)(ctypes.addressof(words))  # SERVICE_DESCRIPTIONW: one pointer
        self._configure(service, _DESCRIPTION, description)

    def _restart_on_failure(self, service: Any) -> None:
        actions = (_Action * 3)(*(_Action(_ACTION_RESTART, _RESTART_MS) for _ in range(3)))
        plan = FailureActions(_RESET_SECONDS, None, None, len(actions), ctypes.addressof(actions))
        self._configure(service, _FAILURE_ACTIONS, plan)

    def _configure(self, service: Any, level: int, info: Any) -> None:
        if not self._api.ChangeServiceConfig2W(service, level, ctypes.byref(info)):
            raise self._failed("configure")

    @contextlib.contextmanager
    def _manager(self, access: int) -> Iterator[Any]:
        manager = self._api.OpenSCManagerW(None, None, access)
        if not manager:
            raise self._failed("reach")
        try:
            yield manager
        finally:
            self._api.CloseServiceHandle(manager)

    @contextlib.contextmanager
    def _opened(self, name: str, access: int) -> Iterator[Any]:
        """The service's handle, or None where there is no such service."""
        with self._manager(_SC_MANAGER_CONNECT) as manager:
            service = self._api.OpenServiceW(manager, wide(name), access)
            if not service:
                if self._libraries.last_error() != _DOES_NOT_EXIST:
                    raise self._failed("open")
                yield None
                return
            try:
                yield service
            finally:
                self._api.CloseServiceHandle(service)

    def _failed(self, what: str) -> StartError:
        error = self._libraries.last_error()
        reason = _SENTENCES.get(error, "Windows gives no further reason")
        return StartError(f"cannot {what} the service: {reason} (error {error})")
