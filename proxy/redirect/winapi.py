"""Windows' libraries through ctypes: declared types, and Winsock's WFP control codes.

Imports everywhere and fails when used. ctypes.wintypes is not used: its DWORD and WCHAR have
other widths away from Windows, and everything here also runs against the fake in
tests/support/fake_windows.py, whose functions have the documented C signatures. Pages of
learn.microsoft.com are named as in tests/support/winsock_facts.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Protocol

from proxy.errors import RedirectError, WinApiError

# mstcpip.h: _WSAIOW(IOC_VENDOR, 220 .. 222).
SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS = 0x980000DC
SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT = 0x980000DD
SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS = 0x980000DE
# ws2def.h.
SOL_IP, SOL_IPV6 = 0xFFFB, 0xFFFA
SO_ORIGINAL_DST = 0x300F
AF_INET, AF_INET6 = 2, 23

ERROR_INSUFFICIENT_BUFFER = 122
WSAEACCES = 10013
WSAEFAULT = 10014
WSAEINVAL = 10022
WSAENOPROTOOPT = 10042
FWP_E_NOT_FOUND = 0x80320008

_NAMES = {
    SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS: "SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS",
    SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT: "SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT",
    SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS: "SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS",
}

#: What each documented error of the three control codes means to somebody who runs the proxy.
SENTENCES = {
    ERROR_INSUFFICIENT_BUFFER: "the data is larger than this proxy takes (64 KiB)",
    10004: "the call was interrupted (WSAEINTR)",
    WSAEACCES: "it needs an administrator: run the proxy elevated, or as a service (WSAEACCES)",
    WSAEFAULT: "Windows could not use the buffer that it was given (WSAEFAULT)",
    WSAEINVAL: "this socket or these data are not acceptable to Windows (WSAEINVAL)",
    10036: "another blocking call is under way (WSAEINPROGRESS)",
    10038: "the descriptor is not a socket (WSAENOTSOCK)",
    WSAENOPROTOOPT: "the protocol of this socket does not know it (WSAENOPROTOOPT)",
    10045: "the transport does not support it: Windows 8 or Server 2012 is needed, and no layered "
    "service provider in between (WSAEOPNOTSUPP)",
    10050: "the network subsystem has failed (WSAENETDOWN)",
    10057: "the socket is not connected: the client has left (WSAENOTCONN)",
    FWP_E_NOT_FOUND: "WFP knows of no redirection of this connection (FWP_E_NOT_FOUND)",
}

# The pages contradict each other on what a small buffer is answered with: the size needed and
# ERROR_INSUFFICIENT_BUFFER (Remarks), or WSAEINVAL and no size (lpcbBytesReturned); WSAEFAULT
# is met in the field. So all three mean "try a larger one", up to a bound.
_MAYBE_TOO_SMALL = frozenset({ERROR_INSUFFICIENT_BUFFER, WSAEINVAL, WSAEFAULT})
_FIRST_BYTES = 1024  # "a 1,024 byte buffer … for example"
_MAX_BYTES = 65536
_SOCKADDR_BYTES = 128  # ws2def.h: _SS_MAXSIZE

# int, LONG and BOOL · DWORD, ULONG and UINT32 · SOCKET (a UINT_PTR) · any pointer, and HANDLE.
i32, u32, socket_t, pointer = ctypes.c_int32, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p
Declarations = Mapping[str, tuple[Any, tuple[Any, ...]]]


class Libraries(Protocol):
    """Where functions come from: Windows, or the fake of the tests."""

    def load(self, name: str) -> Any:
        """A library whose attributes are foreign functions. Raises OSError, RedirectError."""

    def last_error(self) -> int:
        """The calling thread's last error, after a call that failed; may be negative."""


class SystemLibraries:
    """The real ones."""

    def load(self, name: str) -> Any:
        windows = getattr(ctypes, "WinDLL", None)
        if windows is None:
            raise RedirectError("providers wfp and wfp-hns work on Windows only")
        # The thread's last error is kept by ctypes: Python's own calls in between change it.
        return windows(name, use_last_error=True)

    def last_error(self) -> int:
        return int(getattr(ctypes, "get_last_error")())  # noqa: B009 - exists on Windows only


def declare(libraries: Libraries, name: str, functions: Declarations) -> Any:
    """A library with the types of its functions set. Raises RedirectError, each its sentence."""
    try:
        library = libraries.load(name)
    except OSError as error:
        raise RedirectError(f"{name}.dll cannot be loaded: {error}") from error
    for function, (result, arguments) in functions.items():
        found = getattr(library, function, None)
        if found is None:
            raise RedirectError(
                f"{name}.dll has no {function}: Windows 8 or Server 2012 is the oldest that will do"
            )
        found.restype, found.argtypes = result, arguments
    return library


_WINSOCK: Declarations = {
    # win32/api/winsock2/nf-winsock2-wsaioctl
    "WSAIoctl": (i32, (socket_t, u32, pointer, u32, pointer, u32, pointer, pointer, pointer)),
    # win32/api/winsock/nf-winsock-getsockopt
    "getsockopt": (i32, (socket_t, i32, i32, pointer, pointer)),
}


class Winsock:
    """The redirect of a connection, asked of its accepted socket and set on the new one.

    Sockets are given as `sock.fileno()`: CPython's socket.ioctl knows three other codes only,
    and an event loop's stand-in for a socket ignores the call without a word.
    """

    def __init__(self, libraries: Libraries) -> None:
        self._last_error = libraries.last_error
        self._library = declare(libraries, "ws2_32", _WINSOCK)

    def query(self, sock: int, code: int) -> bytes:
        """Records or context of an accepted socket. Raises WinApiError."""
        size = _FIRST_BYTES
        while True:
            buffer, returned = ctypes.create_string_buffer(size), u32(0)
            if self._ioctl(sock, code, None, 0, buffer, size, returned) == 0:
                return buffer.raw[: returned.value]
            error = self.error()
            if error not in _MAYBE_TOO_SMALL or size == _MAX_BYTES:
                raise failed(_NAMES[code], error)
            wanted = returned.value if returned.value > size else size * 4
            size = min(wanted, _MAX_BYTES)

    def set_records(self, sock: int, records: bytes) -> None:
        """Put redirect records on a new socket, before bind and connect. Raises WinApiError."""
        code = SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS
        data = ctypes.create_string_buffer(records, len(records))
        if self._ioctl(sock, code, data, len(records), None, 0, u32(0)) != 0:
            raise failed(_NAMES[code], self.error())

    def original_destination(self, sock: int, *, six: bool) -> bytes:
        """A sockaddr by SO_ORIGINAL_DST: HNS's redirection (Server 2022). Raises WinApiError."""
        buffer, size = ctypes.create_string_buffer(_SOCKADDR_BYTES), i32(_SOCKADDR_BYTES)
        level = SOL_IPV6 if six else SOL_IP
        option = (sock, level, SO_ORIGINAL_DST, buffer, ctypes.byref(size))
        if self._library.getsockopt(*option) != 0:
            raise failed("SO_ORIGINAL_DST", self.error())
        return buffer.raw[: size.value]

    def error(self) -> int:
        """The last error, unsigned, as it is printed in the documentation."""
        return self._last_error() & 0xFFFFFFFF

    def _ioctl(
        self, sock: int, code: int, source: Any, source_size: int, out: Any, size: int, got: Any
    ) -> int:
        arguments = (sock, code, source, source_size, out, size, ctypes.byref(got), None, None)
        return int(self._library.WSAIoctl(*arguments))


def failed(call: str, error: int) -> WinApiError:
    """The error of a call with its own sentence."""
    known = SENTENCES.get(error, "Windows gives no documented reason")
    printed = f"{error:#010x}" if error > 0xFFFF else str(error)
    return WinApiError(f"{call}: {known}, error {printed}", error)
