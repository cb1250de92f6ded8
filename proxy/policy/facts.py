"""What a condition may look at: one object per decision, built by who asks.

None means absent unless `unknown` names the field: absent is false, unknown stays unknown
under `not`, and a denying rule whose condition is unknown counts as matched.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.heads import RequestHead, ResponseHead
from proxy.model import Direction, FlowInfo


@dataclass(slots=True)
class BodyFacts:
    """What is known of a message's content. While it is not `complete` a pattern that was not
    found, the size and the digest are *pending*: rules that would need them do not apply yet.
    """

    matched: frozenset[int] = frozenset()  #: numbers of BodyWatch.patterns
    size: int = 0  #: decoded bytes so far
    sha256: str | None = None  #: lower-case hex, when complete and asked for
    complete: bool = False


@dataclass(slots=True)
class Facts:
    flow: FlowInfo
    wall: float  #: seconds since the epoch, for `time` and `weekday` (local time)
    request: RequestHead | None = None
    response: ResponseHead | None = None
    direction: Direction | None = None
    sniffed: str | None = None  #: media type by the body's first bytes
    body: BodyFacts | None = None  #: at the body layers
    reauthorize: bool = False  #: an open connection is judged again
    unknown: frozenset[str] = frozenset()  #: fields that could not be determined
