"""The loaded redirector: its programs attached, its maps filled, and how to undo both.

INVARIANT: what captures is attached last and detached first, so that no connection is sent to
us whose context we could not read. While one of ours replaces a dead proxy's pinned one both are
there for a moment; a connection of that moment is refused, never let through.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import RedirectError
from proxy.redirect import cgroups, ebpf_pins
from proxy.redirect.ebpf_object import find_object
from proxy.redirect.ebpf_scope import (
    SETTINGS_KEY,
    Exempt,
    Route,
    exempt_key,
    make_scope,
    networks,
    trie,
    trie_key,
)
from proxy.redirect.libbpf import BpfError, BpfLink, BpfObject
from proxy.redirect.netlink_routes import Routes, RouteWatch
from proxy.redirect.options import OnCrash, RedirectOptions

SO_CONTEXT = 0x5347  #: SG_SO_CONTEXT of deploy/redirector/linux_answers.h
_SO_SELF = 0x5348
_SOL_IP = 0
_SELF = struct.Struct("=IIQQQ")
_MAGIC = 0x31434753

ANSWERS = "sluicegate_opt"
_ARRIVALS = "sluicegate_in"
#: In the order in which they are attached at the captured cgroup.
_CAPTURE = ("sluicegate_ops", "sluicegate_p4", "sluicegate_p6", "sluicegate_c4", "sluicegate_c6")
_QUIC = ("sluicegate_s4", "sluicegate_s6")
#: Addresses that mean this machine and stand in no routing table.
_HERE = ("0.0.0.0/32", "::/128")


@dataclass(frozen=True, slots=True)
class Self:
    """Who we are to the redirector's programs."""

    pid: int  #: in the first pid namespace
    start: int  #: hundredths of a second since boot
    space: int  #: cookie of the listener's network namespace


class Redirector:
    """In force from construction to `close`. Raises RedirectError."""

    def __init__(self, options: RedirectOptions) -> None:
        _check_kernel()
        self._lock = threading.Lock()  # health is asked in one thread, the end comes in another
        self._links: dict[str, BpfLink] = {}
        self._routes: RouteWatch | None = None
        self._pinned: Path | None = None
        self._tested = ""
        self._options = options
        self._object = _load()
        try:
            self._self = self._attach_answers()
            self.apply(options)
            self._routes = RouteWatch(self._put_routes)
            self._attach_capture()
            self._make_last()
        except BaseException:
            self.close()
            raise

    def apply(self, options: RedirectOptions) -> None:
        """Change what is captured, while it runs. Raises RedirectError.

        Not the cgroup, on_crash and listener: they are where programs are attached.
        """
        groups = {path: _group_id(path) for path in options.exempt_cgroups}
        scope = make_scope(options, self._self.space, groups=bool(groups), routes=True)
        present = struct.pack("=I", 1)
        self._object.map("exempt").replace(
            {
                exempt_key(Exempt.MARK, options.mark): present,
                exempt_key(Exempt.PROCESS, self._self.start, self._self.pid): present,
            }
            | {exempt_key(Exempt.GROUP, number): present for number in groups.values()}
        )
        for name, entries in scope.tries.items():
            self._object.map(name).replace(entries)
        self._object.map("ports").replace(scope.ports)
        self._object.map("settings").update(SETTINGS_KEY, scope.settings)
        self._options = options

    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        with self._lock:
            return self._problem()

    def _problem(self) -> str | None:
        for name, link in self._links.items():
            if not link.attached():
                return f"program {name} was detached by somebody else, or its cgroup is gone"
        if self._pinned is not None and not (self._pinned / _CAPTURE[-1]).exists():
            return f"{self._pinned} was removed by somebody else"
        if self._routes is not None and self._routes.problem:
            return self._routes.problem
        return None

    @property
    def place(self) -> str:
        """Where it captures, for people."""
        where = cgroups.directory(self._options.cgroup)
        return f"{where}{self._tested}, on_crash {self._options.on_crash}"

    def close(self) -> None:
        """Detach everything, what captures first. Again is harmless."""
        routes, self._routes = self._routes, None
        if routes is not None:
            routes.stop()
        with self._lock:
            for name in reversed(list(self._links)):
                self._links.pop(name).destroy()
            if self._pinned is not None:
                ebpf_pins.remove(self._pinned)
                self._pinned = None
            self._object.close()

    def _attach_answers(self) -> Self:
        """At the cgroup in which the listening socket was made: it runs for that one, whatever
        cgroup this process is in. It says itself whether it does."""
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(sock) for sock in _listeners(self._options.listen.port)]
            places = cgroups.ancestors(cgroups.path_of()) if probes else ["/"]
            if not probes:
                self._tested = " (no listener of this process to test it with)"
                probes = [stack.enter_context(socket.socket())]
            for place in places:
                link = self._attach(ANSWERS, place)
                found = [_ask(probe) for probe in probes]
                if None not in found and found[0] is not None:
                    self._links[ANSWERS] = link
                    self._links[_ARRIVALS] = self._attach(_ARRIVALS, place)
                    return found[0]
                link.destroy()
        raise RedirectError(
            f"the listener {self._options.listen} was made in a cgroup that is not "
            f"{cgroups.path_of()} nor above it, so the redirector cannot answer there: let the "
            f"proxy make its listener itself"
        )

    def _attach_capture(self) -> None:
        for name in (*_CAPTURE, *(_QUIC if self._options.block_quic else ())):
            self._links[name] = self._attach(name, self._options.cgroup)

    def _attach(self, program: str, cgroup: str | None) -> BpfLink:
        folder = cgroups.directory(cgroup)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self._object.attach(program, handle)
        except BpfError as error:
            raise RedirectError(f"{error}, at cgroup {folder}") from error
        finally:
            os.close(handle)

    def _make_last(self) -> None:
        """Pins where the redirect is to outlive us; a dead proxy's are replaced in any case."""
        pins = ebpf_pins.Pins(self._self.space, self._options.listen.port)
        old = [folder for folder in pins.found() if folder.name != pins.own]
        if self._options.on_crash is OnCrash.CLOSED:
            self._pinned = pins.make()
            for name, link in self._links.items():
                link.pin(self._pinned / name)
        for folder in old:
            ebpf_pins.remove(folder)

    def _put_routes(self, routes: Routes) -> None:
        wanted = {4: {}, 6: {}}  # type: dict[int, dict[bytes, bytes]]
        for net, kind in routes.items():
            wanted[net.version][trie_key(net)] = struct.pack("=I", kind)
        local = struct.pack("=I", Route.LOCAL)
        for net in networks(_HERE):
            wanted[net.version] |= trie([net], local)
        self._object.map("routes4").replace(wanted[4])
        self._object.map("routes6").replace(wanted[6])


def _load() -> BpfObject:
    path = find_object()
    try:
        return BpfObject(path)
    except BpfError as error:
        if error.errno in (1, 13):  # EPERM; EACCES also when the verifier refuses
            raise RedirectError(
                f"provider ebpf needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: {error}"
            ) from error
        raise RedirectError(
            f"this kernel does not run the redirector (Linux 5.15 or newer with BPF and "
            f"cgroups is needed): {error}; provider nft does not need them"
        ) from error


def _check_kernel() -> None:
    if not Path("/sys/kernel/btf/vmlinux").exists():
        raise RedirectError(
            "this kernel does not describe itself (CONFIG_DEBUG_INFO_BTF, "
            "/sys/kernel/btf/vmlinux), which provider ebpf needs; provider nft does not"
        )


def _listeners(port: int) -> Iterator[socket.socket]:
    """This process's listening TCP sockets of that port in this thread's network namespace, as
    duplicates to be closed."""
    space = ebpf_pins.space_cookie()
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # EBADF: the descriptor of the listing itself, or closed meanwhile
            continue
        if _is_listener(sock, port) and ebpf_pins.space_of(sock) == space:
            yield sock
        else:
            sock.close()


def _is_listener(sock: socket.socket, port: int) -> bool:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return bool(listens) and sock.getsockname()[1] == port


def _ask(sock: socket.socket) -> Self | None:
    """The answering program about ourselves; None: it does not run for this socket."""
    try:
        answer = sock.getsockopt(_SOL_IP, _SO_SELF, _SELF.size)
    except OSError:  # ENOPROTOOPT: nobody but the kernel answered
        return None
    if len(answer) != _SELF.size:
        return None
    magic, pid, start, space, _ = _SELF.unpack(answer)
    return Self(pid, start, space) if magic == _MAGIC else None


def _group_id(path: str) -> int:
    return cgroups.directory(path).stat().st_ino
