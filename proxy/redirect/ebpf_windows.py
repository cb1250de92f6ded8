"""The redirector under ebpf-for-windows: the programs of provider `ebpf`, loaded by ebpfapi.dll.

There connect4 and connect6 are run by a WFP callout at ALE_CONNECT_REDIRECT, so connections
arrive as they do from any driver: context, records and principal are provider `wfp`'s part, and
only installing is done here. https://github.com/microsoft/ebpf-for-windows: include/ebpf_api.h,
include/ebpf_nethooks.h, docs/NativeCodeGeneration.md.

No filters at ALE_AUTH_CONNECT are added through fwpuclnt.dll: with redirect records WFP
authorises the proxy's connection as the application's by itself, and what policy refuses is
refused before the dial. So nothing of ours is left in the filter engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from proxy.errors import RedirectError
from proxy.redirect import libbpf, winapi
from proxy.redirect.ebpf_scope import SETTINGS_KEY, Exempt, exempt_key, make_scope
from proxy.redirect.libbpf import BpfError, BpfLink, BpfObject
from proxy.redirect.options import OnCrash, RedirectOptions
from proxy.redirect.provider import Health
from proxy.redirect.wfp import WfpProvider

PROGRAMS = ("sluicegate_c4", "sluicegate_c6")
#: In the order of preference: release builds of ebpf-for-windows load native drivers only.
OBJECTS = ("connect_redirect.sys", "connect_redirect.o")
ALL_COMPARTMENTS = 0  # ebpf_nethooks.h: UNSPECIFIED_COMPARTMENT_ID
_ENOENT = 2

#: ebpf_result.h, in its order from EBPF_SUCCESS = 0.
_RESULTS = {
    1: "its verifier refuses the program",
    2: "it cannot compile the program: with HVCI only native drivers (.sys) run",
    3: "it cannot load the program",
    6: "it does not take these arguments: is netebpfext, its network extension, running?",
    8: "something is pinned there already",
    12: "it has no memory left",
    14: "its service does not answer: start ebpfsvc",
    18: "this release does not support it",
    20: "it needs an administrator: run this elevated",
    21: "it runs native drivers (.sys) only: convert the object with bpf2c and sign it",
    23: "its network extension does not load: start netebpfext",
}
_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "redirector", _PACKAGE.parent / "build" / "redirector-windows")


def find_object(places: tuple[Path, ...] = _PLACES) -> Path:
    """The redirector as this system loads it. Raises RedirectError."""
    for folder in places:
        for name in OBJECTS:
            if (folder / name).is_file():
                return folder / name
    raise RedirectError(
        f"provider ebpf: {OBJECTS[0]} is not in {places[0]}; deploy/redirector/README.md tells how "
        f"it is built and signed. Provider wfp works with any redirecting driver"
    )


class WindowsRedirector:
    """In force from construction to `close`. Raises RedirectError."""

    def __init__(self, options: RedirectOptions, compartment: int = ALL_COMPARTMENTS) -> None:
        """`compartment`: only connections made in this network compartment."""
        self._links: list[BpfLink] = []
        self._compartment = compartment
        self._object = _load(find_object())
        try:
            self.apply(options)
            # After the maps: nothing is sent anywhere before the proxy's address is known.
            self._attach_all(options.listen.port)
            if options.on_crash is OnCrash.CLOSED:
                self._pin(options.listen.port)
        except BaseException:
            self.close()
            raise

    def apply(self, options: RedirectOptions) -> None:
        """Fill the maps anew, while the programs run. Raises RedirectError."""
        _check(options)
        scope = make_scope(options, 0, groups=False, routes=False)
        # The program there knows no start time: the pid is ours as long as we live.
        own = exempt_key(Exempt.PROCESS, 0, os.getpid())
        self._object.map("exempt").replace({own: (1).to_bytes(4, "little")})
        for name, entries in scope.tries.items():
            self._object.map(name).replace(entries)
        self._object.map("ports").replace(scope.ports)
        self._object.map("settings").update(SETTINGS_KEY, scope.settings)

    def close(self) -> None:
        """Detach first. Again is harmless."""
        self._detach()
        self._object.close()

    def _attach_all(self, port: int) -> None:
        """Beside a dead proxy's programs; a release that takes one only gets ours instead."""
        try:
            self._links.extend(map(self._attach, PROGRAMS))
        except RedirectError:
            if not pinned(port):
                raise
            self._detach()
            unpin(port)
            self._links.extend(map(self._attach, PROGRAMS))

    def _detach(self) -> None:
        while self._links:
            self._links.pop().destroy()

    def _attach(self, program: str) -> BpfLink:
        """The attach type is that of the program's section; the parameter is the compartment."""
        found, link = self._object.program(program), ctypes.c_void_p()
        compartment = ctypes.c_uint32(self._compartment)
        result = libbpf.library().ebpf_program_attach(
            found,
            None,
            ctypes.byref(compartment),
            ctypes.sizeof(compartment),
            ctypes.byref(link),
        )
        if result or link.value is None:
            raise _refused(f"cannot attach {program}", result)
        return BpfLink(link.value)

    def _pin(self, port: int) -> None:
        """A dead proxy's pins go first: this one's programs are in force already."""
        unpin(port)
        for program, link in zip(PROGRAMS, self._links, strict=True):
            link.pin(pin_path(port, program))


def pin_path(port: int, program: str) -> PurePosixPath:
    """Below the prefix that every release of ebpf-for-windows takes."""
    return PurePosixPath(f"/ebpf/global/sluicegate_{port}_{program}")


def pinned(port: int) -> list[str]:
    """The programs whose links are pinned for that listener."""
    return [program for program in PROGRAMS if _with_pin(port, program, lambda fd: None)]


def unpin(port: int) -> None:
    """Detach what is pinned for that listener, whoever has pinned it."""
    api = libbpf.library()
    for program in PROGRAMS:
        if _with_pin(port, program, api.bpf_link_detach):
            api.ebpf_object_unpin(os.fsencode(str(pin_path(port, program))))


def _with_pin(port: int, program: str, act: Callable[[int], object]) -> bool:
    """Open a pinned link for the moment of `act`. False: there is none. Raises BpfError."""
    api = libbpf.library()
    path = pin_path(port, program)
    fd = api.bpf_obj_get(os.fsencode(str(path)))
    if fd < 0:
        error = ctypes.get_errno() or -fd
        if error != _ENOENT:
            raise BpfError(f"cannot open {path}", error)
        return False
    try:
        act(fd)
    finally:
        api.ebpf_close_fd(fd)
    return True


class EbpfWindowsProvider(WfpProvider):
    """Provider `ebpf` on Windows: the programs capture, and what they tell is read as `wfp`'s."""

    name = "ebpf"

    def __init__(
        self,
        options: RedirectOptions,
        libraries: Callable[[], winapi.Libraries] = winapi.SystemLibraries,
    ) -> None:
        super().__init__(options, libraries)
        self._redirector: WindowsRedirector | None = None
        self._adopted = False

    def install(self) -> None:
        super().install()
        if self._redirector is not None:
            self._redirector.apply(self._options)
        else:
            self._redirector = WindowsRedirector(self._options)

    def adopt(self) -> None:
        super().install()
        self._adopted = True

    def remove(self) -> None:
        redirector, self._redirector = self._redirector, None
        if redirector is not None:
            redirector.close()
        if self._adopted:
            self._adopted = False
            unpin(self._options.listen.port)
        super().remove()

    def health(self) -> Health:
        able = super().health()
        captures = self._redirector is not None or self._adopted
        if not able.ok or not captures:
            return able
        with contextlib.suppress(RedirectError):
            return Health(True, self.snapshot())
        return Health(False, "the redirect was removed by somebody else")

    def snapshot(self) -> str:
        if self._redirector is not None and self._options.on_crash is OnCrash.OPEN:
            return f"{', '.join(PROGRAMS)}, on_crash open"
        port = self._options.listen.port
        found = pinned(port)
        if len(found) < len(PROGRAMS):
            raise RedirectError("the redirect is not installed")
        return "\n".join(str(pin_path(port, program)) for program in found)


def _check(options: RedirectOptions) -> None:
    """What Linux's programs can and these cannot."""
    for name in ("cgroup", "uid", "foreign", "prerouting", "exempt_cgroups"):
        if getattr(options, name) not in (None, (), False):
            raise RedirectError(f"redirect.{name} does not exist on Windows: leave it out")


def _load(path: Path) -> BpfObject:
    try:
        return BpfObject(path)
    except BpfError as error:
        raise RedirectError(
            f"ebpf-for-windows does not take {path.name}: {error}. It must run (sc query ebpfcore, "
            f"netebpfext), this process be elevated, and the file be signed"
        ) from error


def _refused(what: str, result: int) -> RedirectError:
    reason = _RESULTS.get(result, "ebpf-for-windows gives no further reason")
    return RedirectError(f"{what}: {reason} (ebpf_result {result})")
