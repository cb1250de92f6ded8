"""The callout driver's source, as far as a machine without Windows can judge it.

Types and calls by mingw-w64's compiler, against its kernel headers and our transcriptions of the
documentation; what is pure C by running it; the structures by comparing them with others'.
"""

from __future__ import annotations

import ctypes
import ipaddress
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.redirect.context import ContextFlag, decode_context

DRIVER = Path(__file__).parents[3] / "deploy/redirector/windows-driver"
SOURCES = ("driver.c", "filters.c", "classify.c", "process.c", "scope.c")
MINGW = shutil.which("x86_64-w64-mingw32-gcc")
CLANG = shutil.which("clang")
HEADERS = Path("/usr/share/mingw-w64/include")
CC = shutil.which("cc") or shutil.which("gcc") or CLANG
STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-multichar")
VERSIONS = ("-D_WIN32_WINNT=0x0A00", "-DNTDDI_VERSION=0x0A000008")
KERNEL = (*VERSIONS, "-I", str(DRIVER / "check"), "-isystem", str(HEADERS / "ddk"))
EXTRA = ("-include", str(DRIVER / "check/kernel_extra.h"))

needs_mingw = pytest.mark.skipif(
    not MINGW or not (HEADERS / "ddk/ntifs.h").is_file(), reason="mingw-w64 is not installed"
)


def compiled(*command: str) -> str:
    """Standard output; what the compiler complains of fails the test."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_mingw
@pytest.mark.parametrize("source", SOURCES)
def test_types_and_calls_fit(source: str) -> None:
    # -O2: only then are uninitialised variables seen.
    path = str(DRIVER / source)
    compiled(str(MINGW), *STRICT, "-O2", *KERNEL, *EXTRA, "-S", "-o", "/dev/null", path)


@needs_mingw
@pytest.mark.skipif(not CLANG, reason="clang is not installed")
@pytest.mark.parametrize("source", SOURCES)
def test_a_second_compiler_agrees(source: str) -> None:
    target = ("--target=x86_64-windows-gnu", "-Wno-four-char-constants", "-fsyntax-only")
    path = str(DRIVER / source)
    compiled(str(CLANG), *target, *STRICT, *KERNEL, "-isystem", str(HEADERS), *EXTRA, path)


@needs_mingw
@pytest.mark.parametrize(
    ("call", "mistake", "accepted"),
    [
        ("", "", True),
        (
            "FwpsApplyModifiedLayerData0(handle, request, 0)",
            "FwpsApplyModifiedLayerData0(handle, 0)",
            False,
        ),
        ("(void *)classifyContext", "classifyContext", False),
        ("->localRedirectTargetPID", "->localRedirectPid", False),
        ("filter->filterId, 0, (PVOID *)&request", "filter->filterId, 0, request", False),
    ],
)
def test_the_check_sees_mistakes(tmp_path: Path, call: str, mistake: str, accepted: bool) -> None:
    text = (DRIVER / "classify.c").read_text(encoding="utf-8")
    assert call in text
    changed = text.replace(call, mistake) if call else text
    (tmp_path / "classify.c").write_text(changed, encoding="utf-8")
    path = str(tmp_path / "classify.c")
    options = (*STRICT, "-O2", *KERNEL, "-I", str(DRIVER), *EXTRA)
    command = (str(MINGW), *options, "-S", "-o", "/dev/null", path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is accepted, done.stderr


# --- our transcriptions against mingw-w64's user-mode headers, which others wrote

SHARED: dict[str, tuple[str, ...]] = {
    "FWPM_SESSION0": ("flags", "txnWaitTimeoutInMSec", "kernelMode"),
    "FWPM_PROVIDER0": ("providerKey", "serviceName"),
    "FWPM_SUBLAYER0": ("subLayerKey", "providerKey", "weight"),
    "FWPM_CALLOUT0": ("calloutKey", "applicableLayer", "calloutId"),
    "FWPM_ACTION0": ("type", "calloutKey"),
    "FWPM_FILTER_CONDITION0": ("fieldKey", "matchType", "conditionValue"),
    "FWPM_FILTER0": ("layerKey", "subLayerKey", "weight", "filterCondition", "action", "filterId"),
    "FWP_VALUE0": ("type", "uint32"),
    "FWP_BYTE_BLOB": ("size", "data"),
    "SOCKADDR_IN": ("sin_port", "sin_addr"),
    "SOCKADDR_IN6": ("sin6_port", "sin6_addr", "sin6_scope_id"),
    "SOCKADDR_STORAGE": ("ss_family",),
}
CONSTANTS = ("FWP_UINT8", "FWP_UINT32", "FWP_BYTE_BLOB_TYPE", "FWP_MATCH_EQUAL", "FWP_ACTION_BLOCK")
CONSTANTS += ("FWP_ACTION_PERMIT", "FWP_ACTION_CALLOUT_TERMINATING", "FWPM_SESSION_FLAG_DYNAMIC")
CONSTANTS += ("AF_INET", "AF_INET6", "IPPROTO_TCP")


def layout(tmp_path: Path, includes: str, *options: str) -> dict[str, int]:
    """Sizes, offsets and values as the compiler sees them, read from what it assembles."""
    lines = [includes, "#include <stddef.h>"]
    for struct_name, members in SHARED.items():
        lines.append(f"const int v_{struct_name} = sizeof({struct_name});")
        for member in members:
            lines.append(f"const int v_{struct_name}_{member} = offsetof({struct_name}, {member});")
    lines += [f"const int v_{name} = {name};" for name in CONSTANTS]
    (tmp_path / "layout.c").write_text("\n".join(lines), encoding="utf-8")
    source = str(tmp_path / "layout.c")
    text = compiled(str(MINGW), *VERSIONS, *options, "-w", "-S", "-o", "-", source)
    found = re.findall(r"(?m)^v_(\w+):\s+\.(?:long\s+(\d+)|space\s+4)", text)
    return {name: int(value or 0) for name, value in found}


@needs_mingw
def test_transcribed_structures_are_laid_out_as_others_have_them(tmp_path: Path) -> None:
    ours = layout(tmp_path, "#include <fwpmk.h>\n#include <ws2ipdef.h>", *KERNEL, *EXTRA)
    theirs = layout(
        tmp_path,
        "#include <winsock2.h>\n#include <ws2tcpip.h>\n#include <windows.h>\n#include <fwpmu.h>\n"
        "#ifndef FWPM_SESSION_FLAG_DYNAMIC\n#define FWPM_SESSION_FLAG_DYNAMIC 1\n#endif",
    )
    assert ours == theirs
    assert len(ours) == len(CONSTANTS) + sum(1 + len(members) for members in SHARED.values())


def test_every_transcribed_declaration_cites_its_page() -> None:
    """A comment with a page's name stands somewhere above each function and structure."""
    for header in ("fwpsk.h", "fwpmk.h", "kernel_extra.h", "ws2def.h", "ws2ipdef.h"):
        text = (DRIVER / "check" / header).read_text(encoding="utf-8")
        functions = set(re.findall(r"NTAPI (\w+)\(", text))
        cited = text.lower()
        uncited = {name for name in functions if f"-{name.lower()}" not in cited}
        families = {"FwpmTransactionCommit0", "FwpmTransactionAbort0"}  # one line cites all three
        locks = {name for name in uncited if "SpinLock" in name}
        assert uncited - families - locks == set()


# --- scope and context, by running them


class Connection(ctypes.Structure):
    """struct sg_connection."""

    _fields_ = (
        ("family", ctypes.c_uint8),
        ("mapped", ctypes.c_uint8),
        ("source_known", ctypes.c_uint8),
        ("redirected_before", ctypes.c_uint8),
        ("remote", ctypes.c_uint8 * 16),
        ("source", ctypes.c_uint8 * 16),
        ("remote_port", ctypes.c_uint16),
        ("source_port", ctypes.c_uint16),
        ("pid", ctypes.c_uint32),
        ("process_start", ctypes.c_uint64),
        ("logon_id", ctypes.c_uint64),
        ("compartment", ctypes.c_uint64),
    )


CAPTURE, OWN, EXEMPT, FAMILY, PORT, ADDRESS, NETWORK = range(7)
PROXY, LISTEN_V4, LISTEN_V6 = 4321, 15001, 15002
V4, V6, LOOPBACK, KEEP = 1, 2, 4, 8


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if CC is None:
        pytest.skip("no C compiler is installed")
    built = tmp_path_factory.mktemp("scope") / "scope.so"
    strict = ("-std=c11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC")
    compiled(str(CC), *strict, "-o", str(built), str(DRIVER / "scope.c"))
    library = ctypes.CDLL(str(built))
    library.sg_context_size.restype = ctypes.c_uint16
    library.sg_config_valid.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    return library


def config(
    *,
    flags: int = V4 | V6,
    ports: Any = ((80, 80), (8000, 8100)),
    networks: Any = (),
    exempt: Any = (),
) -> bytes:
    lists = b"".join(struct.pack("<QII", start, pid, 0) for pid, start in exempt)
    for text in networks:
        network = ipaddress.ip_network(text)
        packed = network.network_address.packed
        lists += struct.pack("<BB2x16s", network.version, network.prefixlen, packed)
    lists += b"".join(struct.pack("<HH", first, last) for first, last in ports)
    counts = (len(exempt), len(networks), len(ports), 0, 0, 0)
    size = 32 + len(lists)
    listen = (LISTEN_V4, LISTEN_V6)
    return struct.pack("<IHHIIHHHHH3H", 0x31444753, 1, flags, size, PROXY, *listen, *counts) + lists


def connection(address: str, port: int, *, pid: int = 99, start: int = 0) -> Connection:
    packed = ipaddress.ip_address(address).packed
    made = Connection(family=4 if len(packed) == 4 else 6, remote_port=port, pid=pid)
    made.remote[: len(packed)] = packed
    made.process_start = start
    return made


def verdict(scope: Any, bytes_: bytes, made: Connection) -> int:
    assert scope.sg_config_valid(bytes_, len(bytes_)) == 1
    return int(scope.sg_scope(bytes_, ctypes.byref(made)))


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("192.0.2.1", 80, CAPTURE),
        ("2001:db8::1", 80, CAPTURE),
        ("192.0.2.1", 8000, CAPTURE),
        ("192.0.2.1", 8100, CAPTURE),
        ("192.0.2.1", 7999, PORT),
        ("192.0.2.1", 8101, PORT),
        ("127.0.0.1", 80, ADDRESS),
        ("127.9.9.9", 80, ADDRESS),
        ("::1", 80, ADDRESS),
        ("0.0.0.0", 80, ADDRESS),
        ("::", 80, ADDRESS),
        ("fe80::1", 80, ADDRESS),
        ("febf::1", 80, ADDRESS),
        ("fec0::1", 80, CAPTURE),
    ],
)
def test_what_is_captured(scope: Any, address: str, port: int, expected: int) -> None:
    assert verdict(scope, config(), connection(address, port)) == expected


def test_the_proxy_and_its_listener_are_never_captured(scope: Any) -> None:
    wide = config(flags=V4 | V6 | LOOPBACK, ports=((1, 65535),))
    assert verdict(scope, wide, connection("192.0.2.1", 80, pid=PROXY)) == OWN
    assert verdict(scope, wide, connection("127.0.0.1", LISTEN_V4)) == OWN
    assert verdict(scope, wide, connection("::1", LISTEN_V6)) == OWN
    assert verdict(scope, wide, connection("127.0.0.1", LISTEN_V6)) == CAPTURE


def test_families_and_loopback_are_chosen(scope: Any) -> None:
    assert verdict(scope, config(flags=V6), connection("192.0.2.1", 80)) == FAMILY
    assert verdict(scope, config(flags=V4), connection("2001:db8::1", 80)) == FAMILY
    assert verdict(scope, config(flags=V4 | LOOPBACK), connection("127.0.0.1", 80)) == CAPTURE


def test_an_exempt_process_is_told_by_its_start(scope: Any) -> None:
    bytes_ = config(exempt=((7, 0), (8, 555)))
    assert verdict(scope, bytes_, connection("192.0.2.1", 80, pid=7, start=1)) == EXEMPT
    assert verdict(scope, bytes_, connection("192.0.2.1", 80, pid=8, start=555)) == EXEMPT
    # The pid was given to another, or the start is not known: captured.
    assert verdict(scope, bytes_, connection("192.0.2.1", 80, pid=8, start=556)) == CAPTURE
    assert verdict(scope, bytes_, connection("192.0.2.1", 80, pid=8, start=0)) == CAPTURE


@pytest.mark.parametrize("version", [4, 6])
def test_networks_of_every_prefix_agree_with_ipaddress(scope: Any, version: int) -> None:
    text = "203.0.113.165" if version == 4 else "2001:db8:a5a5:5a5a:dead:beef:1234:5678"
    bits = 32 if version == 4 else 128
    base = ipaddress.ip_address(text)
    for prefix in range(1, bits + 1):
        network = ipaddress.ip_network(f"{text}/{prefix}", strict=False)
        bytes_ = config(networks=(str(network),))
        outside = type(base)(
            int(base) ^ (1 << (bits - prefix))
        )  # differs in the last bit that counts
        assert verdict(scope, bytes_, connection(text, 80)) == NETWORK
        if not outside.is_link_local:
            assert verdict(scope, bytes_, connection(str(outside), 80)) == CAPTURE, prefix


def test_a_network_is_of_one_family(scope: Any) -> None:
    assert verdict(scope, config(networks=("0.0.0.0/0",)), connection("2001:db8::1", 80)) == CAPTURE
    assert verdict(scope, config(networks=("::/0",)), connection("192.0.2.1", 80)) == CAPTURE


def patched(bytes_: bytes, offset: int, value: bytes) -> bytes:
    return bytes_[:offset] + value + bytes_[offset + len(value) :]


def test_a_configuration_that_is_not_whole_is_refused(scope: Any) -> None:
    good = config(networks=("10.0.0.0/8",), exempt=((7, 0),))
    bad = {
        "empty": b"",
        "short": good[:31],
        "cut": good[:-1],
        "longer than it says": good + b"\0\0\0\0",
        "another magic": patched(good, 0, b"XXXX"),
        "another version": patched(good, 4, b"\2\0"),
        "unknown flags": patched(good, 6, b"\x10\0"),
        "size does not fit": patched(good, 8, struct.pack("<I", len(good) + 4)),
        "no listener for IPv4": patched(good, 16, b"\0\0"),
        "no listener for IPv6": patched(good, 18, b"\0\0"),
        "a count too many": patched(good, 20, struct.pack("<H", 2)),
        "counts that would overflow 16 bits": patched(good, 20, b"\xff\xff" * 3),
        "family 5": patched(good, 48, b"\5"),
        "a prefix of 33": patched(good, 49, b"\x21"),
        "port 0": patched(good, 68, b"\0\0"),
        "ports backwards": patched(good, 68, struct.pack("<HH", 81, 80)),
    }
    assert scope.sg_config_valid(good, len(good)) == 1
    accepted = [why for why, bytes_ in bad.items() if scope.sg_config_valid(bytes_, len(bytes_))]
    assert accepted == []


# --- the context


def context(scope: Any, made: Connection, sid: bytes = b"", application: bytes = b"") -> bytes:
    size = scope.sg_context_size(len(sid), len(application))
    out = ctypes.create_string_buffer(b"\xee" * (size + 8), size + 8)
    scope.sg_context_write(
        out, ctypes.byref(made), sid, ctypes.c_uint16(len(sid)), application, len(application)
    )
    assert out.raw[size:] == b"\xee" * 8  # nothing is written behind it
    return out.raw[:size]


def test_the_proxy_reads_what_the_driver_writes(scope: Any) -> None:
    path = "\\device\\harddiskvolume3\\windows\\system32\\curl.exe"
    sid = bytes.fromhex("010500000000000515000000aabbccdd1122334455667788f4010000")
    made = connection("198.51.100.7", 443, pid=777, start=133_500_000_000_000_000)
    made.source[:4] = bytes((192, 0, 2, 9))
    made.source_port, made.source_known, made.redirected_before = 50000, 1, 1
    made.logon_id, made.compartment = 0x3E7, 1
    read = decode_context(context(scope, made, sid, path.encode("utf-16-le")))
    assert str(read.original) == "198.51.100.7:443"
    assert str(read.source) == "192.0.2.9:50000"
    assert (read.pid, read.process_start, read.group_id, read.space) == (
        777,
        133_500_000_000_000_000,
        0x3E7,
        1,
    )
    assert (read.sid, read.application, read.uid) == (sid, path, None)
    assert ContextFlag.FULL_PATH in read.flags
    assert ContextFlag.REDIRECTED in read.flags


def test_ipv6_and_an_unknown_source(scope: Any) -> None:
    read = decode_context(context(scope, connection("2001:db8::7", 8080)))
    assert (str(read.original), read.source) == ("[2001:db8::7]:8080", None)
    assert (read.application, read.sid, read.flags) == ("", b"", ContextFlag.UTF16)


def test_mapped_ipv6_is_ipv4(scope: Any) -> None:
    made = connection("2001:db8::1", 80)
    remote, source = (
        ipaddress.ip_address(f"::ffff:{a}").packed for a in ("192.0.2.5", "192.0.2.6")
    )
    scope.sg_set_v6(ctypes.byref(made), remote, source)
    assert (made.family, made.mapped, bytes(made.remote[:5])) == (4, 1, bytes((192, 0, 2, 5, 0)))
    assert decode_context(context(scope, made)).original.host == "192.0.2.5"
    scope.sg_set_v6(ctypes.byref(made), ipaddress.ip_address("::1").packed, bytes(16))
    assert (made.family, made.mapped, made.remote[15]) == (6, 0, 1)


@pytest.mark.parametrize("sid_size", [0, 68])
def test_a_path_that_does_not_fit_is_left_out_whole(scope: Any, sid_size: int) -> None:
    room = 4096 - 88 - sid_size
    made = connection("192.0.2.1", 80)
    fits = decode_context(context(scope, made, bytes(sid_size), b"a\0" * (room // 2)))
    assert len(fits.application) == room // 2
    over = decode_context(context(scope, made, bytes(sid_size), b"a\0" * (room // 2 + 1)))
    assert (over.application, len(over.sid)) == ("", sid_size)
    assert ContextFlag.FULL_PATH not in over.flags
