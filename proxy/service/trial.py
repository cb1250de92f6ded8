"""A flow that leads nowhere, on which a callout's factory is tried at start."""

from __future__ import annotations

from proxy.contract import How
from proxy.model import Direction, Endpoint, FlowInfo, RedirectInfo
from proxy.records import Record


class TrialFlow:
    """A FlowHandle (proxy.contract) that accepts everything and does nothing."""

    def __init__(self) -> None:
        there, here = Endpoint("192.0.2.1", 80), Endpoint("192.0.2.9", 40000)  # RFC 5737
        self.info = FlowInfo("trial", RedirectInfo("trial", there, here), 0.0)
        self.now = 0.0

    def inject(self, direction: Direction, data: bytes) -> None: ...

    def proceed(self, direction: Direction) -> None: ...

    def finish(self, direction: Direction) -> None: ...

    def drop(self, how: How = How.RESET) -> None: ...

    def set_timer(self, name: str, delay: float | None) -> None: ...

    def ask(self, question: object, timeout: float) -> int:
        return 1

    def dial(self, endpoint: Endpoint) -> None: ...

    def emit(self, record: Record) -> None: ...
