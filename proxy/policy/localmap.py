"""Which local file answers a request: the one place where map_local's paths are compared.

A path is compared as servers take it: percent-encoding decoded once, dot segments and repeated
slashes gone (the last reading of `proxy.policy.paths`). Files are keyed by what stands behind
the prefix, in UTF-8 text, so whatever the path holds, nothing but what was read at load can be
found.
"""

from __future__ import annotations

from proxy.policy import ast
from proxy.policy.paths import path_readings


def local_file(action: ast.MapLocal, path: str) -> ast.LocalFile | None:
    """The file for a request's path (an octet string, without query); None: there is none."""
    behind = _behind(action, path)
    return action.files.get(behind) if behind is not None else None


def answers(action: ast.MapLocal, path: str) -> bool:
    """Whether map_local has an answer to it, be it 404."""
    behind = _behind(action, path)
    if behind is None:
        return False
    return action.missing == "not_found" or behind in action.files


def _behind(action: ast.MapLocal, path: str) -> str | None:
    """What stands behind the prefix; None for a path that is not below it."""
    taken = path_readings(path)[-1]
    if not taken.startswith(action.prefix):
        return None
    try:
        return taken[len(action.prefix) :].encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return taken[len(action.prefix) :]
