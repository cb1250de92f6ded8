"""libbpf's API by ctypes: libbpf.so.1 on Linux, ebpfapi.dll (ebpf-for-windows) on Windows.

Objects, maps, programs and links as the C API has them (https://libbpf.readthedocs.io), with
every argument's type declared. What the two systems do differently is in `_Backend`. An error
becomes a RedirectError that says what was tried, and the last thing that the library said.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from ctypes import c_char_p, c_int, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from proxy.errors import RedirectError

_ANY = 0  # linux/bpf.h: BPF_ANY
_WARN = 0  # libbpf.h: LIBBPF_WARN
_LINE = 4096
_KEPT = 40  #: lines of the library's complaints

_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

#: name -> (result, arguments); bpf/libbpf.h and bpf/bpf.h, the same in both libraries.
_COMMON: dict[str, tuple[Any, list[Any]]] = {
    "bpf_object__open": (c_void_p, [c_char_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_object__find_program_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_link__fd": (c_int, [c_void_p]),
    "bpf_link__pin": (c_int, [c_void_p, c_char_p]),
    "bpf_link__unpin": (c_int, [c_void_p]),
    "bpf_link__destroy": (c_int, [c_void_p]),
}


@dataclass(frozen=True, slots=True)
class _Backend:
    """What one system does in its own way."""

    library: str
    missing: str  #: what to do when the library is not there
    own: dict[str, tuple[Any, list[Any]]]


_LINUX = _Backend(
    "libbpf.so.1",
    "install libbpf 1.0 or newer (Debian: apt-get install libbpf1)",
    {
        "bpf_program__attach_cgroup": (c_void_p, [c_void_p, c_int]),
        "libbpf_set_print": (c_void_p, [_PRINT]),
    },
)
_WINDOWS = _Backend(
    "ebpfapi.dll",
    "install ebpf-for-windows",
    {
        "bpf_program__attach": (c_void_p, [c_void_p]),
        # ebpf_api.h; the result is an ebpf_result_t
        "ebpf_program_attach": (
            c_int,
            [c_void_p, c_void_p, c_void_p, ctypes.c_size_t, ctypes.POINTER(c_void_p)],
        ),
        "ebpf_object_unpin": (c_int, [c_char_p]),
        "bpf_obj_get": (c_int, [c_char_p]),
        "bpf_link_detach": (c_int, [c_int]),
        "ebpf_close_fd": (c_int, [c_int]),
    },
)


class _Complaints:
    """What the library printed; its verifier log says why a program was refused."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._lock = threading.Lock()
        self._format = ctypes.CDLL(None).vsnprintf if sys.platform != "win32" else None
        if self._format is not None:
            self._format.argtypes = [c_char_p, ctypes.c_size_t, c_char_p, c_void_p]
        self.callback = _PRINT(self._take)

    def _take(self, level: int, template: bytes, arguments: int) -> int:
        # A va_list arrives as a pointer on x86-64 and arm64 (their System V ABIs).
        if level != _WARN or self._format is None:
            return 0
        buffer = ctypes.create_string_buffer(_LINE)
        self._format(buffer, _LINE, template, arguments)
        text = buffer.value.decode("utf-8", "replace")
        with self._lock:
            self.lines = [*self.lines, *text.splitlines()][-_KEPT:]
        return 0

    def clear(self) -> None:
        with self._lock:
            self.lines = []

    def last(self) -> str:
        """The line that says most: the verifier's last one before its statistics."""
        with self._lock:
            lines = [line.strip() for line in self.lines]
        useful = [line for line in lines if line and not line.startswith(("processed ", "-- "))]
        before = [line for line in useful if not line.startswith("libbpf: ")]
        return (before or useful or [""])[-1]


@cache
def _complaints() -> _Complaints:
    return _Complaints()


@cache
def library() -> Any:
    """The library, its functions declared. Raises RedirectError when it is not installed."""
    backend = _WINDOWS if sys.platform == "win32" else _LINUX
    try:
        found = ctypes.CDLL(backend.library, use_errno=True)
        for name, (result, arguments) in (_COMMON | backend.own).items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except OSError as error:
        raise RedirectError(
            f"provider ebpf needs {backend.library}: {backend.missing} ({error})"
        ) from error
    except AttributeError as error:
        raise RedirectError(f"{backend.library} is too old: {backend.missing} ({error})") from error
    if "libbpf_set_print" in backend.own:
        found.libbpf_set_print(_complaints().callback)
    return found


class BpfError(RedirectError):
    """A call of the library failed; `errno` says how."""

    def __init__(self, what: str, number: int) -> None:
        self.errno = number
        said = _complaints().last()
        super().__init__(f"{what}: {os.strerror(number)}" + (f" ({said})" if said else ""))


class BpfMap:
    """A map by its descriptor. Keys and values are bytes of exactly the map's sizes."""

    def __init__(self, name: str, fd: int, key_size: int, value_size: int) -> None:
        self.name = name
        self._fd = fd
        self._key_size = key_size
        self._value_size = value_size
        self._written: dict[bytes, bytes] = {}

    def update(self, key: bytes, value: bytes) -> None:
        """Insert or replace. Raises BpfError."""
        self._check(len(key), len(value))
        if library().bpf_map_update_elem(self._fd, key, value, _ANY):
            raise BpfError(f"map {self.name} takes no entry", ctypes.get_errno())

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None where there is no such key."""
        self._check(len(key), self._value_size)
        value = ctypes.create_string_buffer(self._value_size)
        if library().bpf_map_lookup_elem(self._fd, key, value):
            return None
        return value.raw

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""
        self._check(len(key), self._value_size)
        return not library().bpf_map_delete_elem(self._fd, key)

    def keys(self) -> Iterator[bytes]:
        """Every key; what is changed meanwhile may be missed."""
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self._key_size)
            if library().bpf_map_get_next_key(self._fd, key, following):
                return
            key = following.raw
            yield key

    def replace(self, wanted: Mapping[bytes, bytes]) -> None:
        """Make the map hold exactly that, if only `replace` writes to it. Raises BpfError.

        New entries first, so that nothing is missing meanwhile. What it holds is remembered
        and not asked for: an LPM trie answers with the longest prefix, not with that very key.
        """
        for key, value in wanted.items():
            if self._written.get(key) != value:
                self.update(key, value)
                self._written[key] = value
        for key in [key for key in self._written if key not in wanted]:
            self.delete(key)
            del self._written[key]

    def _check(self, key: int, value: int) -> None:
        if (key, value) != (self._key_size, self._value_size):
            raise ValueError(
                f"map {self.name}: {key} and {value} bytes for a key of {self._key_size} "
                f"and a value of {self._value_size}"
            )


class BpfLink:
    """A program attached somewhere, as long as this process lives, or as long as it is pinned."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle
        self._pinned: PurePath | None = None

    def pin(self, path: PurePath) -> None:
        """Let it outlive this process. Raises BpfError."""
        if library().bpf_link__pin(self._handle, os.fsencode(path)):
            raise BpfError(f"cannot pin {path}", ctypes.get_errno())
        self._pinned = path

    def attached(self) -> bool:
        """False when somebody has detached it, or when its cgroup was removed."""
        if self._handle is None:
            return False
        fd = library().bpf_link__fd(self._handle)
        try:
            info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        except OSError:  # no /proc, or another system
            return True
        return "cgroup_id:\t0\n" not in info

    def destroy(self) -> None:
        """Detach; the pin goes too."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        if self._pinned is not None:
            library().bpf_link__unpin(handle)
        library().bpf_link__destroy(handle)


class BpfObject:
    """An object file's maps and programs, loaded into the kernel until `close`."""

    def __init__(self, path: Path) -> None:
        """Raises BpfError, RedirectError."""
        api = library()
        _complaints().clear()
        self._handle: int | None = api.bpf_object__open(os.fsencode(path))
        if self._handle is None:
            raise BpfError(f"cannot open {path}", ctypes.get_errno())
        ctypes.set_errno(0)
        failed = api.bpf_object__load(self._handle)
        if failed:
            self.close()
            raise BpfError(f"the kernel does not take {path.name}", abs(failed))

    def map(self, name: str) -> BpfMap:
        """Raises RedirectError when the object has no such map."""
        api = library()
        found = api.bpf_object__find_map_by_name(self._handle, name.encode())
        if not found:
            raise RedirectError(f"the redirector has no map {name!r}: it is of another version")
        sizes = api.bpf_map__key_size(found), api.bpf_map__value_size(found)
        return BpfMap(name, api.bpf_map__fd(found), *sizes)

    def attach(self, program: str, cgroup: int = -1) -> BpfLink:
        """Put a program in force; on Linux for the cgroup of that descriptor. Raises BpfError."""
        api = library()
        found = api.bpf_object__find_program_by_name(self._handle, program.encode())
        if not found:
            raise RedirectError(f"the redirector has no program {program!r}")
        if sys.platform == "win32":
            link = api.bpf_program__attach(found)
        else:
            link = api.bpf_program__attach_cgroup(found, cgroup)
        if not link:
            raise BpfError(f"cannot attach {program}", ctypes.get_errno())
        return BpfLink(link)

    def program(self, name: str) -> int:
        """A program's handle, for calls that one system alone has. Raises RedirectError."""
        found = library().bpf_object__find_program_by_name(self._handle, name.encode())
        if not found:
            raise RedirectError(f"the redirector has no program {name!r}")
        return int(found)

    def close(self) -> None:
        """Give the descriptors back; what is attached stays with its link."""
        handle, self._handle = self._handle, None
        if handle is not None:
            library().bpf_object__close(handle)


__all__ = ["BpfError", "BpfLink", "BpfMap", "BpfObject", "library"]
