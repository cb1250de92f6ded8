"""What is to become of a message's body: decided once, when its head has been judged.

One of: it passes untouched; its content goes through a chain of filters; other content takes
its place; or it must be refused, because it is coded in a way that cannot be looked through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from proxy.callouts.http import banner, bodyrules, framing
from proxy.callouts.http.body import Editor
from proxy.callouts.http.chain import Chain, Editing, Inspection, Inspector
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.filtered import FilteredBody, Frame
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.search import Search
from proxy.callouts.http.session import Session
from proxy.callouts.http.unframe import Unframer
from proxy.callouts.http.variables import render, variables
from proxy.content.codings import CodingLimits, codings_of, unsupported
from proxy.content.replace import ReplacePlan, StreamReplacer
from proxy.content.text import text_editor, text_view
from proxy.heads import Head, ResponseHead
from proxy.limits import Limits
from proxy.model import Direction, Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import BodyWatch, Ruling

BODY_LAYER = {
    Layer.HTTP_REQUEST: Layer.HTTP_REQUEST_BODY,
    Layer.HTTP_RESPONSE: Layer.HTTP_RESPONSE_BODY,
}
_BODILESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class NewContent:
    """What takes the place of a message's content."""

    data: bytes
    content_type: str  #: empty: there is nothing to describe


@dataclass(frozen=True, slots=True)
class BodyPlan:
    """At most one of `chain`, `content` and `refused` is there; none: untouched.

    `edited`: the content changes, so validators, digests and the length do not hold any more.
    `watch`: what is looked for, for those who look ahead (`block: {hold: ...}`). `asked` makes
    the body of a message whose content callouts are shown.
    """

    chain: Chain | None = None
    editors: tuple[tuple[str, Editor], ...] = ()  #: (kind of edit in the record, editor)
    content: NewContent | None = None
    refused: Finding | None = None
    watch: BodyWatch | None = None
    codings: tuple[str, ...] = ()
    asked: Callable[[Unframer, Chain | None, Frame], FilteredBody] | None = None

    @property
    def edited(self) -> bool:
        return bool(self.editors) or self.content is not None or self.asked is not None

    @property
    def untouched(self) -> bool:
        return self.chain is None and self.asked is None

    def body(self, unframer: Unframer, frame: Frame) -> FilteredBody:
        """The way of a body that does not pass untouched."""
        make = self.asked or FilteredBody
        return make(unframer, self.chain, frame)


_UNTOUCHED = BodyPlan()


@dataclass(frozen=True, slots=True)
class Planner:
    """What the plan of one message is made from. `facts` describe the message's head."""

    session: Session
    exchange: Exchange
    facts: Facts
    layer: Layer  #: http_request or http_response
    kind: framing.Framing

    @property
    def _direction(self) -> Direction:
        request = self.layer is Layer.HTTP_REQUEST
        return Direction.OUTBOUND if request else Direction.INBOUND

    def plan(self, head: Head, edited: Head, ruling: Ruling | None) -> BodyPlan:
        """`head` as it came, and as it goes on but for its framing; `ruling` of its layer."""
        edits = ruling.edits if ruling is not None else ()
        if not edits and not self.exchange.policy.wants(BODY_LAYER[self.layer]):
            return _UNTOUCHED
        planned = [p for p in edits if isinstance(p.edit, ast.BODY_EDITS)]
        values = {p.rule: variables(self.session, self.exchange, p.rule, ruling) for p in planned}
        for p in reversed(planned):
            if isinstance(p.edit, ast.SetBody | ast.RemoveBody) and self._may_be_other(
                head, p.edit
            ):
                return BodyPlan(content=self._new(p.edit, values[p.rule]))
        editors = tuple(
            (kind, editor)
            for p in planned
            for kind, editor in self._editors(edited, p.edit, values[p.rule])
        )
        if isinstance(self.kind, framing.NoBody):
            return BodyPlan()
        watch = bodyrules.watch(self.exchange, BODY_LAYER[self.layer], self.facts)
        if not editors and watch is None:
            return BodyPlan()
        return self._filtered(head, editors, watch)

    def _filtered(
        self, head: Head, editors: tuple[tuple[str, Editor], ...], watch: BodyWatch | None
    ) -> BodyPlan:
        codings = codings_of(head.all(b"content-encoding"))
        enforced = any(kind != "banner" for kind, _ in editors)
        enforced = enforced or (watch is not None and watch.enforcing)
        finding = self._opaque(head, codings, editing=bool(editors))
        if finding is not None:
            if enforced and bodyrules.undecodable(self.session, finding, self._direction):
                return BodyPlan(refused=finding)
            self._left_alone(finding, banner=any(kind == "banner" for kind, _ in editors))
            return BodyPlan()
        for kind, _ in editors:
            self.exchange.note_edit(kind)
        chain = self._chain(head, codings, tuple(editor for _, editor in editors), watch)
        return BodyPlan(chain, editors, watch=watch, codings=codings)

    def _left_alone(self, finding: Finding, *, banner: bool) -> None:
        """Have the record say why nothing was done."""
        exchange = self.exchange
        exchange.edits = [edit for edit in exchange.edits if edit != "banner"]
        why = "no banner: coding" if banner else f"body not worked on: {finding.id}"
        exchange.detail = exchange.detail or why

    def _opaque(self, head: Head, codings: tuple[str, ...], *, editing: bool) -> Finding | None:
        """Why the content cannot be worked on, if so."""
        unknown = unsupported(codings)
        if unknown is not None:
            return Finding("body.coding_unknown", unknown)
        partial = isinstance(head, ResponseHead) and head.status == 206
        return Finding("body.partial") if partial and editing else None

    def _chain(
        self,
        head: Head,
        codings: tuple[str, ...],
        editors: tuple[Editor, ...],
        watch: BodyWatch | None,
    ) -> Chain:
        limits = coding_limits(self.session.limits)
        coded = bool(codings) and not editors
        inspector = self.inspector(head, watch, coded=coded) if watch is not None else None
        if editors or inspector is None:
            return Editing(codings, limits, inspector, editors)
        return Inspection(codings, limits, inspector)

    def inspector(
        self, head: Head, watch: BodyWatch, *, coded: bool, preview: bool = False
    ) -> Inspector:
        """Who asks the rules of the body layer about this message.

        `coded`: it is shown content with its codings on. `preview`: the message will be looked
        at again, so only a block counts.
        """
        layer = BODY_LAYER[self.layer]
        sizes = self.exchange.policy.wants_field(layer, "body.size")
        ask = bodyrules.Asking(self.session, self.exchange, self.facts, layer, preview)
        ascii_only = all(pattern.source.isascii() for pattern in watch.patterns.patterns)
        declared = (head.all(b"content-type") or (None,))[0]
        view = text_view(head.content_type, declared, ascii_only=ascii_only)
        return Inspector(Search(watch, view, coded=coded), ask, sizes=sizes)

    def _editors(
        self, head: Head, edit: object, values: Mapping[str, str]
    ) -> list[tuple[str, Editor]]:
        """None where there is nothing to edit; of a banner the record then says why."""
        if isinstance(edit, ast.Replace) and not isinstance(self.kind, framing.NoBody):
            plan, ascii_only = _compiled(edit.items)
            declared = (head.all(b"content-type") or (None,))[0]
            replacer = StreamReplacer(plan)
            editor = text_editor(replacer, head.content_type, declared, ascii_only=ascii_only)
            return [("replace_body", editor)]
        if isinstance(edit, ast.InjectBanner) and isinstance(head, ResponseHead):
            found = banner.editor_for(self.exchange, head, self.kind, edit, values)
            return [("banner", found)] if found is not None else []
        return []

    def _may_be_other(self, head: Head, edit: object) -> bool:
        """Whether other content may stand behind this head (RFC 9110 6.4.1)."""
        if isinstance(edit, ast.RemoveBody) and isinstance(self.kind, framing.NoBody):
            return False
        if isinstance(head, ResponseHead):
            return head.status not in _BODILESS
        return True

    def _new(self, edit: ast.SetBody | ast.RemoveBody, values: Mapping[str, str]) -> NewContent:
        if isinstance(edit, ast.RemoveBody):
            self.exchange.note_edit("remove_body")
            return NewContent(b"", "")
        self.exchange.note_edit("set_body")
        return NewContent(render(edit.content, values), edit.content.content_type)


@lru_cache(maxsize=256)
def _compiled(items: tuple[ast.Replacement, ...]) -> tuple[ReplacePlan, bool]:
    """Once per rule of a generation: the plan, and whether all of it is ASCII."""
    ascii_only = all(item.pattern.source.isascii() and item.by.isascii() for item in items)
    return ReplacePlan([(item.pattern, item.by) for item in items]), ascii_only


def coding_limits(limits: Limits) -> CodingLimits:
    return CodingLimits(limits.decode_ratio, limits.decode_ratio_from, limits.decoded_bytes)


def check(exchange: Exchange, editors: tuple[tuple[str, Editor], ...]) -> None:
    """After the body: the record names an edit only if it was made, and why one was not."""
    for kind in {kind for kind, _ in editors}:
        ours = [editor for name, editor in editors if name == kind]
        if any(editor.inserted for editor in ours):
            continue
        if kind in exchange.edits:
            exchange.edits.remove(kind)
        if kind == "banner":
            exchange.detail = exchange.detail or f"no banner: {ours[0].outcome}"
