"""Which application package a process of Linux belongs to, by its control group. Pure.

The group's name says it, and only root or the user's own service manager makes such groups:

* snapd starts an application in `snap.NAME.APP-UUID.scope` (older: `snap.NAME.APP.UUID.scope`)
  and a service in `snap.NAME.APP.service`; NAME may carry an instance key, `NAME_KEY`
  (forum.snapcraft.io, "cgroup v2 support"; snap names have no dots).
* Flatpak runs an application in `app-flatpak-ID-NUMBER.scope` (systemd.io/DESKTOP_ENVIRONMENTS,
  which names `app[-LAUNCHER]-ID-RANDOM.scope`), `-` in ID escaped as `\\x2d` (systemd.unit(5)).
"""

from __future__ import annotations

import re

_SNAP = re.compile(r"snap\.([a-z0-9-]+(?:_[a-z0-9]+)?)\.[^/]+\.(?:scope|service)")
_FLATPAK = re.compile(r"app-flatpak-([^/]+)-[0-9]+\.scope")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


def package_of_cgroup(path: str) -> str:
    """`snap:NAME`, `flatpak:ID`, or "" where the path names no package. The innermost counts."""
    for part in reversed(path.split("/")):
        if found := _SNAP.fullmatch(part):
            return f"snap:{found[1]}"
        if found := _FLATPAK.fullmatch(part):
            return f"flatpak:{_ESCAPED.sub(_character, found[1])}"
    return ""


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))
