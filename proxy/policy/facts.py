"""What a condition may look at: one object per decision, built by who asks.

None means absent unless `unknown` names the field: absent is false, unknown stays unknown
under `not`, and a denying rule whose condition is unknown counts as matched.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.heads import RequestHead, ResponseHead
from proxy.model import Direction, FlowInfo


@dataclass(slots=True)
class Facts:
    flow: FlowInfo
    wall: float  #: seconds since the epoch, for `time` and `weekday` (local time)
    request: RequestHead | None = None
    response: ResponseHead | None = None
    direction: Direction | None = None
    sniffed: str | None = None  #: media type by the body's first bytes
    unknown: frozenset[str] = frozenset()  #: fields that could not be determined
