"""What becomes of a message when the users' own callouts have been asked about it.

Their content goes through the rules and edits of policy as if it had come so: policy judges
what really goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxy.callouts.http import bodyplan, edits, framing
from proxy.callouts.http.bodyplan import BodyPlan, NewContent, Planner, coding_limits
from proxy.callouts.http.chain import Chain
from proxy.callouts.http.consulting import Consulting
from proxy.callouts.http.filtered import FilteredBody, Frame
from proxy.callouts.http.pieces import AskedBody, Asking
from proxy.callouts.http.unframe import Unframer
from proxy.content.codings import codings_of
from proxy.heads import Head
from proxy.policy.ruling import Ruling

_CODING = frozenset({b"content-encoding"})


@dataclass(frozen=True, slots=True)
class Advice:
    """A message in question. `ruling` of its head's layer, `raw`: its head as it came."""

    consulting: Consulting
    planner: Planner
    ruling: Ruling | None
    raw: bytes

    def plan(self) -> tuple[Head, BodyPlan, Ruling | None]:
        """The head to go, what becomes of the body, and the ruling of the body layer if it
        blocks."""
        asked = self.consulting
        if asked.content is not None:
            return self._of_content(asked.content)
        if asked.pieces:
            return self._in_pieces()
        return asked.head, self.planner.plan(asked.original, asked.head, self.ruling), None

    def _of_content(self, content: bytes) -> tuple[Head, BodyPlan, Ruling | None]:
        """The callouts have changed a whole body."""
        asked, planner = self.consulting, self.planner
        kind = framing.Length(len(content)) if content else framing.NoBody()
        inner = replace(planner, kind=kind)
        plan = inner.plan(_plain(asked.original), _plain(asked.head), self.ruling)
        if plan.refused is not None or plan.content is not None:
            return asked.head, plan, None
        chain = plan.chain
        if chain is not None:
            content = chain.feed(content)
            if chain.ruling is None:
                content += chain.finish()
            bodyplan.check(planner.exchange, plan.editors)
            if chain.ruling is not None:
                return asked.head, plan, chain.ruling
        declared = (asked.head.all(b"content-type") or (b"",))[0].decode("latin-1")
        return asked.head, BodyPlan(content=NewContent(content, declared)), None

    def _in_pieces(self) -> tuple[Head, BodyPlan, Ruling | None]:
        """Callouts are shown the content as it goes by."""
        asked, planner = self.consulting, self.planner
        head, codings = _plain(asked.head), codings_of(asked.original.all(b"content-encoding"))
        plan = planner.plan(_plain(asked.original), head, self.ruling)
        if plan.refused is not None or plan.content is not None:
            return head, plan, None
        session, message = planner.session, asked.message()
        limits = coding_limits(session.limits)
        asking = Asking(session.panel, asked.pieces, message, codings, limits)

        def body(unframer: Unframer, chain: Chain | None, frame: Frame) -> FilteredBody:
            return AskedBody(unframer, chain, frame, asking)

        planner.exchange.note_edit("callout")
        return head, replace(plan, asked=body, codings=codings), None


def _plain(head: Head) -> Head:
    """The head of content without codings."""
    return edits.without(head, _CODING)
