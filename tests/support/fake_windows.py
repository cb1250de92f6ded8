"""A fake of the Windows libraries behind the `wfp` providers, made of their documentation.

Functions are C callbacks with the documented signatures (tests/support/winsock_facts.py), so
that the code under test calls them through its own ctypes declarations: a wrong width, order
or layout shows here as it would there. What is faked is the documented behaviour: sizes,
errors, who may do what, and in which order.

    system = FakeWindows(proxy_port=15001)
    system.libraries.load("ws2_32").WSAIoctl(...)
    client = system.driver.connect(("192.0.2.9", 443), pid=4711)   # is sent to the proxy
"""

from __future__ import annotations

import ctypes
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.support.fake_winprocess import Processes
from tests.support.fake_winsock import Driver, Winsock
from tests.support.winsock_facts import SIGNATURES, Signature, fact

_TYPES = {
    "i": ctypes.c_int32,
    "u": ctypes.c_uint32,
    "s": ctypes.c_uint64,
    "p": ctypes.c_void_p,
}


class FakeWindows:
    """The machine: a driver that redirects, processes, and the libraries that tell of both."""

    def __init__(self, proxy_port: int = 0) -> None:
        self.calls: list[str] = []  #: one line per call: what was asked, what was answered
        self._errors = threading.local()
        self.processes = Processes(self.fail)
        self.driver = Driver(self.processes, proxy_port)
        self.winsock = Winsock(self.driver, self.fail)
        self.missing: set[str] = set()  #: libraries and functions that this Windows lacks
        self._libraries: dict[str, Any] = {}

    @property
    def libraries(self) -> FakeWindows:
        """What code under test is given in place of the system's libraries."""
        return self

    def fail(self, error: str | int, result: int) -> int:
        """Set the thread's last error, as SetLastError does, and return what means failure."""
        self._errors.last = fact(error) if isinstance(error, str) else error
        return result

    def last_error(self) -> int:
        """As ctypes.get_last_error() tells it: a signed 32-bit number."""
        return ctypes.c_int32(getattr(self._errors, "last", 0)).value

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What an application does here: its create_connection is redirected."""
        if function is socket.create_connection:
            return self.driver.connect(*arguments[:1])
        return function(*arguments)

    def load(self, name: str) -> Any:
        """A library by its name. Raises OSError, as LoadLibrary does through ctypes."""
        if name in self.missing:
            raise OSError(f"[WinError 126] The specified module could not be found: {name}")
        if name not in self._libraries:
            self._libraries[name] = self._library(name)
        return self._libraries[name]

    def _library(self, name: str) -> Any:
        functions = {
            row.name: self._callback(row)
            for row in SIGNATURES
            if row.library == name and row.name not in self.missing
        }
        return type(name, (), functions)()

    def _callback(self, row: Signature) -> Any:
        owner = self.winsock if hasattr(self.winsock, row.name) else self.processes
        work: Callable[..., int] = getattr(owner, row.name)

        def call(*arguments: Any) -> int:
            result = work(*arguments)
            self.calls.append(self._line(row, arguments, result))
            return result

        prototype = ctypes.CFUNCTYPE(_TYPES[row.result], *map(_TYPES.__getitem__, row.arguments))
        # A plain attribute of a class would be bound; on an instance of a library it is not.
        return staticmethod(prototype(call))

    def _line(self, row: Signature, arguments: tuple[Any, ...], result: int) -> str:
        asked = self.winsock.describe(row.name, arguments)
        failed = result == -1 or (result == 0 and row.result == "i" and row.library != "ws2_32")
        if failed and row.name != "GetPackageFamilyName":
            return f"{row.name}({asked}) -> error {self.last_error() & 0xFFFFFFFF:#x}"
        return f"{row.name}({asked}) -> {result}"
