"""Which process of this machine owns a connection: the table of TCP connections.

The fall-back where a redirector does not tell the process. It is asked after the fact, so the
answer is likely and no more.
"""

from __future__ import annotations

import ctypes
import ipaddress
from typing import Any

from proxy.model import Endpoint, normalise_ip
from proxy.redirect.winapi import (
    AF_INET,
    AF_INET6,
    ERROR_INSUFFICIENT_BUFFER,
    Declarations,
    Libraries,
    declare,
    i32,
    pointer,
    u32,
)

TCP_TABLE_OWNER_PID_CONNECTIONS = 4
_TIME_WAIT = 11  # MIB_TCP_STATE_TIME_WAIT: nobody owns it
_TABLE_TRIES = 5  # the table may grow between asking for its size and asking for it
_SPARE_BYTES = 4096


class TcpRow(ctypes.Structure):
    """win32/api/tcpmib/ns-tcpmib-mib_tcprow_owner_pid; addresses and ports in network order."""

    _fields_ = (
        ("dwState", u32),
        ("dwLocalAddr", ctypes.c_uint8 * 4),
        ("dwLocalPort", ctypes.c_uint8 * 4),
        ("dwRemoteAddr", ctypes.c_uint8 * 4),
        ("dwRemotePort", ctypes.c_uint8 * 4),
        ("dwOwningPid", u32),
    )


class Tcp6Row(ctypes.Structure):
    """win32/api/tcpmib/ns-tcpmib-mib_tcp6row_owner_pid"""

    _fields_ = (
        ("ucLocalAddr", ctypes.c_uint8 * 16),
        ("dwLocalScopeId", u32),
        ("dwLocalPort", ctypes.c_uint8 * 4),
        ("ucRemoteAddr", ctypes.c_uint8 * 16),
        ("dwRemoteScopeId", u32),
        ("dwRemotePort", ctypes.c_uint8 * 4),
        ("dwState", u32),
        ("dwOwningPid", u32),
    )


_IPHLPAPI: Declarations = {
    # win32/api/iphlpapi/nf-iphlpapi-getextendedtcptable
    "GetExtendedTcpTable": (u32, (pointer, pointer, i32, u32, i32, u32)),
}


class Connections:
    """iphlpapi."""

    def __init__(self, libraries: Libraries) -> None:
        self._library = declare(libraries, "iphlpapi", _IPHLPAPI)

    def owner(self, local: Endpoint, remote: Endpoint) -> int | None:
        """The pid behind the end `local` of a connection of this machine.

        By its own end; when connections to several places share that, by the other one too.
        None when that does not settle it.
        """
        six = ":" in local.host
        found = {peer: pid for end, peer, pid in self._rows(six) if end == local and pid}
        if remote in found:
            return found[remote]
        owners = set(found.values())
        return owners.pop() if len(owners) == 1 else None

    def _rows(self, six: bool) -> list[tuple[Endpoint, Endpoint, int]]:
        row: type[TcpRow | Tcp6Row] = Tcp6Row if six else TcpRow
        data = self._table(AF_INET6 if six else AF_INET)
        # A count, then the rows; both structures are made of DWORDs, so nothing is in between.
        count = min(int.from_bytes(data[:4], "little"), (len(data) - 4) // ctypes.sizeof(row))
        rows = (row * count).from_buffer_copy(data, 4) if count > 0 else ()
        prefix = "uc" if six else "dw"
        return [
            (_end(one, f"{prefix}Local"), _end(one, f"{prefix}Remote"), int(one.dwOwningPid))
            for one in rows
            if one.dwState != _TIME_WAIT
        ]

    def _table(self, family: int) -> bytes:
        size, buffer = u32(0), None
        kind = TCP_TABLE_OWNER_PID_CONNECTIONS
        for _ in range(_TABLE_TRIES):
            error = self._library.GetExtendedTcpTable(
                buffer, ctypes.byref(size), 0, family, kind, 0
            )
            if error == 0 and buffer is not None:
                return buffer.raw[: size.value]
            if error != ERROR_INSUFFICIENT_BUFFER:
                break
            size.value += _SPARE_BYTES
            buffer = ctypes.create_string_buffer(size.value)
        return b""


def _end(row: Any, side: str) -> Endpoint:
    address = bytes(getattr(row, side + "Addr"))
    port = bytes(getattr(row, f"dw{side[2:]}Port"))[:2]  # the upper half may be anything
    return Endpoint(normalise_ip(str(ipaddress.ip_address(address))), int.from_bytes(port, "big"))
