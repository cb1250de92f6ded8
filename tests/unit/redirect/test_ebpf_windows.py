"""Provider `ebpf` on Windows against a stand-in for ebpfapi.dll that keeps its documented rules."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect import ebpf_windows, libbpf, registry, standing
from proxy.redirect.ebpf_windows import EbpfWindowsProvider, WindowsRedirector, find_object, unpin
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from tests.support.fake_windows import FakeWindows

PORT = 15001
C4, C6 = "sluicegate_c4", "sluicegate_c6"
PIN4, PIN6 = (f"/ebpf/global/sluicegate_{PORT}_{name}" for name in (C4, C6))
ENOENT, EACCES = 2, 13
#: name -> (key, value) bytes; deploy/redirector/redirect_maps.h
MAPS = {
    "settings": (4, 64),
    "ports": (4, 8),
    "exempt": (16, 4),
    **{f"{kind}4": (8, 4) for kind in ("exclude", "include")},
    **{f"{kind}6": (20, 4) for kind in ("exclude", "include")},
}


class FakeEbpf:
    """libbpf's API as ebpfapi.dll exports it. What was called, in order, is in `calls`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.maps: dict[str, dict[bytes, bytes]] = {name: {} for name in MAPS}
        self.links: dict[int, str] = {}  #: handle -> program that is attached
        self.pins: dict[str, str] = {}  #: path -> program
        self.compartments: list[int] = []
        self.fails: dict[str, int] = {}  #: call, or call:program -> its error
        self.takes_one_only = False
        self._names = list(MAPS)
        self._programs = (C4, C6)
        self._next = 100

    @property
    def attached(self) -> set[str]:
        return set(self.links.values()) | set(self.pins.values())

    def bpf_object__open(self, path: bytes) -> int | None:
        self.calls.append(f"open {Path(path.decode()).name}")
        return None if self._failed("open") else 1

    def bpf_object__load(self, handle: int) -> int:
        self.calls.append("load")
        return -self.fails.get("load", 0)

    def bpf_object__close(self, handle: int) -> None:
        self.calls.append("close")

    def bpf_object__find_map_by_name(self, handle: int, name: bytes) -> int | None:
        known = name.decode()
        return 1000 + self._names.index(known) if known in self._names else None

    def bpf_map__fd(self, found: int) -> int:
        return found - 1000

    def bpf_map__key_size(self, found: int) -> int:
        return MAPS[self._names[found - 1000]][0]

    def bpf_map__value_size(self, found: int) -> int:
        return MAPS[self._names[found - 1000]][1]

    def bpf_map_update_elem(self, fd: int, key: bytes, value: bytes, flags: int) -> int:
        name = self._names[fd]
        assert (len(key), len(value)) == MAPS[name]
        if not self.calls or self.calls[-1] != f"fill {name}":
            self.calls.append(f"fill {name}")
        self.maps[name][key] = value
        return 0

    def bpf_map_delete_elem(self, fd: int, key: bytes) -> int:
        del self.maps[self._names[fd]][key]
        return 0

    def bpf_object__find_program_by_name(self, handle: int, name: bytes) -> int | None:
        known = name.decode()
        return 2000 + self._programs.index(known) if known in self._programs else None

    def ebpf_program_attach(
        self, program: int, kind: Any, parameters: Any, size: int, link: Any
    ) -> int:
        name = self._programs[program - 2000]
        assert kind is None  # the section's
        assert size == 4
        result = self.fails.get(f"attach:{name}", 0)
        if self.takes_one_only and name in self.attached:
            result = 8  # EBPF_OBJECT_ALREADY_EXISTS
        self.calls.append(f"attach {name}" + (f" -> {result}" if result else ""))
        if result == 0:
            compartment = ctypes.cast(parameters, ctypes.POINTER(ctypes.c_uint32)).contents
            self.compartments.append(compartment.value)
            self._next += 1
            self.links[self._next] = name
            ctypes.cast(link, ctypes.POINTER(ctypes.c_void_p)).contents.value = self._next
        return result

    def bpf_link__pin(self, link: int, path: bytes) -> int:
        known = path.decode()
        assert known not in self.pins
        self.calls.append(f"pin {known}")
        if self._failed("pin"):
            return -1
        self.pins[known] = self.links[link]
        return 0

    def bpf_link__unpin(self, link: int) -> int:
        name = self.links[link]
        for path in [path for path, program in self.pins.items() if program == name]:
            self.calls.append(f"unpin {path}")
            del self.pins[path]
        return 0

    def bpf_link__destroy(self, link: int) -> int:
        self.calls.append(f"detach {self.links.pop(link)}")
        return 0

    def bpf_obj_get(self, path: bytes) -> int:
        known = path.decode()
        if known not in self.pins:
            ctypes.set_errno(ENOENT)
            return -1
        if self._failed("get"):
            return -1
        return 3000 + list(self.pins).index(known)

    def bpf_link_detach(self, fd: int) -> int:
        self.calls.append(f"detach pinned {list(self.pins.values())[fd - 3000]}")
        return 0

    def ebpf_object_unpin(self, path: bytes) -> int:
        self.calls.append(f"unpin {path.decode()}")
        del self.pins[path.decode()]
        return 0

    def ebpf_close_fd(self, fd: int) -> int:
        assert fd >= 3000
        return 0

    def die(self) -> None:
        """The process ends: its links go, unless they are pinned."""
        self.links.clear()

    def _failed(self, call: str) -> bool:
        if call in self.fails:
            ctypes.set_errno(self.fails[call])
        return call in self.fails


@pytest.fixture
def ebpf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEbpf:
    fake = FakeEbpf()
    (tmp_path / "connect_redirect.sys").touch()
    monkeypatch.setattr(libbpf, "library", lambda: fake)
    monkeypatch.setattr(ebpf_windows, "find_object", lambda: tmp_path / "connect_redirect.sys")
    return fake


def options(**changes: Any) -> RedirectOptions:
    values: dict[str, Any] = {
        "listen": Endpoint("::", PORT),
        "ports": (PortRange(80, 80), PortRange(443, 443)),
        "exclude": ("10.0.0.0/8",),
    }
    return RedirectOptions(**{**values, **changes})


def test_the_maps_are_filled_before_a_program_is_attached(ebpf: FakeEbpf) -> None:
    WindowsRedirector(options(on_crash=OnCrash.OPEN))
    attaching = ebpf.calls.index(f"attach {C4}")
    assert ebpf.calls[:2] == ["open connect_redirect.sys", "load"]
    assert set(ebpf.calls[2:attaching]) >= {"fill settings", "fill ports", "fill exclude4"}
    assert ebpf.calls[attaching:] == [f"attach {C4}", f"attach {C6}"]
    assert ebpf.compartments == [0, 0]  # every compartment


def test_what_the_maps_say(ebpf: FakeEbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ebpf_windows.os, "getpid", lambda: 4711)
    WindowsRedirector(options())
    assert ebpf.maps["exempt"] == {struct.pack("<IIQ", 2, 4711, 0): b"\1\0\0\0"}
    assert struct.pack("<I4s", 8, bytes((10, 0, 0, 0))) in ebpf.maps["exclude4"]
    word, bit = divmod(443, 64)
    assert struct.unpack("<Q", ebpf.maps["ports"][struct.pack("<I", word)])[0] >> bit & 1
    [settings] = ebpf.maps["settings"].values()
    assert settings[16:20] == bytes((127, 0, 0, 1))  # to loopback
    assert PORT.to_bytes(2, "big") in settings


def test_a_compartment_may_be_chosen(ebpf: FakeEbpf) -> None:
    WindowsRedirector(options(), compartment=3)
    assert ebpf.compartments == [3, 3]


@pytest.mark.parametrize("on_crash", list(OnCrash))
def test_a_crash_leaves_the_redirect_or_not(ebpf: FakeEbpf, on_crash: OnCrash) -> None:
    WindowsRedirector(options(on_crash=on_crash))
    ebpf.die()
    assert ebpf.attached == ({C4, C6} if on_crash is OnCrash.CLOSED else set())


@pytest.mark.parametrize("on_crash", list(OnCrash))
def test_closing_leaves_nothing(ebpf: FakeEbpf, on_crash: OnCrash) -> None:
    redirector = WindowsRedirector(options(on_crash=on_crash))
    redirector.close()
    assert (ebpf.links, ebpf.pins) == ({}, {})
    assert ebpf.calls[-1] == "close"
    redirector.close()  # again is harmless
    assert (ebpf.links, ebpf.pins) == ({}, {})


@pytest.mark.parametrize("takes_one_only", [False, True])
def test_a_restart_takes_over_from_a_dead_proxy(ebpf: FakeEbpf, takes_one_only: bool) -> None:
    WindowsRedirector(options())
    ebpf.die()
    ebpf.takes_one_only = takes_one_only
    before = len(ebpf.calls)
    WindowsRedirector(options())
    assert set(ebpf.links.values()) == {C4, C6}
    assert set(ebpf.pins) == {PIN4, PIN6}
    calls = ebpf.calls[before:]
    if not takes_one_only:  # no gap: the new ones are there before the old ones go
        assert calls.index(f"attach {C6}") < calls.index(f"detach pinned {C4}")


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        ("open", EACCES, "must run"),
        ("load", EACCES, "be signed"),
        (f"attach:{C6}", 20, "elevated"),
        (f"attach:{C4}", 18, "does not support"),
        (f"attach:{C4}", 99, "ebpf_result 99"),
        ("pin", EACCES, "cannot pin"),
    ],
)
def test_each_failure_has_its_sentence_and_leaves_nothing(
    ebpf: FakeEbpf, call: str, error: int, sentence: str
) -> None:
    ebpf.fails[call] = error
    with pytest.raises(RedirectError, match=sentence):
        WindowsRedirector(options())
    assert (ebpf.links, ebpf.pins) == ({}, {})


@pytest.mark.parametrize("change", [{"uid": 7}, {"cgroup": "a/b"}, {"prerouting": ("eth0",)}])
def test_what_windows_does_not_have_is_refused(ebpf: FakeEbpf, change: dict[str, Any]) -> None:
    with pytest.raises(RedirectError, match="does not exist on Windows"):
        WindowsRedirector(options(**change))
    assert ebpf.links == {}


def test_the_native_driver_is_preferred(tmp_path: Path) -> None:
    with pytest.raises(RedirectError, match="built and signed"):
        find_object((tmp_path,))
    (tmp_path / "connect_redirect.o").touch()
    assert find_object((tmp_path,)).suffix == ".o"
    (tmp_path / "connect_redirect.sys").touch()
    assert find_object((tmp_path,)).suffix == ".sys"


# --- the provider


def provider(system: FakeWindows, **changes: Any) -> EbpfWindowsProvider:
    return EbpfWindowsProvider(options(**changes), lambda: system.libraries)


def test_the_provider_installs_reports_and_removes(ebpf: FakeEbpf) -> None:
    made = provider(FakeWindows(PORT))
    assert not made.health().ok
    made.install()
    assert made.health().ok
    assert made.snapshot() == f"{PIN4}\n{PIN6}"
    made.install()  # again: only the maps are filled anew
    assert len(ebpf.links) == 2
    made.remove()
    assert (ebpf.attached, made.health().ok) == (set(), False)


def test_a_redirect_that_somebody_removed_is_noticed(ebpf: FakeEbpf) -> None:
    made = provider(FakeWindows(PORT))
    made.install()
    unpin(PORT)
    assert made.health().detail == "the redirect was removed by somebody else"


def test_another_process_takes_it_down(ebpf: FakeEbpf) -> None:
    """`redirect up` in one process, `redirect down` in another."""
    provider(FakeWindows(PORT)).install()
    ebpf.die()
    other = provider(FakeWindows(PORT))
    other.adopt()
    assert other.health().ok
    other.remove()
    assert ebpf.attached == set()
    other.remove()  # harmless


def test_redirects_to_other_ports_are_left_alone(ebpf: FakeEbpf) -> None:
    provider(FakeWindows(PORT)).install()
    ebpf.die()
    other = provider(FakeWindows(PORT + 1), listen=Endpoint("::", PORT + 1))
    other.adopt()
    other.remove()
    assert set(ebpf.pins) == {PIN4, PIN6}


def test_an_error_that_is_not_absence_is_told(ebpf: FakeEbpf) -> None:
    provider(FakeWindows(PORT)).install()
    ebpf.fails["get"] = EACCES
    with pytest.raises(RedirectError, match="cannot open"):
        unpin(PORT)


# --- the command


def test_redirect_up_and_down_load_and_unload_it(
    ebpf: FakeEbpf,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    system = FakeWindows(PORT)
    monkeypatch.setitem(
        registry._PROVIDERS,
        "ebpf",
        lambda made: EbpfWindowsProvider(made, lambda: system.libraries),
    )
    monkeypatch.setattr(standing, "this_space", lambda: 0)
    shared = ("--state", str(tmp_path / "notes"), "--listen", f"[::]:{PORT}")
    assert cli.main(["redirect", "up", "--provider", "ebpf", "--ports", "80", *shared]) == 0
    assert f"ebpf to [::]:{PORT}" in capsys.readouterr().out
    ebpf.die()  # this command's process has ended
    assert ebpf.attached == {C4, C6}
    assert cli.main(["redirect", "status", *shared]) == 0
    assert cli.main(["redirect", "down", *shared]) == 0
    assert ebpf.attached == set()
