"""Our callout driver from user mode: deploy/redirector/windows-driver/control.h, the same bytes.

The redirect lives as long as the handle that started it, or beyond it with on_crash "closed".
CreateFileW, DeviceIoControl: learn.microsoft.com/windows/win32/api/fileapi/, /ioapiset/.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from proxy.errors import RedirectError, WinApiError
from proxy.redirect import winapi
from proxy.redirect.options import OnCrash, RedirectOptions
from proxy.redirect.provider import Health
from proxy.redirect.wfp import WfpProvider
from proxy.redirect.winapi import Declarations, Libraries, declare, i32, pointer, u32

DEVICE = "\\\\.\\Sluicegate"
CONFIGURE, START, STOP, STATUS = 0x12A004, 0x12A008, 0x12A00C, 0x126010
MAGIC = 0x31444753  #: "SGD1"
VERSION = 1
MAX_BYTES = 65536
IPV4, IPV6, LOOPBACK, KEEP_ON_CLOSE = 0x1, 0x2, 0x4, 0x8

CONFIG = struct.Struct("<IHHIIHHHHH6x")
EXEMPT = struct.Struct("<QII")
NETWORK = struct.Struct("<BB2x16s")
PORTS = struct.Struct("<HH")
STATUS_LAYOUT = struct.Struct("<IIIIQQQQQQ")

#: Of RedirectOptions, what the driver has nothing for.
_UNKNOWN = ("cgroup", "uid", "foreign", "prerouting", "include", "exempt_cgroups", "block_quic")
_READ_WRITE = 0xC0000000  # GENERIC_READ | GENERIC_WRITE
_OPEN_EXISTING = 3
_INVALID_HANDLE = ctypes.c_void_p(-1).value
_KERNEL: Declarations = {
    "CreateFileW": (pointer, (pointer, u32, u32, pointer, u32, u32, pointer)),
    "DeviceIoControl": (
        i32,
        (pointer, u32, pointer, u32, pointer, u32, pointer, pointer),
    ),
    "CloseHandle": (i32, (pointer,)),
}
#: What the driver's NTSTATUS becomes on the way up.
_SENTENCES = {
    2: "the driver is not running: sc start SluicegateRedirector",
    5: "it needs an administrator: run the proxy elevated, or as a service",
    22: "it has not been told yet what to capture",
    87: "the driver does not take this configuration: is it of another version?",
    170: "another proxy uses the driver",
    1450: "the system has no memory left for it",
}


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """struct sluicegate_status."""

    version: int
    started: bool
    proxy_pid: int
    orphaned: bool  #: the proxy that started it has gone
    redirected: int
    left_alone: int
    own: int
    another_local: int
    no_right: int
    blocked: int


def pack_config(
    options: RedirectOptions, proxy_pid: int, exempt: Iterable[tuple[int, int]] = ()
) -> bytes:
    """struct sluicegate_config with its lists. `exempt`: (pid, start as FILETIME or 0).

    Raises RedirectError when the options name what the driver does not know, or too much of it.
    """
    _check(options)
    exempts = [EXEMPT.pack(start, pid, 0) for pid, start in exempt]
    networks = [_network(cidr) for cidr in options.exclude]
    ports = [PORTS.pack(*ports) for ports in options.ports]
    lists = b"".join((*exempts, *networks, *ports))
    size, port = CONFIG.size + len(lists), options.listen.port
    if size > MAX_BYTES:
        raise RedirectError(f"the driver takes {MAX_BYTES} bytes of networks and ports, not {size}")
    counts = len(exempts), len(networks), len(ports)
    flags = _flags(options)
    return CONFIG.pack(MAGIC, VERSION, flags, size, proxy_pid, port, port, *counts) + lists


def _check(options: RedirectOptions) -> None:
    for name in (
        "cgroup",
        "uid",
        "foreign",
        "prerouting",
        "include",
        "exempt_cgroups",
        "block_quic",
    ):
        if getattr(options, name) not in (None, (), False):
            raise RedirectError(f"redirect.{name} is not known to the driver: leave it out")


def _flags(options: RedirectOptions) -> int:
    chosen = {
        IPV4: options.ipv4,
        IPV6: options.ipv6,
        LOOPBACK: options.include_loopback,
        KEEP_ON_CLOSE: options.on_crash is OnCrash.CLOSED,
    }
    return sum(flag for flag, wanted in chosen.items() if wanted)


def _network(cidr: str) -> bytes:
    """An IPv4-mapped network means IPv4, as which its connections are shown to the driver."""
    net = ipaddress.ip_network(cidr, strict=False)
    prefix, address = net.prefixlen, net.network_address
    if isinstance(address, ipaddress.IPv6Address) and prefix >= 96 and address.ipv4_mapped:
        return NETWORK.pack(4, prefix - 96, address.ipv4_mapped.packed)
    return NETWORK.pack(net.version, prefix, address.packed)


class Driver:
    """An open handle to the device. Raises WinApiError, RedirectError."""

    def __init__(self, libraries: Libraries) -> None:
        self._libraries = libraries
        self._kernel = declare(libraries, "kernel32", _KERNEL)
        name = ctypes.create_string_buffer(f"{DEVICE}\0".encode("utf-16-le"))
        handle = self._kernel.CreateFileW(name, _READ_WRITE, 0, None, _OPEN_EXISTING, 0, None)
        if handle == _INVALID_HANDLE:
            raise self._failed("open the redirector's device")
        self._handle: Any = handle

    def configure(self, config: bytes) -> None:
        """What is captured from now on; whole or not at all."""
        self._control("configure the redirector", CONFIGURE, config)

    def start(self) -> None:
        self._control("start the redirector", START)

    def stop(self) -> None:
        self._control("stop the redirector", STOP)

    def status(self) -> DriverStatus:
        told = self._control("ask the redirector", STATUS, wanted=STATUS_LAYOUT.size)
        if len(told) != STATUS_LAYOUT.size:
            raise RedirectError("the redirector's answer is not of this version: update the driver")
        version, started, pid, orphaned, *counters = STATUS_LAYOUT.unpack(told)
        return DriverStatus(version, bool(started), pid, bool(orphaned), *counters)

    def close(self) -> None:
        """The redirect goes with the handle, unless it was told to stay. Again is harmless."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._kernel.CloseHandle(handle)

    def _control(self, what: str, code: int, data: bytes = b"", wanted: int = 0) -> bytes:
        out, got = ctypes.create_string_buffer(max(1, wanted)), u32(0)
        source = ctypes.create_string_buffer(data, len(data)) if data else None
        arguments = (code, source, len(data), out, wanted, ctypes.byref(got), None)
        if not self._kernel.DeviceIoControl(self._handle, *arguments):
            raise self._failed(what)
        return out.raw[: got.value]

    def _failed(self, what: str) -> WinApiError:
        code = self._libraries.last_error() & 0xFFFFFFFF
        why = _SENTENCES.get(code, "Windows gives no further reason")
        return WinApiError(f"cannot {what}: {why} (error {code})", code)


class DriverProvider(WfpProvider):
    """Provider `wfp-driver`: our own driver, told what to capture, and read as `wfp` is."""

    name = "wfp-driver"

    def __init__(
        self,
        options: RedirectOptions,
        libraries: Callable[[], Libraries] = winapi.SystemLibraries,
    ) -> None:
        super().__init__(options, libraries)
        self._driver: Driver | None = None

    def install(self) -> None:
        super().install()
        config = pack_config(self._options, os.getpid())
        driver = self._driver or Driver(self._libraries())
        try:
            driver.configure(config)
            driver.start()
        except RedirectError:
            driver.close()
            self._driver = None
            raise
        self._driver = driver

    def remove(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.closing(driver):
                driver.stop()
        super().remove()

    def health(self) -> Health:
        able = super().health()
        if not able.ok or self._driver is None:
            return able
        try:
            told = self._driver.status()
        except RedirectError as error:
            return Health(False, str(error))
        if not told.started or told.proxy_pid != os.getpid():
            return Health(False, "the driver was stopped, or works for another proxy")
        return Health(True, f"driver: {told.redirected} redirected, {told.blocked} blocked")
