"""Links that outlive the proxy: pinned in the BPF file system, for `on_crash: closed`.

/sys/fs/bpf/sluicegate/<network namespace>-<port>-<pid>/<program>: removing the file detaches the
program. The next start of a proxy with that listener replaces what is there.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from pathlib import Path

from proxy.errors import RedirectError

ROOT = Path("/sys/fs/bpf")
_MAGIC = 0xCAFE4A11  # linux/magic.h: BPF_FS_MAGIC
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, Linux 5.14
_COOKIE = struct.Struct("=Q")


def space_cookie() -> int:
    """The cookie of this thread's network namespace. Raises RedirectError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return space_of(probe)


def space_of(sock: socket.socket) -> int:
    """The cookie of a socket's network namespace. Raises RedirectError."""
    try:
        answer = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE.size)
    except OSError as error:
        raise RedirectError(
            "provider ebpf needs Linux 5.15 or newer: this kernel does not tell network "
            "namespaces apart (SO_NETNS_COOKIE); provider nft works on older ones"
        ) from error
    return int(_COOKIE.unpack(answer)[0])


class Pins:
    """The pins of one listener in one network namespace, made by whatever process."""

    def __init__(self, space: int, port: int) -> None:
        self._prefix = f"{space}-{port}-"

    def make(self) -> Path:
        """A new, empty directory for this process. Raises RedirectError."""
        folder = _file_system() / "sluicegate" / self.own
        remove(folder)  # of a process that had our number before
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RedirectError(f"cannot make {folder}: {error.strerror}") from error
        return folder

    @property
    def own(self) -> str:
        """The name of this process's directory; the file system allows no dots in it."""
        return f"{self._prefix}{os.getpid()}"

    def found(self) -> list[Path]:
        """Directories that are there. Raises RedirectError when they must not be looked at."""
        try:
            return sorted((ROOT / "sluicegate").glob(f"{self._prefix}*"))
        except OSError as error:
            raise RedirectError(f"{ROOT} cannot be read: {error.strerror}") from error


def remove(folder: Path) -> None:
    """Detach what is pinned there, what captures first; the directory too. Raises RedirectError."""
    try:
        for pin in sorted(folder.iterdir()):  # sluicegate_c4 and _c6 come first
            pin.unlink(missing_ok=True)
        folder.rmdir()
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    except FileNotFoundError:  # ENOENT: somebody else was quicker
        return
    except OSError as error:
        raise RedirectError(f"cannot remove {folder}: {error.strerror}") from error


def _file_system() -> Path:
    """The BPF file system, mounted if it is not (as bpftool does). Raises RedirectError."""
    if not ROOT.is_dir():
        raise RedirectError(
            f"{ROOT} is not there, so no redirect can outlive the proxy: "
            'set redirect.on_crash = "open", or mount /sys'
        )
    if not is_mounted():
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
        libc.mount.restype = ctypes.c_int
        if libc.mount(b"bpf", os.fsencode(ROOT), b"bpf", 0, b"mode=0700"):
            raise RedirectError(
                f"no BPF file system in {ROOT} ({os.strerror(ctypes.get_errno())}): mount it "
                f'(mount -t bpf bpf {ROOT}), or set redirect.on_crash = "open"'
            )
    return ROOT


def is_mounted() -> bool:
    """Whether ROOT is a BPF file system; statfs(2) tells it, os.statvfs does not."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.statfs.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    libc.statfs.restype = ctypes.c_int
    buffer = ctypes.create_string_buffer(256)  # struct statfs; f_type is its first word
    if libc.statfs(os.fsencode(ROOT), buffer):
        return False
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF == _MAGIC
