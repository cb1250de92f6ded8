"""Where the redirector's object comes from, and what is said when it cannot come."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.errors import RedirectError
from proxy.model import Endpoint
from proxy.redirect import ebpf_object, libbpf
from proxy.redirect.ebpf_object import SOURCES, compile_object, find_object, source_directory
from proxy.redirect.options import RedirectOptions
from proxy.redirect.registry import make_provider

WINDOWS = Path(__file__).parents[2] / "support" / "ebpf_for_windows"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not how it is found on Windows")
needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="not installed: clang")
needs_headers = pytest.mark.skipif(
    not Path("/usr/include/bpf/bpf_helpers.h").exists(), reason="not installed: libbpf-dev"
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree of its own, with the redirector's sources and a cache beside."""
    sources = tmp_path / "deploy" / "redirector"
    sources.mkdir(parents=True)
    for name in SOURCES:
        shutil.copy(source_directory() / name, sources)
    monkeypatch.setattr(ebpf_object, "_PACKAGE", tmp_path / "proxy")
    monkeypatch.setattr(ebpf_object, "_TREE", tmp_path)
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    return tmp_path


@needs_clang
@needs_headers
def test_compiled_once_and_anew_for_another_source(tree: Path) -> None:
    first = find_object()
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert first.parent == tree / "cache"
    assert first.parent.stat().st_mode & 0o777 == 0o700
    stamp = first.stat().st_mtime_ns
    assert find_object() == first
    assert first.stat().st_mtime_ns == stamp
    with (tree / "deploy" / "redirector" / SOURCES[0]).open("a") as source:
        source.write("/* changed */\n")
    assert find_object() != first


def test_an_object_that_was_built_is_taken_unless_a_source_is_newer(tree: Path) -> None:
    built = tree / "build" / "redirector" / ebpf_object.NAME
    built.parent.mkdir(parents=True)
    built.write_bytes(b"\x7fELF")
    assert find_object() == built
    os.utime(built, (1, 1))
    (tree / "cache").mkdir()
    (tree / "cache").chmod(0o777)
    with pytest.raises(RedirectError, match="others can write to"):
        find_object()


def test_one_that_came_with_the_package_goes_first(tree: Path) -> None:
    shipped = tree / "proxy" / "redirector" / ebpf_object.NAME
    shipped.parent.mkdir(parents=True)
    shipped.write_bytes(b"\x7fELF")
    assert find_object() == shipped


def test_without_clang(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RedirectError, match="apt-get install clang libbpf-dev"):
        find_object()


def test_without_sources(tree: Path) -> None:
    shutil.rmtree(tree / "deploy")
    with pytest.raises(RedirectError, match="neither the redirector's object file nor its source"):
        find_object()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#include <bpf/no_such_header.h>", "libbpf's headers are missing"),
        ("#include <linux/no_such_header.h>", "the kernel's headers are missing"),
        ("int x = ;", "clang does not compile the redirector"),
    ],
)
@needs_clang
def test_what_clang_says(tree: Path, line: str, said: str) -> None:
    source = tree / "deploy" / "redirector" / SOURCES[0]
    source.write_text(line)
    with pytest.raises(RedirectError, match=said):
        compile_object(source.parent, tree / "x.o")
    assert not (tree / "x.o").exists()


def test_without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = libbpf._Backend("libno-such.so.1", "install it", {})
    monkeypatch.setattr(libbpf, "_LINUX", missing)
    libbpf.library.cache_clear()
    try:
        with pytest.raises(RedirectError, match=r"needs libno-such\.so\.1: install it"):
            libbpf.library()
    finally:
        libbpf.library.cache_clear()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"listen": Endpoint("10.0.0.1", 1)}, "takes no IPv6"),
        ({"listen": Endpoint("0.0.0.0", 1)}, "takes no IPv6"),
        ({"listen": Endpoint("::1", 1)}, "takes no IPv4"),
        ({"listen": Endpoint("127.0.0.1", 1), "foreign": ("10.0.0.1",)}, "do not reach"),
        ({"listen": Endpoint("::", 1), "prerouting": ("eth0",)}, "not what arrives on interfaces"),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, object], complaint: str) -> None:
    provider = make_provider("ebpf", RedirectOptions(**changes))  # type: ignore[arg-type]
    with pytest.raises(RedirectError, match=complaint):
        provider.install()


@needs_clang
def test_the_windows_half_compiles_and_calls_only_what_is_there(tmp_path: Path) -> None:
    """Against declarations written from ebpf-for-windows' documentation; never loaded there."""
    made = tmp_path / "windows.o"
    subprocess.run(
        ["clang", "-O2", "-g", "-Wall", "-Werror", "-Wno-unused-const-variable", "-target", "bpf",
         "-DSLUICEGATE_WINDOWS", "-DSLUICEGATE_NO_STDINT", f"-I{WINDOWS}",
         "-c", str(source_directory() / SOURCES[0]), "-o", str(made)],
        check=True,
    )  # fmt: skip
    data = made.read_bytes()
    assert b"cgroup/connect4" in data
    assert b"cgroup/connect6" in data
    assert b"sockops" not in data
    assert b"license" not in data
