"""The entries of a list, inline or from a file.

A file has one entry a line, blank lines and `#` comments aside; a list of domains may also be a
hosts file (`0.0.0.0 ads.example`), whose address is left out. Lines that are wrong are named
by number. 100,000 lines take about a tenth of a second.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

from proxy.errors import Problem
from proxy.policy.ast import ListType
from proxy.policy.values import READ_ENTRY, Unfit

MAX_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 2_000_000
#: A wrong file (HTML, say) is wrong in every line: so many are named, the rest is counted.
MAX_NAMED = 20

#: Names that hosts files hold for the machine itself (hosts(5) and what distributions add).
# fmt: off
_OWN_NAMES = frozenset({
    "localhost", "localhost.localdomain", "local", "broadcasthost", "ip6-localhost",
    "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters",
    "ip6-allhosts", "0.0.0.0",
})
# fmt: on
#: Most lines, recognised in one step; what does not match takes the thorough way.
_COMMON: dict[ListType, re.Pattern[str]] = {
    ListType.DOMAIN: re.compile(
        r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9]{2,63}"
    ),
    ListType.CIDR: re.compile(
        r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!\Z)|\Z)){4}"
    ),
    ListType.HASH: re.compile(r"[0-9a-f]{64}"),
}
_NEVER = re.compile(r"(?!)")


def read_list_file(file: str, text: bytes, kind: ListType) -> tuple[tuple[str, ...], list[Problem]]:
    """The entries in order, each once, and what is wrong, placed in `file`."""
    if len(text) > MAX_BYTES:
        return (), [Problem(file, 0, 0, f"{len(text)} bytes", f"at most {MAX_BYTES}")]
    try:
        source = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        return (), [Problem(file, line, 1, f"byte 0x{text[error.start]:02x} is not UTF-8")]
    entries: dict[str, None] = {}
    wrong: list[Problem] = []
    count = 0
    for number, entry, problem in _lines(source, kind):
        if problem is None:
            entries[entry] = None
            continue
        count += 1
        if count <= MAX_NAMED:
            wrong.append(Problem(file, number, 1, problem.args[0], problem.hint))
    if count > MAX_NAMED:
        wrong.append(Problem(file, 0, 0, f"{count - MAX_NAMED} more lines are wrong"))
    if len(entries) > MAX_ENTRIES:
        wrong.append(Problem(file, 0, 0, f"{len(entries)} entries", f"at most {MAX_ENTRIES}"))
    return tuple(entries), wrong


def _lines(source: str, kind: ListType) -> Iterator[tuple[int, str, Unfit | None]]:
    """(line number, entry, what is wrong with it)."""
    common = _COMMON.get(kind, _NEVER).fullmatch
    read = READ_ENTRY[kind.value]
    split = _split_hosts if kind is ListType.DOMAIN else _split_one
    for number, line in enumerate(source.split("\n"), start=1):
        if common(line):
            yield number, line, None
            continue
        try:
            for entry in split(_without_comment(line, kind)):
                yield number, read(entry), None
        except Unfit as error:
            yield number, "", error


def _without_comment(line: str, kind: ListType) -> str:
    """A `#` begins a comment at the start of a line and, but for texts, after a blank."""
    line = line.strip()
    if line.startswith("#"):
        return ""
    if kind is ListType.STRING:
        return line
    for comment in (" #", "\t#"):
        line = line.partition(comment)[0]
    return line.rstrip()


def _split_one(line: str) -> list[str]:
    return [line] if line else []


def _split_hosts(line: str) -> list[str]:
    """A domain, or the names of a hosts-file line without the machine's own."""
    words = line.split()
    if len(words) < 2:
        return words
    if not _is_address(words[0]):
        raise Unfit(f"{line[:60]!r} is not a domain", "one to a line, or 0.0.0.0 name")
    return [word for word in words[1:] if word.lower() not in _OWN_NAMES]


@lru_cache(maxsize=64)
def _is_address(text: str) -> bool:
    """Cached: all lines of a hosts file begin with the same one or two."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
