"""The server's direction: interim and final responses, their bodies, and where they end.

Bytes that answer no request are never passed on; a body that ends early ends early for the
client too (RFC 9112 8), and a server that goes before a byte of its answer was delivered is
answered for with 502.
"""

from __future__ import annotations

from proxy.callouts.http import consulting, delivery, framing, sniffing, writer
from proxy.callouts.http.advice import Advice
from proxy.callouts.http.bodyplan import BodyPlan, Planner
from proxy.callouts.http.consulting import Consulting
from proxy.callouts.http.download import Download
from proxy.callouts.http.exchange import SERVER_FIN, Answered, Exchange, OnFin
from proxy.callouts.http.lines import EndOfHead, Finding
from proxy.callouts.http.parse import parse_response
from proxy.callouts.http.passage import Waiting
from proxy.callouts.http.session import IN, Session
from proxy.callouts.http.sniffing import Need, Sniffer
from proxy.contract import (
    PERMIT_FIN,
    AllowConnection,
    Block,
    Defer,
    NeedMoreData,
    Permit,
    Replace,
    StreamData,
    Verdict,
)
from proxy.heads import ResponseHead
from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.facts import Facts

SNIFF_TIMER = "sniff"
_MAX_INTERIM = 100
_BAD_GATEWAY = "The server closed the connection without a complete answer."


class ResponseSide:
    """Classifies INBOUND."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._end = EndOfHead(session.limits.head_bytes)
        self._download = Download(session)
        self._sniffer: Sniffer | None = None
        self._advice: Advice | None = None  # callouts are being asked about a response

    def classify(self, data: StreamData) -> Verdict:
        session, exchange = self._session, self._session.exchange
        if session.tunnel:
            return AllowConnection()
        if session.asking:
            session.hold(IN)
            return Defer()
        if data.disconnect:
            return self._fin(data, exchange)
        if session.closing:
            return Block(len(data.data))
        if exchange is None:
            return self._unasked()
        if self._advice is not None and self._advice.consulting.exchange is exchange:
            return self._consult(exchange, self._advice, data)
        if self._download.active:
            return self._download.step(exchange, data)
        if exchange.answered is Answered.WHOLE:
            return self._extra("http1.extra_bytes")
        return self._head(exchange, data)

    def _unasked(self) -> Verdict:
        """No exchange is in work. A pipelined request that waits goes first: what is here may
        be its answer, and how the reads fell must not decide."""
        session = self._session
        waiting = session.deferred[IN.opposite] or session.resuming
        if waiting and session.dialling is None:
            session.hold(IN)
            return Defer()
        return self._extra("http1.extra_bytes" if session.count else "http1.server_spoke_first")

    def _extra(self, id_: str) -> Verdict:
        session = self._session
        finding = Finding(id_)
        session.repairs(finding, IN)
        exchange = session.exchange
        if exchange is not None:  # answered, but its request is still being sent
            exchange.detail = id_
            exchange.must_close = True
            session.end(exchange, "forwarded")
        return session.refuse(finding, IN, 1)

    # --- heads

    def _head(self, exchange: Exchange, data: StreamData) -> Verdict:
        if self._sniffer is not None:
            return self._sniff(exchange, self._sniffer, data)
        length = self._end.find(data.data)
        if length is None:
            return self._incomplete(exchange, data)
        raw = bytes(data.data[:length])
        parsed = parse_response(raw, self._session.limits.head_fields)
        finding = self._session.first_refused(parsed, IN)
        if finding is not None or parsed.head is None:
            return self._session.refuse(finding or parsed.findings[0], IN, length)
        head = parsed.head
        if head.status < 200 and head.status != 101:
            return self._interim(exchange, head, raw)
        if head.status == 101 and not _offered(exchange, head):
            return self._refuse(Finding("http1.unasked_101"), length)
        exchange.response = head
        if any(f.id == "http1.te_and_cl" for f in parsed.findings):
            exchange.must_close = True
        return self._final(exchange, head, raw, data)

    def _refuse(self, finding: Finding, n: int) -> Verdict:
        self._session.repairs(finding, IN)
        return self._session.refuse(finding, IN, n)

    def _incomplete(self, exchange: Exchange, data: StreamData) -> Verdict:
        limit = self._session.limits.head_bytes
        if len(data.data) >= limit or data.buffer_limit_reached:
            return self._refuse(
                Finding("http1.head_too_large", f"{limit} bytes"), min(len(data.data), limit)
            )
        if data.no_more_data:
            self._bad_gateway(exchange)
            return Block(len(data.data))
        return NeedMoreData(1)

    def _bad_gateway(self, exchange: Exchange) -> None:
        exchange.detail = exchange.detail or "server closed before its answer"
        self._session.answer(exchange, 502, _BAD_GATEWAY, "failed", close=True)

    def _interim(self, exchange: Exchange, head: ResponseHead, raw: bytes) -> Verdict:
        """1xx goes through end to end; HTTP/1.0 clients never see one (RFC 9110 15.2)."""
        exchange.interim += 1
        if exchange.interim > _MAX_INTERIM:
            return self._refuse(Finding("http1.too_many_interim", str(_MAX_INTERIM)), len(raw))
        request = exchange.request
        if request is None or request.version == b"1.0":
            return Replace(len(raw), b"")
        return _pass_head(raw, head)

    # --- policy

    def _final(
        self, exchange: Exchange, head: ResponseHead, raw: bytes, data: StreamData
    ) -> Verdict:
        kind = framing.of_response(head, exchange.method)
        need = sniffing.need(exchange.policy, head, kind)
        if need is not Need.YES:
            unknown = frozenset({sniffing.FIELD}) if need is Need.UNKNOWN else frozenset()
            facts = self._facts(exchange, head)
            facts.unknown = unknown
            return self._judge(exchange, facts, raw, data)
        limits = self._session.limits
        self._sniffer = Sniffer(head, len(raw), kind, limits)
        self._session.flow.set_timer(SNIFF_TIMER, limits.sniff_seconds)
        return self._sniff(exchange, self._sniffer, data)

    def _sniff(self, exchange: Exchange, sniffer: Sniffer, data: StreamData) -> Verdict:
        if not sniffer.look(data):
            return NeedMoreData(1)
        self._sniffer = None
        self._session.flow.set_timer(SNIFF_TIMER, None)
        facts = self._facts(exchange, sniffer.head)
        if sniffer.undecodable:
            facts.unknown = frozenset({sniffing.FIELD})
        else:
            facts.sniffed = sniffer.result()
        return self._judge(exchange, facts, bytes(data.data[: sniffer.length]), data)

    def stop_sniffing(self) -> None:
        """Time is up: judge on what is there."""
        if self._sniffer is not None:
            self._sniffer.time_is_up = True
            self._session.flow.proceed(IN)

    def _facts(self, exchange: Exchange, head: ResponseHead) -> Facts:
        session = self._session
        return Facts(session.flow.info, session.wall(), exchange.request, head, IN)

    def _judge(self, exchange: Exchange, facts: Facts, raw: bytes, data: StreamData) -> Verdict:
        """Ask policy about the head that stands at the front, and do what it says."""
        session, head = self._session, facts.response
        assert head is not None
        ruling = session.rule(exchange, facts, Layer.HTTP_RESPONSE)
        if ruling is not None:
            match ruling.action:
                case ast.Block() as block if ruling.blocked:
                    return session.block(exchange, block, len(raw), close=True)
                case ast.Redirect() as redirect:
                    return session.redirect(exchange, redirect, len(raw), close=True)
        if head.status == 101 or (exchange.method == b"CONNECT" and head.status < 300):
            return self._switch(exchange, head, raw)
        kind = framing.of_response(head, exchange.method)
        planner = Planner(session, exchange, facts, Layer.HTTP_RESPONSE, kind)
        edited = delivery.edit_head(exchange, head, ruling)
        if consulting.wanted(session, consulting.OF_RESPONSE):
            side = consulting.OF_RESPONSE
            asking = Consulting(session, exchange, side, head, edited, kind, len(raw))
            self._advice = Advice(asking, planner, ruling, raw)
            return self._consult(exchange, self._advice, data)
        plan = planner.plan(head, edited, ruling)
        return self._go(exchange, planner, plan, edited, raw, data)

    def _consult(self, exchange: Exchange, advice: Advice, data: StreamData) -> Verdict:
        """Ask the callouts about the response whose head stands at the front."""
        verdict = advice.consulting.step(data)
        if isinstance(verdict, Defer | NeedMoreData):
            return verdict
        self._advice = None
        if verdict is not None:
            return verdict
        head, plan, blocking = advice.plan()
        assert isinstance(head, ResponseHead)
        if blocking is not None:
            return self._download.blocked(exchange, blocking, data)
        return self._go(exchange, advice.planner, plan, head, advice.raw, data)

    def _go(
        self,
        exchange: Exchange,
        planner: Planner,
        plan: BodyPlan,
        edited: ResponseHead,
        raw: bytes,
        data: StreamData,
    ) -> Verdict:
        if plan.refused is not None:
            return self._session.deny(plan.refused, IN, len(raw))
        original = planner.facts.response
        assert original is not None
        waiting = Waiting(original, edited, raw, planner.kind, plan)
        return self._download.begin(exchange, planner, waiting, data)

    def timer_fired(self, name: str) -> bool:
        """Whether the timer was about holding a response back."""
        return self._download.timer_fired(name)

    def _switch(self, exchange: Exchange, head: ResponseHead, raw: bytes) -> Verdict:
        """101, or CONNECT's 2xx: what follows on both sides is another protocol."""
        exchange.status = head.status
        self._session.go_raw()
        return _pass_head(raw, head)

    # --- the end

    def _fin(self, data: StreamData, exchange: Exchange | None) -> Verdict:
        session = self._session
        if exchange is None:
            session.close()
            return PERMIT_FIN
        waiting = self._download.ending()
        if waiting is not None:
            return waiting
        self._download.measure(exchange, data.offset)
        match SERVER_FIN[exchange.answered]:
            case OnFin.BAD_GATEWAY:
                self._bad_gateway(exchange)
            case OnFin.COMPLETE:
                return self._download.complete(exchange, data)
            case OnFin.CUT:
                return self._download.cut(exchange)
            case OnFin.CLOSE:
                exchange.must_close = True
                session.end(exchange, "forwarded")
        return PERMIT_FIN


def _offered(exchange: Exchange, head: ResponseHead) -> bool:
    """Whether the 101 takes up what the request offered (RFC 9110 7.8)."""
    request = exchange.request
    if request is None or b"upgrade" not in request.tokens(b"connection"):
        return False
    offered = request.tokens(b"upgrade")
    taken = head.tokens(b"upgrade")
    return bool(taken) and all(token in offered for token in taken)


def _pass_head(raw: bytes, head: ResponseHead) -> Verdict:
    wire = writer.write_response(head)
    return Permit(len(raw)) if wire == raw else Replace(len(raw), wire)
