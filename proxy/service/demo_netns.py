"""Two network namespaces for `sluicegate demo` as root: a machine with the proxy, and an origin.

The demo's own thread enters a namespace (setns(2) is per thread) and leaves it again, so what
it connects or starts meanwhile is there. Nothing outside of the two is touched, and both are
removed at the end with all that is in them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000  # sched.h
ORIGIN_ADDRESS, _CLIENT_ADDRESS = "198.18.0.2", "198.18.0.1"  # RFC 2544: for tests, never routed


def unusable() -> str:
    """Why namespaces and nftables cannot be used here; empty when they can."""
    if sys.platform != "linux":
        return "nftables are Linux's"
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


class Namespaces:
    """A pair joined by a virtual cable. Raises OSError where the kernel does not allow it."""

    def __init__(self) -> None:
        self.client = f"sluicegate-demo-{os.getpid()}-a"
        self.origin = f"sluicegate-demo-{os.getpid()}-b"
        try:
            for name in (self.client, self.origin):
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", self.client, "link", "add", "to-origin", "type", "veth",
                "peer", "name", "to-client", "netns", self.origin)  # fmt: skip
            self._address(self.client, "to-origin", _CLIENT_ADDRESS)
            self._address(self.origin, "to-client", ORIGIN_ADDRESS)
        except OSError:
            self.remove()
            raise

    @staticmethod
    def _address(name: str, interface: str, address: str) -> None:
        _ip("-n", name, "address", "add", f"{address}/30", "dev", interface)
        _ip("-n", name, "link", "set", interface, "up")

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, and the processes that it starts, are in that namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inner = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(inner)
            finally:
                os.close(inner)
            try:
                yield
            finally:
                _setns(before)
        finally:
            os.close(before)

    def remove(self) -> None:
        """Harmless for what was not made."""
        for name in (self.client, self.origin):
            if os.path.exists(f"/run/netns/{name}"):
                _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is Python 3.12's
    libc.setns.argtypes, libc.setns.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
