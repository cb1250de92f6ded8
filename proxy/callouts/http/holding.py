"""A message held back until its first content has been searched: `block: {hold: SIZE}`.

Head and content wait in the stage until enough has been searched, the body is over, or a short
timer fires; then the message goes on, through the same rules once more. So what is found near
the beginning can still be answered with a page. An event stream is never held, and neither is
the body of a client that waits to be told `100 Continue`.
"""

from __future__ import annotations

from proxy.callouts.http import framing
from proxy.callouts.http.bodyplan import BodyPlan, Planner, coding_limits
from proxy.callouts.http.chain import Inspection
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.unframe import unframer_for
from proxy.contract import StreamData
from proxy.heads import Head
from proxy.limits import Limits
from proxy.policy.ruling import Ruling


class Holder:
    """Searches behind a held head; each byte is looked at once here.

    `length`: of the head as it came. `ruling` is set when a rule blocks.
    """

    def __init__(
        self, head: Head, planner: Planner, plan: BodyPlan, length: int, limits: Limits
    ) -> None:
        assert plan.watch is not None
        coded = bool(plan.codings)
        inspector = planner.inspector(head, plan.watch, coded=coded, preview=True)
        self.length = length
        self.time_is_up = False
        self._hold = plan.watch.hold
        scanner = ChunkScanner(limits.chunk_line_bytes, limits.trailer_bytes, lambda _: True)
        self._unframer = unframer_for(planner.kind, scanner)
        self._chain = Inspection(plan.codings, coding_limits(limits), inspector)
        self._looked = 0
        self._seen = 0

    @property
    def ruling(self) -> Ruling | None:
        return self._chain.ruling

    def look(self, data: StreamData) -> bool:
        """Search what is new; True when that must do."""
        consumed, content = self._unframer.decode(data.data[self.length + self._looked :])
        self._looked += consumed
        self._seen += len(content)
        chain, unframer = self._chain, self._unframer
        if content:
            chain.feed(content)
        stopped = chain.ruling is not None or chain.fault is not None
        if not stopped and unframer.done:
            chain.finish()
        enough = stopped or self._seen >= self._hold or unframer.done or unframer.fault is not None
        return enough or self.time_is_up or data.no_more_data or data.buffer_limit_reached


def worth_it(head: Head, kind: framing.Framing, plan: BodyPlan) -> bool:
    """Whether this message is to be held back."""
    if plan.watch is None or not plan.watch.hold or isinstance(kind, framing.NoBody):
        return False
    return head.content_type != "text/event-stream" and not head.all(b"expect")
