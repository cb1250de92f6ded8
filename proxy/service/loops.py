"""Which event loop: uvloop on Linux and macOS, winloop on Windows, asyncio's own everywhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from proxy.errors import StartError


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """`auto` takes the fast loop of the platform where it is installed, else asyncio's.

    Raises StartError when a loop is asked for by name and is not there.
    """
    if kind == "asyncio":
        return asyncio.new_event_loop
    fast = "winloop" if sys.platform == "win32" else "uvloop"
    wanted = fast if kind == "auto" else kind
    try:
        if wanted == "winloop":
            import winloop

            return winloop.new_event_loop  # type: ignore[no-any-return]
        import uvloop

        return uvloop.new_event_loop
    except ImportError as error:
        if kind == "auto":
            return asyncio.new_event_loop
        raise StartError(
            f"loop = {kind!r}: the package {wanted} is not installed here; "
            f"install it or set loop = 'asyncio'"
        ) from error
