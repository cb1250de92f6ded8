"""Numbers, layouts and signatures of Windows: what the code says, what the documentation says
(tests/support/winsock_facts.py), and what mingw-w64's headers say, must be one thing."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RedirectError
from proxy.redirect import original_dst, winapi, winprocess, wintcp
from tests.support import winsock_facts as facts
from tests.support.fake_windows import FakeWindows

GCC = shutil.which("x86_64-w64-mingw32-gcc")
STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "FILETIME": winprocess.FileTime,
    "SID_AND_ATTRIBUTES": winprocess.SidAndAttributes,
    "TOKEN_USER": winprocess.TokenUser,
    "TOKEN_ELEVATION": winprocess.TokenElevation,
    "MIB_TCPROW_OWNER_PID": wintcp.TcpRow,
    "MIB_TCP6ROW_OWNER_PID": wintcp.Tcp6Row,
}
DECLARED: Mapping[str, Mapping[str, Any]] = {
    "ws2_32": winapi._WINSOCK,
    "kernel32": winprocess._KERNEL,
    "advapi32": winprocess._ADVAPI,
    "iphlpapi": wintcp._IPHLPAPI,
}
WIDTHS = {"i": ctypes.c_int32, "u": ctypes.c_uint32, "s": ctypes.c_size_t, "p": ctypes.c_void_p}
#: Constants that mingw-w64's headers do not have, or have as an enumerator of another name.
NOT_IN_MINGW = {"SO_ORIGINAL_DST", "SOL_IP", "SOL_IPV6"}


def declared_numbers() -> dict[str, int]:
    """Every documented name that one of the modules has, in its own spelling or in ours."""
    spelled = {
        "TokenUser": winprocess.TOKEN_USER_CLASS,
        "TokenElevation": winprocess.TOKEN_ELEVATION_CLASS,
    }
    for row in facts.FACTS:
        for module in (winapi, winprocess, wintcp):
            if row.name not in spelled and hasattr(module, row.name):
                spelled[row.name] = getattr(module, row.name)
    return spelled


def test_numbers_are_those_of_the_documentation() -> None:
    numbers = declared_numbers()
    assert numbers == {name: facts.fact(name) for name in numbers}
    assert {row.name for row in facts.CONTROL_CODES} <= set(numbers)
    assert {"SO_ORIGINAL_DST", "SOL_IP", "SOL_IPV6", "FWP_E_NOT_FOUND"} <= set(numbers)


def test_control_codes_are_made_as_mstcpip_h_makes_them() -> None:
    for number, row in zip((220, 221, 222), facts.CONTROL_CODES, strict=True):
        assert row.value == 0x80000000 | 0x18000000 | number  # IOC_IN | IOC_VENDOR


def test_every_documented_error_of_the_control_codes_has_its_own_sentence() -> None:
    assert {row.value for row in facts.ERRORS} == set(winapi.SENTENCES)
    assert len(set(winapi.SENTENCES.values())) == len(winapi.SENTENCES)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_have_the_documented_layout(name: str) -> None:
    (layout,) = (row for row in facts.LAYOUTS if row.name == name)
    structure = STRUCTURES[name]
    found = [
        (field[0], getattr(structure, field[0]).offset, getattr(structure, field[0]).size)
        for field in structure._fields_
    ]
    assert (ctypes.sizeof(structure), found) == (layout.size, list(layout.fields))


def test_socket_addresses_have_the_documented_size() -> None:
    assert original_dst.SOCKADDR_IN.size == facts.SOCKADDR_IN.size
    assert original_dst.SOCKADDR_IN6.size == facts.SOCKADDR_IN6.size
    for row in facts.LAYOUTS:
        assert row.packing.size == row.size, row.name


def test_functions_are_declared_with_the_documented_types() -> None:
    expected = {
        (row.library, row.name): (WIDTHS[row.result], tuple(map(WIDTHS.__getitem__, row.arguments)))
        for row in facts.SIGNATURES
    }
    found = {
        (library, name): declaration
        for library, functions in DECLARED.items()
        for name, declaration in functions.items()
    }
    assert found == expected


def test_every_fact_names_its_page() -> None:
    for row in (*facts.FACTS, *facts.LAYOUTS, *facts.SIGNATURES):
        assert row.page.startswith("win32/") or ".h" in row.page, row


@pytest.mark.skipif(GCC is None, reason="x86_64-w64-mingw32-gcc is not installed")
def test_mingw_agrees(tmp_path: Path) -> None:
    """Offsets, sizes and constants, as assertions that its compiler checks."""
    source = tmp_path / "layouts.c"
    lines = [
        "#define _WIN32_WINNT 0x0602",
        *(f"#include <{name}>" for name in ("winsock2.h", "ws2tcpip.h", "windows.h")),
        *(f"#include <{name}>" for name in ("iphlpapi.h", "mstcpip.h", "stddef.h")),
        *(line for row in facts.LAYOUTS for line in assertions(row)),
        *constants(),
    ]
    source.write_text("\n".join(lines) + "\n")
    assert GCC is not None
    command = [GCC, "-std=c11", "-Wall", "-Werror", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source.write_text(source.read_text().replace("== 24", "== 25", 1))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "static assertion failed" in done.stderr  # it does look


def assertions(row: facts.Layout) -> list[str]:
    kind = f"struct {row.name}" if row.name.startswith("sockaddr") else row.name
    lines = [f'_Static_assert(sizeof({kind}) == {row.size}, "{row.name}");']
    for field, offset, size in row.fields:
        member = f"(({kind} *)0)->{field}"
        text = f"{row.name}.{field}"
        lines.append(f'_Static_assert(offsetof({kind}, {field}) == {offset}, "{text}");')
        lines.append(f'_Static_assert(sizeof({member}) == {size}, "{text}");')
    return lines


def constants() -> list[str]:
    vendor = {row.name: 220 + n for n, row in enumerate(facts.CONTROL_CODES)}
    lines = []
    for row in facts.FACTS:
        name = f"_WSAIOW(IOC_VENDOR, {vendor[row.name]})" if row.name in vendor else row.name
        if row.name not in NOT_IN_MINGW:
            lines.append(
                f'_Static_assert((unsigned){name} == (unsigned){row.value}, "{row.name}");'
            )
    return lines


# --- what a Windows that lacks something, or another system, says


def test_elsewhere_than_on_windows_it_says_so() -> None:
    if hasattr(ctypes, "WinDLL"):
        pytest.skip("this is Windows")
    with pytest.raises(RedirectError, match="work on Windows only"):
        winapi.Winsock(winapi.SystemLibraries())


def test_a_library_that_cannot_be_loaded() -> None:
    system = FakeWindows()
    system.missing.add("iphlpapi")
    with pytest.raises(RedirectError, match=r"iphlpapi\.dll cannot be loaded: .*could not be"):
        wintcp.Connections(system.libraries)


def test_a_windows_that_is_too_old() -> None:
    system = FakeWindows()
    system.missing.add("GetPackageFamilyName")
    with pytest.raises(RedirectError, match="has no GetPackageFamilyName: Windows 8 or Server"):
        winprocess.Processes(system.libraries)
