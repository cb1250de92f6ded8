"""What kind of event loop runs: one that tells when a socket is ready, or that completes calls.

uvloop, winloop and asyncio's selector loops have add_reader and add_writer. Windows' Proactor
(IOCP) has neither: there accepting and connecting are calls that it completes
(docs.python.org, asyncio "Platform Support").
"""

from __future__ import annotations

import asyncio


def tells_readiness(loop: asyncio.AbstractEventLoop) -> bool:
    """Has it add_reader and add_writer?"""
    return not isinstance(loop, getattr(asyncio, "ProactorEventLoop", ()))
