"""cgroup v2 on this machine: where it is mounted, which one a process is in, its id.

cgroups(7). In a hybrid set-up v2 is mounted beside v1, often at /sys/fs/cgroup/unified. The id
of a cgroup, which bpf_get_current_cgroup_id(7) tells, is its directory's inode number.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from proxy.errors import RedirectError

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")  # proc(5): spaces and such in mountinfo

# docker-<id>.scope, cri-containerd-<id>.scope, crio-<id>.scope, libpod-<id>.scope (systemd's
# driver), and .../docker/<id>, .../kubepods/.../<id>, .../<namespace>/<id> (cgroupfs's).
_CONTAINER = re.compile(r"(?:^|/)(?:[a-z]+(?:-[a-z]+)*-)?([0-9a-f]{64})(?:\.scope)?(?=/|$)")


def mount_point() -> Path:
    """Where cgroup v2 is mounted. Raises RedirectError."""
    return _mounted()[0]


def path_of(pid: int | str = "self") -> str:
    """A process's cgroup v2 path, as /system.slice/app.service. Raises OSError, RedirectError."""
    text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    return parse_path(text)


def parse_path(text: str) -> str:
    """The v2 line of /proc/PID/cgroup. Raises RedirectError."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
    raise RedirectError("this process is in no cgroup v2")


def directory(path: str | None) -> Path:
    """The directory of a cgroup path; the hierarchy's root for None. Raises RedirectError."""
    place, root = _mounted()
    inner = "/" + (path or "").strip("/")
    if root != "/":  # only a part of the hierarchy is mounted, as in a container
        inner = inner.removeprefix(root) if inner.startswith(root) else inner
    found = place / inner.strip("/")
    if not found.is_dir():
        raise RedirectError(f"there is no cgroup {found}: make it first")
    return found


def _mounted() -> tuple[Path, str]:
    """Where cgroup v2 is mounted, and which part of it; the whole of it where there is a choice."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux, or no /proc
        lines = []
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            root, place = map(_unescape, before.split(" ")[3:5])
            found.append((len(root), root, Path(place)))
    if not found:
        raise RedirectError(
            "cgroup v2 is not mounted here: mount it (mount -t cgroup2 none "
            "/sys/fs/cgroup/unified), or use provider nft"
        )
    _, part, where = min(found)
    return where, part


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def ancestors(path: str) -> list[str]:
    """A cgroup and those above it, up to the root: /a/b, /a, /."""
    parts = [part for part in path.split("/") if part]
    return ["/" + "/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def container_of(path: str) -> str | None:
    """The id of the innermost container that a cgroup path names, or None.

    docker, containerd, cri-o, podman, and Kubernetes' pods (kubepods) by either of them.
    """
    found = _CONTAINER.findall(path)
    return found[-1] if found else None


class GroupPaths:
    """cgroup id -> path, found by walking the hierarchy; asked again when it has changed."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def path(self, group_id: int) -> str | None:
        """None when there is no such cgroup (any more)."""
        if group_id not in self._known:
            self._known = _walk()
        return self._known.get(group_id)


def _walk() -> dict[int, str]:
    try:
        root = mount_point()
    except RedirectError:
        return {}
    found = {}
    for place, folders, _ in os.walk(root):
        with_path = Path(place)
        try:
            inode = with_path.stat().st_ino
        except FileNotFoundError:  # ENOENT: it was removed while we walked
            folders.clear()
            continue
        found[inode] = "/" + str(with_path.relative_to(root)).removeprefix(".")
    return found
