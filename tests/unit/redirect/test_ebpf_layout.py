"""What C and Python must agree on: the context, the maps, the answers. By compiled C programs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.redirect import context, ebpf_redirector, ebpf_scope
from proxy.redirect.ebpf_object import SOURCES, source_directory

FOLDER = source_directory()
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

_CONTEXT = """
#include <stddef.h>
#include <stdio.h>
#include "redirect_context.h"
#define F(name) printf(#name " %zu\\n", offsetof(struct sluicegate_context, name));
int main(void) {
    F(magic) F(version) F(size) F(family) F(protocol) F(flags) F(pid) F(original_address)
    F(source_address) F(original_port) F(source_port) F(uid) F(process_start) F(group_id) F(space)
    F(sid_size) F(application_size) F(reserved)
    printf("whole %zu\\n", sizeof(struct sluicegate_context));
    return 0;
}
"""
# A map of the redirector is a struct of pointers; only the structures matter here.
_MAPS = """
#include <stdint.h>
#include <stdio.h>
typedef uint16_t __u16; typedef uint32_t __u32; typedef uint64_t __u64;
#define __uint(name, value) int name##_
#define __type(name, type) int name##_
#define SEC(name)
#include "redirect_maps.h"
#define S(name) printf(#name " %zu\\n", sizeof(struct sluicegate_##name));
int main(void) { S(settings) S(net4) S(net6) S(exempt) return 0; }
"""


def told_by(source: str, folder: Path) -> dict[str, int]:
    assert COMPILER is not None
    (folder / "ask.c").write_text(source)
    command = [COMPILER, "-std=gnu11", f"-I{FOLDER}", str(folder / "ask.c"), "-o"]
    subprocess.run([*command, str(folder / "ask")], check=True)
    told = subprocess.run([str(folder / "ask")], check=True, capture_output=True, text=True)
    return {name: int(value) for name, value in map(str.split, told.stdout.splitlines())}


@pytest.mark.skipif(COMPILER is None, reason="not installed: a C compiler")
def test_the_context_as_the_header_has_it(tmp_path: Path) -> None:
    expected = {}
    offset = 0
    sizes = {
        "magic": 4,
        "version": 2,
        "size": 2,
        "family": 1,
        "protocol": 1,
        "flags": 2,
        "pid": 4,
        "original_address": 16,
        "source_address": 16,
        "original_port": 2,
        "source_port": 2,
        "uid": 4,
        "process_start": 8,
        "group_id": 8,
        "space": 8,
        "sid_size": 2,
        "application_size": 2,
        "reserved": 4,
    }
    for name, size in sizes.items():
        expected[name], offset = offset, offset + size
    assert told_by(_CONTEXT, tmp_path) == expected | {"whole": context.FIXED.size}


@pytest.mark.skipif(COMPILER is None, reason="not installed: a C compiler")
def test_the_maps_as_the_header_has_them(tmp_path: Path) -> None:
    assert told_by(_MAPS, tmp_path) == {
        "settings": ebpf_scope.SETTINGS.size,
        "net4": ebpf_scope.NET4.size,
        "net6": ebpf_scope.NET6.size,
        "exempt": ebpf_scope.EXEMPT.size,
    }


def constants(file: str) -> dict[str, int]:
    text = (FOLDER / file).read_text()
    found = re.findall(r"^#define (\w+) (0x[0-9a-fA-F]+|\d+)u?\b", text, re.MULTILINE)
    return {name: int(value, 0) for name, value in found}


def test_numbers_of_the_headers() -> None:
    maps, answers = constants("redirect_maps.h"), constants("linux_answers.h")
    for flag in ebpf_scope.Flag:
        assert maps[f"SG_{flag.name}"] == flag, flag
    for route in ebpf_scope.Route:
        assert maps[f"SG_ROUTE_{route.name}"] == route
    for exempt in ebpf_scope.Exempt:
        assert maps[f"SG_EXEMPT_{exempt.name}"] == exempt
    assert answers["SG_SO_CONTEXT"] == ebpf_redirector.SO_CONTEXT
    published = constants("redirect_context.h")
    assert published["SLUICEGATE_CONTEXT_MAGIC"] == context.MAGIC
    assert published["SLUICEGATE_CONTEXT_VERSION"] == context.VERSION
    assert published["SLUICEGATE_CONTEXT_MAX"] == context.MAX_SIZE
    names = {"UTF16": 1, "FULL_PATH": 2, "SOURCE_KNOWN": 4, "REDIRECTED": 8}
    for name, value in names.items():
        assert published[f"SLUICEGATE_CONTEXT_{name}"] == value == context.ContextFlag[name]


def test_every_source_is_named_once() -> None:
    """What is compiled, hashed and shipped is what the files include."""
    seen, todo = set(), {SOURCES[0]}
    while todo:
        name = todo.pop()
        seen.add(name)
        included = re.findall(r'#include "([^"]+)"', (FOLDER / name).read_text())
        todo |= set(included) - seen - {"platform_windows.h"}
    assert sorted(seen) == sorted(SOURCES)
