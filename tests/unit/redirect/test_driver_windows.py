"""Our Windows driver from user mode: the bytes are judged by the driver's own C code."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RedirectError, WinApiError
from proxy.model import Endpoint
from proxy.redirect import driver_windows
from proxy.redirect.driver_windows import DriverProvider, DriverStatus, pack_config
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions
from tests.support.fake_driver import HANDLE, FakeDriver
from tests.support.fake_windows import FakeWindows

CONTROL = Path(__file__).parents[3] / "deploy/redirector/windows-driver"
CC = shutil.which("cc") or shutil.which("clang")
PORT = 15001
pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler is installed")


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Any:
    built = tmp_path_factory.mktemp("driver") / "scope.so"
    source = str(CONTROL / "scope.c")
    subprocess.run([str(CC), "-std=c11", "-shared", "-fPIC", "-o", str(built), source], check=True)
    library = ctypes.CDLL(str(built))
    library.sg_config_valid.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    return library


def options(**changes: Any) -> RedirectOptions:
    values: dict[str, Any] = {"listen": Endpoint("::", PORT), "ports": (PortRange(80, 90),)}
    return RedirectOptions(**{**values, **changes})


@pytest.fixture
def driver(scope: Any) -> FakeDriver:
    return FakeDriver(FakeWindows(PORT), scope)


def provider(driver: FakeDriver, **changes: Any) -> DriverProvider:
    return DriverProvider(options(**changes), lambda: driver.system.libraries)


def test_the_control_codes_and_layouts_are_the_headers(tmp_path: Path) -> None:
    sizes = {
        "config": driver_windows.CONFIG.size,
        "exempt": driver_windows.EXEMPT.size,
        "network": driver_windows.NETWORK.size,
        "ports": driver_windows.PORTS.size,
        "status": driver_windows.STATUS_LAYOUT.size,
    }
    facts = [f"sizeof(struct sluicegate_{name}) == {size}" for name, size in sizes.items()]
    for name in ("CONFIGURE", "START", "STOP", "STATUS"):
        facts.append(f"SLUICEGATE_IOCTL_{name} == {getattr(driver_windows, name)}u")
    for name in ("IPV4", "IPV6", "LOOPBACK", "KEEP_ON_CLOSE"):
        facts.append(f"SLUICEGATE_CONFIG_{name} == {getattr(driver_windows, name)}u")
    facts.append(f"SLUICEGATE_CONFIG_MAGIC == {driver_windows.MAGIC}u")
    facts.append(f"SLUICEGATE_CONFIG_MAX == {driver_windows.MAX_BYTES}")
    facts.append("offsetof(struct sluicegate_status, redirected) == 16")
    lines = ["#include <stddef.h>", '#include "control.h"']
    lines += [f'_Static_assert({fact}, "differs");' for fact in facts]
    (tmp_path / "facts.c").write_text("\n".join(lines))
    command = [str(CC), "-std=c11", "-I", str(CONTROL), "-fsyntax-only", str(tmp_path / "facts.c")]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exclude": ("10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120")},
        {"ipv6": False, "include_loopback": True, "on_crash": OnCrash.OPEN},
    ],
)
def test_the_driver_takes_what_is_packed(scope: Any, changes: dict[str, Any]) -> None:
    packed = pack_config(options(**changes), 4711, [(7, 0), (8, 9)])
    assert scope.sg_config_valid(packed, len(packed)) == 1


def test_a_mapped_network_is_ipv4() -> None:
    assert pack_config(options(exclude=("::ffff:10.0.0.0/104",)), 1) == pack_config(
        options(exclude=("10.0.0.0/8",)), 1
    )


@pytest.mark.parametrize("change", [{"uid": 1}, {"include": ("10.0.0.0/8",)}, {"cgroup": "a"}])
def test_what_the_driver_does_not_know_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RedirectError, match="not known to the driver"):
        pack_config(options(**change), 1)


def test_more_than_it_takes_is_told() -> None:
    many = tuple(f"10.{a}.{b}.0/24" for a in range(16) for b in range(256))
    with pytest.raises(RedirectError, match="65536 bytes"):
        pack_config(options(exclude=many), 1)


def test_installed_reported_and_removed(driver: FakeDriver) -> None:
    made = provider(driver)
    made.install()
    assert driver.calls == ["CONFIGURE", "START"]
    assert struct.unpack_from("<I", driver.config, 12)[0] == os.getpid()
    assert made.health().detail == "driver: 5 redirected, 0 blocked"
    made.install()  # again: told anew, by the same handle
    made.remove()
    assert (driver.started, driver.open) == (False, set())
    assert not made.health().ok
    made.remove()  # harmless


@pytest.mark.parametrize("on_crash", list(OnCrash))
def test_a_crash_leaves_the_redirect_or_not(driver: FakeDriver, on_crash: OnCrash) -> None:
    provider(driver, on_crash=on_crash).install()
    driver.close(HANDLE)  # the system closes a dead process's handles
    assert driver.started is (on_crash is OnCrash.CLOSED)


def test_a_driver_that_was_stopped_is_noticed(driver: FakeDriver) -> None:
    made = provider(driver)
    made.install()
    driver.started = False
    assert made.health().detail == "the driver was stopped, or works for another proxy"


@pytest.mark.parametrize(
    ("fault", "sentence"), [("missing", "sc start"), ("busy", "another proxy uses")]
)
def test_what_is_wrong_has_its_sentence(driver: FakeDriver, fault: str, sentence: str) -> None:
    setattr(driver, fault, True)
    with pytest.raises(WinApiError, match=sentence):
        provider(driver).install()
    assert driver.open == set()


def test_the_status_has_every_counter(driver: FakeDriver) -> None:
    made = driver_windows.Driver(driver.system.libraries)
    assert made.status() == DriverStatus(1, False, 0, False, 5, 4, 3, 2, 1, 0)
    made.close()
    made.close()
    assert driver.open == set()
