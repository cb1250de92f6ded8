"""Where the redirector's object file comes from.

Built with the wheel where clang was there; else `make redirector` in a source tree; else compiled
at first use into a cache directory of this user. The cache's file name is a hash of the sources,
so that an old object is never taken for a new source.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from proxy.errors import RedirectError

NAME = "connect_redirect.bpf.o"
SOURCES = (
    "connect_redirect.bpf.c",
    "linux_answers.h",
    "platform_linux.h",
    "redirect_context.h",
    "redirect_maps.h",
)
_FLAGS = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf")
_SECONDS = 60.0

_PACKAGE = Path(__file__).parents[1]
_TREE = _PACKAGE.parent


def find_object() -> Path:
    """The object to load. Raises RedirectError that says what to install."""
    if sys.platform == "win32":
        return _on_windows()
    shipped = _PACKAGE / "redirector" / NAME
    if shipped.is_file():
        return shipped
    sources = source_directory()
    built = _TREE / "build" / "redirector" / NAME
    if sources.parent == _TREE / "deploy" and _is_newer(built, sources):
        return built
    return _from_cache(sources)


def source_directory() -> Path:
    """In the installed package, or in the source tree. Raises RedirectError."""
    for folder in (_PACKAGE / "redirector", _TREE / "deploy" / "redirector"):
        if (folder / SOURCES[0]).is_file():
            return folder
    raise RedirectError(
        "provider ebpf: this installation has neither the redirector's object file nor its "
        "source; install Sluicegate's wheel, or run it from its source tree"
    )


def compile_object(sources: Path, target: Path) -> None:
    """By clang; `target` appears whole or not at all. Raises RedirectError."""
    clang = shutil.which("clang")
    if clang is None:
        raise RedirectError(
            "provider ebpf has to compile its redirector once: install clang and libbpf's "
            "headers (Debian: apt-get install clang libbpf-dev), or a wheel that was built with "
            "them; provider nft needs neither"
        )
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / NAME
        command = [clang, *_FLAGS, *_include(), "-c", str(sources / SOURCES[0]), "-o", str(made)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise RedirectError(f"clang did not end within {_SECONDS:g} s") from None
        if done.returncode:
            raise RedirectError(_complaint(done.stderr))
        made.replace(target)


def _include() -> list[str]:
    """Debian keeps asm/types.h in a directory of the machine's architecture."""
    folder = Path(f"/usr/include/{platform.machine()}-linux-gnu")
    return ["-I", str(folder)] if folder.is_dir() else []


def _complaint(errors: str) -> str:
    first = next((line for line in errors.splitlines() if "error:" in line), errors.strip()[:200])
    if "bpf/" in first and "not found" in first:
        return f"libbpf's headers are missing (Debian: apt-get install libbpf-dev): {first}"
    if "not found" in first:
        return f"the kernel's headers are missing (Debian: apt-get install linux-libc-dev): {first}"
    return f"clang does not compile the redirector: {first}"


def _is_newer(built: Path, sources: Path) -> bool:
    try:
        made = built.stat().st_mtime
    except FileNotFoundError:
        return False
    return all((sources / name).stat().st_mtime <= made for name in SOURCES)


def _from_cache(sources: Path) -> Path:
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for name in SOURCES:
        digest.update((sources / name).read_bytes())
    target = _cache_directory() / f"redirector-{digest.hexdigest()[:16]}.bpf.o"
    if not target.is_file():
        compile_object(sources, target)
    return target


def _cache_directory() -> Path:
    """Ours alone: what lies there is loaded into the kernel. Raises RedirectError."""
    given = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]  # systemd.exec(5)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(given) if given else Path(base).expanduser() / "sluicegate"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise RedirectError(
            f"provider ebpf cannot keep its redirector in {folder} ({error.strerror}); name a "
            f"directory in CACHE_DIRECTORY"
        ) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RedirectError(
            f"others can write to {folder}: what lies there is loaded into the kernel; make it "
            f"yours alone (chown, chmod 700), or name another directory in CACHE_DIRECTORY"
        )
    return folder


def _on_windows() -> Path:
    """bpf2c makes a driver of it there; deploy/redirector/README.md, Windows."""
    for folder in (_PACKAGE / "redirector", _TREE / "build" / "redirector"):
        if (folder / NAME).is_file():
            return folder / NAME
    raise RedirectError("provider ebpf: connect_redirect.bpf.o is not installed; build it first")
