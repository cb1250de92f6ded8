"""Fake Winsock: the WFP control codes, SO_ORIGINAL_DST, and the driver that redirects.

Sockets are this machine's own; what WFP would know of them (who was redirected, which records
a new socket carries) is kept here. Written from the pages named in winsock_facts; where a page
contradicts itself, `too_small` chooses one of its readings.
"""

from __future__ import annotations

import ctypes
import enum
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.fake_winprocess import Connection, Processes
from tests.support.winsock_facts import CONTROL_CODES, SOCKADDR_IN, SOCKADDR_IN6, fact

Address = tuple[str, int]
Fail = Callable[[str | int, int], int]
SOCKET_ERROR = fact("SOCKET_ERROR")
_NAMES = {row.value: row.name for row in CONTROL_CODES}
#: deploy/redirector/redirect_context.h: struct sluicegate_context.
_CONTEXT_V1 = struct.Struct("<IHHBBHI16s16s2s2sIQQQHHI")


class TooSmall(enum.Enum):
    """What a query answers when the output buffer is too small. The pages say, in turn:"""

    #: "will return ERROR_INSUFFICIENT_BUFFER and the required buffer size" (Remarks), also for
    #: a size of 0.
    TELLS_SIZE = "size"
    #: "WSAGetLastError returns WSAEINVAL, and lpcbBytesReturned points to a DWORD value of zero"
    #: (lpcbBytesReturned; also cbOutBuffer: "at least the size of a ULONG").
    INVALID = "invalid"
    #: "The lpvOutBuffer … parameter is not totally contained in a valid part of the user address
    #: space" (WSAEFAULT), which user-mode code in the field meets for a NULL or short buffer.
    FAULT = "fault"


def normal(address: tuple[Any, ...]) -> Address:
    """An address as (text, port), IPv4 never written as IPv6."""
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    return str(getattr(ip, "ipv4_mapped", None) or ip), int(address[1])


@dataclass
class Captured:
    """What the driver attached to one redirected connection."""

    original: Address
    pid: int
    records: bytes
    context: bytes | None


@dataclass
class Driver:
    """A callout at ALE_CONNECT_REDIRECT, as its own clients meet it.

    "Using Bind or Connect Redirection", step 5: the original destination is saved in the
    redirect context, the remote address becomes loopback, or the address that the client had
    bound, and the port the proxy's.
    """

    processes: Processes
    proxy_port: int
    layout: Callable[[Address, Address, int], bytes | None] | None = None  #: context of a client
    captured: dict[Address, Captured] = field(default_factory=dict)  #: by the client's address
    serial: int = 0

    def connect(
        self, destination: Address, pid: int = 0, *, source: str | None = None
    ) -> socket.socket:
        """An application connects to `destination` and is sent to the proxy."""
        six = ":" in destination[0]
        family = socket.AF_INET6 if six else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(5)
        try:
            sock.bind((source or ("::1" if six else "127.0.0.1"), 0))
            client = normal(sock.getsockname())
            self.capture(client, destination, pid)
            sock.connect((client[0], self.proxy_port))
            # The table of connections shows it as it is now, redirected.
            row = Connection(client, normal(sock.getpeername()), pid)
            self.processes.connections.append(row)
        except BaseException:
            sock.close()
            raise
        return sock

    def capture(self, client: Address, destination: Address, pid: int) -> Captured:
        """Attach context and records, as FwpsApplyModifiedLayerData0 makes WFP do."""
        self.serial += 1
        context = (self.layout or self.context_v1)(destination, client, pid)
        # Opaque: its content is nobody's business, but it differs for every connection.
        records = b"WFPR" + os.urandom(8) + self.serial.to_bytes(4, "little") + b"\xaa" * 80
        found = Captured(destination, pid, records, context)
        self.captured[client] = found
        return found

    def context_v1(self, destination: Address, client: Address, pid: int) -> bytes:
        """Our own layout, as deploy/redirector/redirect_context.h prints it."""
        process = self.processes.running.get(pid)
        sid = process.sid if process else b""
        application = process.nt_path.encode("utf-16-le") if process else b""
        created = process.created if process else 0
        original, source = (ipaddress.ip_address(a[0]) for a in (destination, client))
        fixed = _CONTEXT_V1.pack(
            0x31434753, 1, 88 + len(sid) + len(application), original.version, 6, 1 | 2 | 4,
            pid, original.packed.ljust(16, b"\0"), source.packed.ljust(16, b"\0"),
            destination[1].to_bytes(2, "big"), client[1].to_bytes(2, "big"), 0xFFFFFFFF,
            created, 999, 1, len(sid), len(application), 0,
        )  # fmt: skip
        return fixed + sid + application


class Winsock:
    """ws2_32.dll as far as the providers use it."""

    def __init__(self, driver: Driver, fail: Fail) -> None:
        self._driver = driver
        self._fail = fail
        self.privileged = True  #: WSAEACCES: "lacks the required administrative privileges"
        self.supported = True  #: WSAEOPNOTSUPP: "not supported by the transport provider"
        self.too_small = TooSmall.TELLS_SIZE
        self.grow_by = 0  #: the data grows by so much between two queries
        self.broken: dict[int, str] = {}  #: control code -> error that it always answers
        self.carried: dict[int, bytes] = {}  #: inode of a new socket -> records set on it

    # --- WSAIoctl

    def WSAIoctl(
        self, sock: int, code: int, source: int | None, source_size: int, out: int | None,
        out_size: int, returned: int | None, overlapped: int | None, routine: int | None,
    ) -> int:  # fmt: skip
        # "If the lpOverlapped parameter is NULL, lpcbBytesReturned may not be NULL."
        if returned is None or overlapped is not None or routine is not None:
            return self._fail("WSAEFAULT", SOCKET_ERROR)
        _write_u32(returned, 0)
        if code in self.broken:
            return self._fail(self.broken[code], SOCKET_ERROR)
        if not self.supported:
            return self._fail("WSAEOPNOTSUPP", SOCKET_ERROR)
        if code not in _NAMES:  # "dwIoControlCode … is not a valid command"
            return self._fail("WSAEINVAL", SOCKET_ERROR)
        found = _socket(sock)
        if found is None:
            return self._fail("WSAENOTSOCK", SOCKET_ERROR)
        with found:
            if _NAMES[code].startswith("SIO_SET"):
                return self._set(found, source, source_size, out_size)
            return self._query(found, code, out, out_size, returned)

    def _query(
        self, sock: socket.socket, code: int, out: int | None, size: int, returned: int
    ) -> int:
        try:
            client = normal(sock.getpeername())
        except OSError:
            return self._fail("WSAENOTCONN", SOCKET_ERROR)
        captured = self._driver.captured.get(client)
        if captured is None:
            return self._fail("FWP_E_NOT_FOUND", SOCKET_ERROR)
        context = _NAMES[code].endswith("CONTEXT")
        data = captured.context if context else captured.records
        if data is None:  # "The redirect context is an optional driver-allocated context"
            return self._fail("FWP_E_NOT_FOUND", SOCKET_ERROR)
        data += b"\0" * self.grow_by
        if size < len(data):
            return self._refuse_size(len(data), size, returned)
        if out is None:
            return self._fail("WSAEFAULT", SOCKET_ERROR)
        ctypes.memmove(out, data, len(data))
        _write_u32(returned, len(data))
        return 0

    def _refuse_size(self, needed: int, size: int, returned: int) -> int:
        if self.too_small is TooSmall.FAULT:
            return self._fail("WSAEFAULT", SOCKET_ERROR)
        if self.too_small is TooSmall.INVALID or 0 < size < 4:
            return self._fail("WSAEINVAL", SOCKET_ERROR)
        _write_u32(returned, needed)
        return self._fail("ERROR_INSUFFICIENT_BUFFER", SOCKET_ERROR)

    def _set(self, sock: socket.socket, source: int | None, size: int, out_size: int) -> int:
        if not self.privileged:
            return self._fail("WSAEACCES", SOCKET_ERROR)
        if source is None:
            return self._fail("WSAEFAULT", SOCKET_ERROR)
        records = ctypes.string_at(source, size)
        known = any(records == one.records for one in self._driver.captured.values())
        # "cbOutBuffer must be set to zero"; "a specified input parameter is not acceptable"; and
        # "the new TCP socket used for connecting": it may have neither address nor peer yet.
        new = sock.type == socket.SOCK_STREAM and sock.getsockname()[1] == 0
        if out_size or not known or not new:
            return self._fail("WSAEINVAL", SOCKET_ERROR)
        self.carried[os.fstat(sock.fileno()).st_ino] = records
        return 0

    # --- getsockopt

    def getsockopt(
        self, sock: int, level: int, option: int, value: int | None, size: int | None
    ) -> int:
        """Only SO_ORIGINAL_DST; anything else is WSAENOPROTOOPT here."""
        if value is None or size is None:
            return self._fail("WSAEFAULT", SOCKET_ERROR)
        found = _socket(sock)
        if found is None:
            return self._fail("WSAENOTSOCK", SOCKET_ERROR)
        with found:
            try:
                client = normal(found.getpeername())
            except OSError:  # the page knows of no WSAENOTCONN here
                return self._fail("WSAEINVAL", SOCKET_ERROR)
        captured = self._driver.captured.get(client)
        wanted = fact("SOL_IPV6") if ":" in client[0] else fact("SOL_IP")
        if option != fact("SO_ORIGINAL_DST") or level != wanted or captured is None:
            return self._fail("WSAENOPROTOOPT", SOCKET_ERROR)
        data = sockaddr(captured.original)
        room = ctypes.c_int32.from_address(size)
        if room.value < len(data):  # "or the optlen parameter is too small"
            return self._fail("WSAEFAULT", SOCKET_ERROR)
        ctypes.memmove(value, data, len(data))
        room.value = len(data)
        return 0

    # --- what a test looks at

    def records_of(self, local: tuple[Any, ...]) -> bytes | None:
        """The records that the live socket bound to `local` carries: what WFP authorises it by."""
        for name in os.listdir("/proc/self/fd"):
            found = _socket(int(name))
            if found is not None:
                with found:
                    ours = found.family in (socket.AF_INET, socket.AF_INET6)
                    if ours and normal(found.getsockname()) == normal(local):
                        return self.carried.get(os.fstat(found.fileno()).st_ino)
        return None

    def describe(self, name: str, arguments: tuple[Any, ...]) -> str:
        """The arguments that matter, for the transcript of calls."""
        if name == "WSAIoctl":
            code = _NAMES.get(arguments[1], hex(arguments[1]))
            return f"{code}, in={arguments[3]}, out={arguments[5]}"
        if name == "getsockopt":
            return f"level={arguments[1]:#x}, option={arguments[2]:#x}"
        return ""


def sockaddr(address: Address) -> bytes:
    """A sockaddr_in or sockaddr_in6 with Windows' numbers for the families."""
    ip = ipaddress.ip_address(address[0])
    port = address[1].to_bytes(2, "big")
    if ip.version == 4:
        return SOCKADDR_IN.packing.pack(fact("AF_INET"), port, ip.packed)
    return SOCKADDR_IN6.packing.pack(fact("AF_INET6"), port, 0, ip.packed, 0)


def _socket(descriptor: int) -> socket.socket | None:
    """A duplicate of a descriptor that is a socket."""
    try:
        copy = os.dup(descriptor)
    except (OSError, OverflowError):
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None


def _write_u32(address: int, value: int) -> None:
    ctypes.c_uint32.from_address(address).value = value
