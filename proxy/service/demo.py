"""`sluicegate demo`: the main job shown with real requests, each checked; ends by itself.

As root on Linux with `ip` and `nft` it runs in network namespaces of its own, behind a real
nftables redirect; elsewhere on loopback, with no privileges.
"""

from __future__ import annotations

import http.client
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

from proxy.errors import SluicegateError
from proxy.service.demo_netns import Namespaces, unusable
from proxy.service.demo_steps import FIRST_POLICY, STEPS, Mismatch
from proxy.service.demo_world import World

Paint = Callable[[str, str], str]
_GREEN, _RED, _BOLD = "32", "31", "1"


def run_demo(paint: Paint, *, loopback: bool = False) -> int:
    """0 when every step showed what it should, 1 when not, 3 when it could not start.

    `loopback`: no redirect, even where one is possible.
    """
    begin = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)  # so that everything is undone then, too
    with ExitStack() as undo:
        namespaces, where = _namespaces(undo, loopback)
        try:
            world = undo.enter_context(World(namespaces, FIRST_POLICY))
        except (OSError, SluicegateError) as error:
            print(f"sluicegate demo: cannot start: {error}", file=sys.stderr)
            return 3
        print(paint(_BOLD, f"sluicegate demo: {where}"))
        print(
            f"origin {world.origin}, proxy {world.listener} ({world.provider}), admin {world.admin}"
        )
        failed = sum(not _shown(number, world, paint) for number in range(len(STEPS)))
    seconds = time.monotonic() - begin
    if failed:
        print(paint(_RED, f"\n{failed} of {len(STEPS)} steps did not show what they should"))
        return 1
    print(paint(_GREEN, f"\nall {len(STEPS)} steps showed what they should, in {seconds:.1f} s"))
    return 0


def _shown(number: int, world: World, paint: Paint) -> bool:
    """Run one step; what is wrong is said, and the next goes on."""
    step = STEPS[number]
    print(paint(_BOLD, f"\n{number + 1}. {step.__doc__}"))
    try:
        for line in step(world):
            print(f"   {line}")
    except (Mismatch, SluicegateError, OSError, http.client.HTTPException) as error:
        print(paint(_RED, f"   NOT AS IT SHOULD BE: {error or type(error).__name__}"))
        return False
    print(paint(_GREEN, "   ok"))
    return True


def _namespaces(undo: ExitStack, loopback: bool) -> tuple[Namespaces | None, str]:
    """The namespaces, or None; and a sentence about which of the two it is."""
    reason = "as asked" if loopback else unusable()
    if not reason:
        try:
            namespaces = Namespaces()
        except OSError as error:
            reason = str(error)
        else:
            undo.callback(namespaces.remove)
            return namespaces, "through a real nftables redirect, in a network namespace"
    return None, f"on loopback with a fixed upstream, without an nftables redirect ({reason})"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
