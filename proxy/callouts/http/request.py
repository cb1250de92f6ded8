"""The client's direction: request heads and bodies, one request in work at a time.

Pipelined requests wait (`Defer`) until the exchange before them is over, so every request is
judged, answers keep their order and nothing is queued (RFC 9112 9.3.2).
"""

from __future__ import annotations

from proxy.api import Interest
from proxy.callouts.http import consulting, framing, local, outgoing, upstream
from proxy.callouts.http.advice import Advice
from proxy.callouts.http.bodyplan import BodyPlan, Planner
from proxy.callouts.http.consulting import Consulting
from proxy.callouts.http.exchange import Exchange
from proxy.callouts.http.lines import EndOfHead, Finding
from proxy.callouts.http.parse import parse_request
from proxy.callouts.http.passage import Waiting
from proxy.callouts.http.session import OUT, Session
from proxy.callouts.http.strict import same_authority
from proxy.callouts.http.upload import Upload
from proxy.contract import (
    PERMIT_FIN,
    AllowConnection,
    Block,
    Defer,
    DialFailure,
    NeedMoreData,
    Replace,
    StreamData,
    Verdict,
)
from proxy.heads import RequestHead
from proxy.limits import Cause, OnException
from proxy.model import Endpoint, Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import Ruling
from proxy.records import ExceptionApplied

HEAD_TIMER = "head"
_MAX_BLANK_LINES = 4  # RFC 9112 2.2: at least one is to be ignored


class RequestSide:
    """Classifies OUTBOUND."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._end = EndOfHead(session.limits.head_bytes)
        self._upload = Upload(session)
        self._advice: Advice | None = None  # callouts are being asked about a request
        self._blank_lines = 0
        self._head_timer = False
        self._authority: bytes | None = None  # explicit mode: whom the upstream was dialled for

    @property
    def busy(self) -> bool:
        """Whether a request is on its way here that is not yet an exchange."""
        return self._head_timer or self._session.dialling is not None

    def timer_fired(self, name: str) -> bool:
        """Whether the timer was about holding a request back."""
        return self._upload.timer_fired(name)

    def forget_timer(self) -> None:
        """The head's timer has fired."""
        self._head_timer = False

    def classify(self, data: StreamData) -> Verdict:
        session = self._session
        if session.resuming:
            session.resuming = False
            session.resume(OUT.opposite)
        if session.tunnel:
            return AllowConnection()
        if data.disconnect:
            return self._fin(data)
        if session.closing:
            return Block(len(data.data))
        if self._advice is not None and session.exchange is not None:
            return self._consult(session.exchange, self._advice, data)
        if self._upload.active and session.exchange is not None:
            return self._upload.step(session.exchange, data)
        if session.exchange is not None or session.dialling is not None:
            session.hold(OUT)
            return Defer()
        return self._head(data)

    # --- head

    def _head(self, data: StreamData) -> Verdict:
        blank = self._blank(data)
        if blank is not None:
            return blank
        length = self._end.find(data.data)
        if length is None:
            return self._incomplete(data)
        self.stop_timer()
        self._blank_lines = 0
        return self._request(bytes(data.data[:length]), data)

    def _blank(self, data: StreamData) -> Verdict | None:
        start = data.data[:2]
        if start == b"\r\n" and self._blank_lines < _MAX_BLANK_LINES:
            self._blank_lines += 1
            return Replace(2, b"")
        if start == b"\r" and not data.no_more_data:
            return NeedMoreData(1)
        return None

    def _incomplete(self, data: StreamData) -> Verdict:
        limit = self._session.limits.head_bytes
        if len(data.data) >= limit or data.buffer_limit_reached:
            in_line = data.data.find(b"\n", 0, limit) < 0
            id_ = "http1.target_too_long" if in_line else "http1.head_too_large"
            return self._refuse(Finding(id_, f"{limit} bytes"), min(len(data.data), limit))
        if data.no_more_data:
            return self._refuse(Finding("http1.truncated_head"), len(data.data))
        if not self._head_timer:
            self._head_timer = True
            self._session.flow.set_timer(HEAD_TIMER, self._session.limits.head_seconds)
        return NeedMoreData(1)

    def stop_timer(self) -> None:
        if self._head_timer:
            self._head_timer = False
            self._session.flow.set_timer(HEAD_TIMER, None)

    def _refuse(self, finding: Finding, n: int) -> Verdict:
        """Refuse what has no head."""
        session = self._session
        self.stop_timer()
        session.begin(None, session.policies())
        session.repairs(finding, OUT)
        return session.refuse(finding, OUT, n)

    def _request(self, raw: bytes, data: StreamData) -> Verdict:
        session = self._session
        parsed = parse_request(raw, session.limits.head_fields)
        head = parsed.head
        if head is not None and self._must_dial(head):
            return self._dial(head)
        exchange = session.begin(head, session.policies())
        finding = session.first_refused(parsed, OUT)
        if finding is not None or head is None:
            return session.refuse(finding or parsed.findings[0], OUT, len(raw))
        if any(f.id == "http1.te_and_cl" for f in parsed.findings):
            exchange.must_close = True  # RFC 9112 6.3 rule 3
        if session.overloaded and self._shed():
            session.answer(
                exchange, 503, upstream.FAILURE_TEXT[DialFailure.OVERLOAD], "refused", close=True
            )
            return Block(len(raw))
        return self._judge(exchange, head, raw, data)

    def _shed(self) -> bool:
        session = self._session
        action = session.exceptions.overload
        session.flow.emit(ExceptionApplied(Cause.OVERLOAD, action, "http"))
        return action is OnException.CLOSED

    # --- explicit mode: another authority is another upstream

    def _must_dial(self, head: RequestHead) -> bool:
        session = self._session
        if not session.flow.info.redirect.explicit or not head.authority:
            return False
        if self._authority is None:
            self._authority = head.authority  # the provider dialled the first one
        return session.failed is None and not same_authority(self._authority, head.authority)

    def _dial(self, head: RequestHead) -> Verdict:
        self._session.dialling = head.authority
        port = head.authority.rpartition(b":")[2]
        number = int(port) if port.isdigit() else 80
        self._session.flow.dial(Endpoint(head.host, number))
        self._session.hold(OUT)
        return Defer()

    def dialled(self) -> bool:
        """The upstream asked for is there, or will never be. False: none was asked for."""
        session = self._session
        if session.dialling is None:
            return False
        self._authority, session.dialling = session.dialling, None
        session.resume(OUT)
        return True

    # --- policy

    def _judge(
        self, exchange: Exchange, head: RequestHead, raw: bytes, data: StreamData
    ) -> Verdict:
        session = self._session
        kind = framing.of_request(head)
        close = not isinstance(kind, framing.NoBody)  # a refused body is not read
        facts = Facts(session.flow.info, session.wall(), head, direction=OUT)
        ruling = session.rule(exchange, facts, Layer.HTTP_REQUEST)
        if ruling is not None:
            verdict = self._terminal(exchange, ruling, len(raw), close=close)
            if verdict is not None:
                return verdict
        planner = Planner(session, exchange, facts, Layer.HTTP_REQUEST, kind)
        edited = outgoing.edit_head(exchange, head, ruling)
        if consulting.wanted(session, consulting.OF_REQUEST):
            side = consulting.OF_REQUEST
            asking = Consulting(session, exchange, side, head, edited, kind, len(raw))
            self._advice = Advice(asking, planner, ruling, raw)
            session.asking = True
            return self._consult(exchange, self._advice, data)
        plan = planner.plan(head, edited, ruling)
        return self._go(exchange, planner, plan, edited, raw, data)

    def _consult(self, exchange: Exchange, advice: Advice, data: StreamData) -> Verdict:
        """Ask the callouts; the server has to wait, as it cannot know the request yet."""
        verdict = advice.consulting.step(data)
        if isinstance(verdict, Defer | NeedMoreData):
            return verdict
        self._stop_asking()
        if verdict is not None:
            return verdict
        head, plan, blocking = advice.plan()
        assert isinstance(head, RequestHead)
        if blocking is not None:
            return self._upload.blocked(exchange, blocking, data)
        return self._go(exchange, advice.planner, plan, head, advice.raw, data)

    def _stop_asking(self) -> None:
        self._advice = None
        if self._session.asking:
            self._session.asking = False
            self._session.resume(OUT.opposite)

    def _go(
        self,
        exchange: Exchange,
        planner: Planner,
        plan: BodyPlan,
        edited: RequestHead,
        raw: bytes,
        data: StreamData,
    ) -> Verdict:
        session = self._session
        if plan.refused is not None:
            return session.deny(plan.refused, OUT, len(raw))
        if session.failed is not None:
            return self._no_upstream(exchange, len(raw))
        explicit = session.flow.info.redirect.explicit
        panel = session.panel
        touched = bool(panel) and panel.may_change(Interest.RESPONSE_BODY | Interest.RESPONSE_DATA)
        head = upstream.prepare(
            edited, planner.facts, exchange.policy, explicit=explicit, touched=touched
        )
        waiting = Waiting(edited, head, raw, planner.kind, plan)
        return self._upload.begin(exchange, planner, waiting, data)

    def _terminal(
        self, exchange: Exchange, ruling: Ruling, n: int, *, close: bool
    ) -> Verdict | None:
        session = self._session
        match ruling.action:
            case ast.Block() as block if ruling.blocked:
                return session.block(exchange, block, n, close=close)
            case ast.Redirect() as redirect:
                return session.redirect(exchange, redirect, n, close=close)
            case ast.Respond() as respond:
                local.respond(session, exchange, respond, ruling, close=close)
                return Block(n)
            case ast.MapLocal() as mapped:
                local.map_local(session, exchange, mapped, close=close)
                return Block(n)
        return None

    def _no_upstream(self, exchange: Exchange, n: int) -> Verdict:
        failed = self._session.failed
        assert failed is not None
        self.fail(exchange, failed.failure, failed.detail)
        return Block(n)

    def fail(self, exchange: Exchange, failure: DialFailure, detail: str) -> None:
        """Answer for an upstream that is not there (any more)."""
        self._upload.abandon()
        self._stop_asking()
        exchange.detail = detail or failure.value
        self._session.answer(
            exchange,
            upstream.FAILURE_STATUS[failure],
            upstream.FAILURE_TEXT[failure],
            "failed",
            close=True,
        )

    def _fin(self, data: StreamData) -> Verdict:
        """The client has said everything. A complete request is still answered (half-close)."""
        session = self._session
        session.client_fin = True
        exchange = session.exchange
        if exchange is None:
            if not session.closing and session.dialling is None:
                session.closing = True
                session.flow.finish(OUT.opposite)
            return PERMIT_FIN
        if self._upload.active:
            self._upload.cut(exchange, data.offset)
        return PERMIT_FIN
