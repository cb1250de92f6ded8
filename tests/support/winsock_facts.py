"""What Microsoft's documentation says of the calls behind the `wfp` providers: data, with the
page of every row. Nothing here comes from the code under test, which has its own numbers;
tests compare the two, and both with mingw-w64's headers.

Pages are those of learn.microsoft.com: `win32/winsock/…` and `win32/api/…` (the Windows API),
`drivers/network/…` (the driver kit). A header's name stands where a value is printed in the
header only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One documented constant."""

    name: str
    value: int
    page: str


@dataclass(frozen=True)
class Layout:
    """One documented structure on 64-bit Windows: (field, offset, size), and how it is packed."""

    name: str
    size: int
    fields: tuple[tuple[str, int, int], ...]
    packing: struct.Struct
    header: str  #: what a C program includes to see it
    page: str


@dataclass(frozen=True)
class Signature:
    """One documented function: `i` int or LONG, `u` 32 bits, `s` SOCKET, `p` pointer or HANDLE."""

    library: str
    name: str
    result: str
    arguments: str
    page: str


_RECORDS = "win32/winsock/sio-query-wfp-connection-redirect-records"
_CONTEXT = "win32/winsock/sio-query-wfp-connection-redirect-context"
_SET = "win32/winsock/sio-set-wfp-connection-redirect-records"
_CODES = "win32/winsock/windows-sockets-error-codes-2"
_SYSTEM_CODES = "win32/debug/system-error-codes--0-499-"

CONTROL_CODES = (
    # mstcpip.h: _WSAIOW(IOC_VENDOR, 220..222), that is IOC_IN | IOC_VENDOR | number
    # (win32/winsock/winsock-ioctls: IOC_IN 0x80000000, vendor-specific codes 0x18000000).
    Fact("SIO_QUERY_WFP_CONNECTION_REDIRECT_RECORDS", 0x980000DC, _RECORDS),
    Fact("SIO_QUERY_WFP_CONNECTION_REDIRECT_CONTEXT", 0x980000DD, _CONTEXT),
    Fact("SIO_SET_WFP_CONNECTION_REDIRECT_RECORDS", 0x980000DE, _SET),
)

OPTIONS = (
    # "Query the original destination address of a redirected connection."
    Fact("SO_ORIGINAL_DST", 0x300F, "ws2def.h"),
    Fact("SOL_SOCKET", 0xFFFF, "win32/winsock/sol-socket-socket-options"),
    Fact("SOL_IP", 0xFFFB, "ws2def.h: SOL_SOCKET-4"),
    Fact("SOL_IPV6", 0xFFFA, "ws2def.h: SOL_SOCKET-5"),
    Fact("AF_INET", 2, "win32/api/winsock2/nf-winsock2-socket"),
    Fact("AF_INET6", 23, "win32/api/winsock2/nf-winsock2-socket"),
    Fact("SOCKET_ERROR", -1, "win32/api/winsock2/nf-winsock2-wsaioctl"),
)

#: Errors of the three control codes, each with the page that lists it for that call.
ERRORS = (
    Fact("WSAEINTR", 10004, _RECORDS),
    Fact("WSAEACCES", 10013, _SET),
    Fact("WSAEFAULT", 10014, _RECORDS),
    Fact("WSAEINVAL", 10022, _RECORDS),
    Fact("WSAEINPROGRESS", 10036, _RECORDS),
    Fact("WSAENOTSOCK", 10038, _RECORDS),
    Fact("WSAENOPROTOOPT", 10042, _RECORDS),
    Fact("WSAEOPNOTSUPP", 10045, _RECORDS),
    Fact("WSAENETDOWN", 10050, _RECORDS),
    Fact("WSAENOTCONN", 10057, _RECORDS),
    Fact("ERROR_INSUFFICIENT_BUFFER", 122, _RECORDS),
    Fact("FWP_E_NOT_FOUND", 0x80320008, "win32/fwp/wfp-error-codes"),
)

PROCESS_CONSTANTS = (
    Fact(
        "PROCESS_QUERY_LIMITED_INFORMATION", 0x1000,
        "win32/procthread/process-security-and-access-rights",
    ),
    Fact("TOKEN_QUERY", 0x0008, "win32/secauthz/access-rights-for-access-token-objects"),
    Fact("TokenUser", 1, "win32/api/winnt/ne-winnt-token_information_class"),
    Fact("TokenElevation", 20, "win32/api/winnt/ne-winnt-token_information_class"),
    Fact("TCP_TABLE_OWNER_PID_CONNECTIONS", 4, "win32/api/iprtrmib/ne-iprtrmib-tcp_table_class"),
    Fact("ERROR_SUCCESS", 0, _SYSTEM_CODES),
    Fact("ERROR_ACCESS_DENIED", 5, _SYSTEM_CODES),
    Fact("ERROR_INVALID_HANDLE", 6, _SYSTEM_CODES),
    # OpenProcess: "If the specified process is the System Idle Process (0x00000000), the
    # function fails and the last error code is ERROR_INVALID_PARAMETER"; so it is for pids that
    # do not exist.
    Fact("ERROR_FILE_NOT_FOUND", 2, _SYSTEM_CODES),
    Fact(
        "ERROR_INVALID_PARAMETER", 87,
        "win32/api/processthreadsapi/nf-processthreadsapi-openprocess",
    ),
    Fact("ERROR_NONE_MAPPED", 1332, "win32/api/winbase/nf-winbase-lookupaccountsidw"),
    Fact("ERROR_INVALID_SID", 1337, "win32/debug/system-error-codes--1300-1699-"),
    Fact("APPMODEL_ERROR_NO_PACKAGE", 15700, "win32/api/appmodel/nf-appmodel-getpackagefamilyname"),
)  # fmt: skip

FACTS = CONTROL_CODES + OPTIONS + ERRORS + PROCESS_CONSTANTS

SOCKADDR_IN = Layout(
    "sockaddr_in",
    16,
    (("sin_family", 0, 2), ("sin_port", 2, 2), ("sin_addr", 4, 4), ("sin_zero", 8, 8)),
    struct.Struct("<H2s4s8x"),
    "winsock2.h",
    "win32/winsock/sockaddr-2",
)
SOCKADDR_IN6 = Layout(
    "sockaddr_in6",
    28,
    (
        ("sin6_family", 0, 2),
        ("sin6_port", 2, 2),
        ("sin6_flowinfo", 4, 4),
        ("sin6_addr", 8, 16),
        ("sin6_scope_id", 24, 4),
    ),
    struct.Struct("<H2sI16sI"),
    "ws2tcpip.h",
    "win32/winsock/sockaddr-2",
)
SOCKADDR_STORAGE = Layout(
    "sockaddr_storage",
    128,
    (("ss_family", 0, 2),),
    struct.Struct("<H126s"),
    "winsock2.h",
    "win32/api/winsock2 and ws2def.h: _SS_MAXSIZE 128",
)
FILETIME = Layout(
    "FILETIME",
    8,
    (("dwLowDateTime", 0, 4), ("dwHighDateTime", 4, 4)),
    struct.Struct("<II"),
    "windows.h",
    "win32/api/minwinbase/ns-minwinbase-filetime",
)
SID_AND_ATTRIBUTES = Layout(
    "SID_AND_ATTRIBUTES",
    16,
    (("Sid", 0, 8), ("Attributes", 8, 4)),
    struct.Struct("<QI4x"),
    "windows.h",
    "win32/api/winnt/ns-winnt-sid_and_attributes",
)
TOKEN_USER = Layout(
    "TOKEN_USER",
    16,
    (("User", 0, 16),),
    struct.Struct("<QI4x"),
    "windows.h",
    "win32/api/winnt/ns-winnt-token_user",
)
TOKEN_ELEVATION = Layout(
    "TOKEN_ELEVATION",
    4,
    (("TokenIsElevated", 0, 4),),
    struct.Struct("<I"),
    "windows.h",
    "win32/api/winnt/ns-winnt-token_elevation",
)
MIB_TCPROW_OWNER_PID = Layout(
    "MIB_TCPROW_OWNER_PID",
    24,
    (
        ("dwState", 0, 4),
        ("dwLocalAddr", 4, 4),
        ("dwLocalPort", 8, 4),
        ("dwRemoteAddr", 12, 4),
        ("dwRemotePort", 16, 4),
        ("dwOwningPid", 20, 4),
    ),
    # Addresses and ports are in network byte order; of a port's DWORD the upper 16 bits "may
    # contain uninitialized data".
    struct.Struct("<I4s2s2x4s2s2xI"),
    "iphlpapi.h",
    "win32/api/tcpmib/ns-tcpmib-mib_tcprow_owner_pid",
)
MIB_TCP6ROW_OWNER_PID = Layout(
    "MIB_TCP6ROW_OWNER_PID",
    56,
    (
        ("ucLocalAddr", 0, 16),
        ("dwLocalScopeId", 16, 4),
        ("dwLocalPort", 20, 4),
        ("ucRemoteAddr", 24, 16),
        ("dwRemoteScopeId", 40, 4),
        ("dwRemotePort", 44, 4),
        ("dwState", 48, 4),
        ("dwOwningPid", 52, 4),
    ),
    struct.Struct("<16sI2s2x16sI2s2xII"),
    "iphlpapi.h",
    "win32/api/tcpmib/ns-tcpmib-mib_tcp6row_owner_pid",
)
LAYOUTS = (
    SOCKADDR_IN,
    SOCKADDR_IN6,
    SOCKADDR_STORAGE,
    FILETIME,
    SID_AND_ATTRIBUTES,
    TOKEN_USER,
    TOKEN_ELEVATION,
    MIB_TCPROW_OWNER_PID,
    MIB_TCP6ROW_OWNER_PID,
)

_PROCESS = "win32/api/processthreadsapi/nf-processthreadsapi-"
SIGNATURES = (
    # int WSAIoctl(SOCKET s, DWORD code, LPVOID in, DWORD cbIn, LPVOID out, DWORD cbOut,
    #              LPDWORD returned, LPWSAOVERLAPPED, LPWSAOVERLAPPED_COMPLETION_ROUTINE)
    Signature("ws2_32", "WSAIoctl", "i", "supupuppp", "win32/api/winsock2/nf-winsock2-wsaioctl"),
    # int getsockopt(SOCKET s, int level, int optname, char *optval, int *optlen)
    Signature("ws2_32", "getsockopt", "i", "siipp", "win32/api/winsock/nf-winsock-getsockopt"),
    Signature("kernel32", "OpenProcess", "p", "uiu", _PROCESS + "openprocess"),
    Signature("kernel32", "CloseHandle", "i", "p", "win32/api/handleapi/nf-handleapi-closehandle"),
    Signature("kernel32", "GetCurrentProcess", "p", "", _PROCESS + "getcurrentprocess"),
    Signature("kernel32", "GetProcessTimes", "i", "ppppp", _PROCESS + "getprocesstimes"),
    # BOOL QueryFullProcessImageNameW(HANDLE, DWORD flags, LPWSTR name, PDWORD size)
    Signature(
        "kernel32", "QueryFullProcessImageNameW", "i", "pupp",
        "win32/api/winbase/nf-winbase-queryfullprocessimagenamew",
    ),
    # LONG GetPackageFamilyName(HANDLE, UINT32 *length, PWSTR name)
    Signature(
        "kernel32", "GetPackageFamilyName", "i", "ppp",
        "win32/api/appmodel/nf-appmodel-getpackagefamilyname",
    ),
    # DWORD QueryDosDeviceW(LPCWSTR device, LPWSTR target, DWORD characters)
    Signature(
        "kernel32", "QueryDosDeviceW", "u", "ppu",
        "win32/api/fileapi/nf-fileapi-querydosdevicew",
    ),
    Signature("kernel32", "LocalFree", "p", "p", "win32/api/winbase/nf-winbase-localfree"),
    Signature("advapi32", "OpenProcessToken", "i", "pup", _PROCESS + "openprocesstoken"),
    # BOOL GetTokenInformation(HANDLE, TOKEN_INFORMATION_CLASS, LPVOID, DWORD size, PDWORD needed)
    Signature(
        "advapi32", "GetTokenInformation", "i", "pipup",
        "win32/api/securitybaseapi/nf-securitybaseapi-gettokeninformation",
    ),
    Signature(
        "advapi32", "ConvertSidToStringSidW", "i", "pp",
        "win32/api/sddl/nf-sddl-convertsidtostringsidw",
    ),
    # BOOL LookupAccountSidW(LPCWSTR system, PSID, LPWSTR name, LPDWORD cchName, LPWSTR domain,
    #                        LPDWORD cchDomain, PSID_NAME_USE)
    Signature(
        "advapi32", "LookupAccountSidW", "i", "ppppppp",
        "win32/api/winbase/nf-winbase-lookupaccountsidw",
    ),
    # DWORD GetExtendedTcpTable(PVOID, PDWORD size, BOOL order, ULONG af, TCP_TABLE_CLASS, ULONG)
    Signature(
        "iphlpapi", "GetExtendedTcpTable", "u", "ppiuiu",
        "win32/api/iphlpapi/nf-iphlpapi-getextendedtcptable",
    ),
)  # fmt: skip

#: FILETIME counts 100 ns since 1601-01-01 (win32/sysinfo/file-times): this much before 1970.
FILETIME_OF_UNIX_EPOCH = 116444736000000000


def fact(name: str) -> int:
    """The value of a constant."""
    (value,) = (row.value for row in FACTS if row.name == name)
    return value
