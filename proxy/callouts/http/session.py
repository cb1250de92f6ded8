"""What both directions of an HTTP connection share: the exchange in work, policy, answers.

Every ending goes through here: an exchange's record is written once (`end`), our own answers
are written with what they mean for the connection (`answer`), and a connection is closed by
FIN on both sides, never by silence (`close`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from proxy.anomalies import ANOMALIES
from proxy.callouts.context import CalloutContext
from proxy.callouts.http import pages
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.exchange import Answered, Exchange
from proxy.callouts.http.framing import keeps_open
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.panel import Panel
from proxy.callouts.http.parse import H, Parsed
from proxy.contract import AllowConnection, Block, DropConnection, How, UpstreamFailed, Verdict
from proxy.heads import RequestHead
from proxy.limits import Cause, OnException
from proxy.model import Direction, Layer
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.ruling import Policy, Ruling
from proxy.policy.templates import expand_redirect
from proxy.records import AnomalySeen, ExceptionApplied

OUT, IN = Direction.OUTBOUND, Direction.INBOUND


class Session:
    """One per HTTP stage. `exchange` is None between exchanges."""

    def __init__(self, context: CalloutContext, failed: UpstreamFailed | None) -> None:
        self.flow = context.flow
        self.limits = context.config.limits
        self.exceptions = context.config.exceptions
        self.proxy_id = context.config.proxy_id
        self.wall = context.wall
        self.policies = context.policies
        self.panel = Panel(context.flow, context.http, self.exceptions)
        self.failed = failed  #: there is no upstream: requests are judged, then told
        self.exchange: Exchange | None = None
        self.count = 0
        self.idle_since = context.flow.now
        self.tunnel = False  #: nothing is HTTP any more
        self.closing = False  #: both directions were finished by us
        self.client_fin = False
        self.dialling: bytes | None = None  #: authority whose upstream is being dialled
        self.draining = False
        self.overloaded = False
        self.deferred = [False, False]  #: directions that wait for `resume`
        self.asking = False  #: callouts are asked about the request: the server has to wait
        self.resuming = False  #: a waiting request is about to be shown again

    # --- exchanges

    def begin(self, head: RequestHead | None, policy: Policy) -> Exchange:
        self.count += 1
        self.exchange = Exchange(self.count, policy, self.flow.now, head)
        return self.exchange

    def end(self, exchange: Exchange, outcome: str | None = None) -> None:
        """Write the record and be idle. With nobody left to talk to, close."""
        if outcome is not None:
            exchange.outcome = outcome
        self.flow.emit(exchange.record(self.flow.now))
        self.exchange = None
        self.idle_since = self.flow.now
        if exchange.must_close or self.client_fin or self.draining:
            self.close()
        else:
            self.resume(OUT)

    def finish_if_over(self, exchange: Exchange) -> None:
        """Close the books when request and response are both through.

        A complete response that ends the connection ends the upload too (RFC 9112 9.6).
        """
        whole = exchange.answered is Answered.WHOLE
        if exchange.over or (whole and exchange.must_close):
            self.end(exchange, "forwarded")

    def close(self) -> None:
        """FIN to both sides; what still comes is discarded."""
        if not self.closing:
            self.closing = True
            self.flow.finish(IN)
            self.flow.finish(OUT)

    def hold(self, direction: Direction) -> None:
        self.deferred[direction] = True

    def resume(self, direction: Direction) -> None:
        """Let a deferred direction be shown again."""
        if self.deferred[direction]:
            self.deferred[direction] = False
            self.resuming = self.resuming or direction is OUT
            self.flow.proceed(direction)

    # --- policy

    def rule(self, exchange: Exchange, facts: Facts, layer: Layer) -> Ruling | None:
        """Ask policy, report every hit. None: no rule looks at that layer."""
        policy = exchange.policy
        if not policy.wants(layer):
            return None
        ruling = policy.decide(layer, facts)
        self.report(exchange, ruling)
        return ruling

    def report(self, exchange: Exchange, ruling: Ruling) -> None:
        """Take note of what a ruling did, every hit."""
        for hit in ruling.hits:
            self.flow.emit(replace(hit, exchange=exchange.number))
        exchange.note(ruling)
        self.flow.info.add_tags(ruling.tags)

    def repairs(self, finding: Finding, direction: Direction, *, possible: bool = True) -> bool:
        """Whether policy has this anomaly repaired; reports it either way."""
        exchange = self.exchange
        repair = possible and self._would_repair(finding)
        action = "repair" if repair else "refuse"
        if not repair and self.exceptions.parse_error is OnException.OPEN:
            action = "open"
        number = exchange.number if exchange is not None else None
        self.flow.emit(AnomalySeen(finding.id, direction, action, finding.detail, number))
        return repair

    def chunk_scanner(self, direction: Direction) -> ChunkScanner:
        """A scanner for one body; it reports an id that is repaired once, not per chunk."""
        seen: set[str] = set()

        def repairs(finding: Finding) -> bool:
            if not self._would_repair(finding):
                return False
            if finding.id not in seen:
                seen.add(finding.id)
                self.repairs(finding, direction)
            return True

        return ChunkScanner(self.limits.chunk_line_bytes, self.limits.trailer_bytes, repairs)

    def _would_repair(self, finding: Finding) -> bool:
        exchange = self.exchange
        policy = exchange.policy if exchange is not None else self.policies()
        repairable = ANOMALIES[finding.id].repairable
        return repairable and policy.anomaly_action(finding.id) == "repair"

    def first_refused(self, parsed: Parsed[H], direction: Direction) -> Finding | None:
        """The first anomaly that is not to be repaired; those before it are reported.

        Without a canonical reading (`parsed.head` is None) nothing can be repaired.
        """
        possible = parsed.head is not None
        for finding in parsed.findings:
            if not self.repairs(finding, direction, possible=possible):
                return finding
        return None

    def refuse(self, finding: Finding, direction: Direction, n: int) -> Verdict:
        """What an anomaly that is not repaired comes to; it has been reported already.

        `n`: leading bytes of `direction` that it makes void.
        """
        action = self.exceptions.parse_error
        self.flow.emit(ExceptionApplied(Cause.PARSE_ERROR, action, "http", finding.id))
        if action is OnException.OPEN:
            return self.go_raw(finding.id)
        return self.deny(finding, direction, n)

    def deny(self, finding: Finding, direction: Direction, n: int) -> Verdict:
        """Refuse for an anomaly; that the exception table says so has been reported."""
        exchange = self.exchange
        if exchange is None:
            self.close()
            return Block(n)
        exchange.detail = finding.id
        if exchange.answered is not Answered.NOT:
            exchange.outcome = "refused"
            return DropConnection(How.RESET)
        anomaly = ANOMALIES[finding.id]
        status = anomaly.status(direction)
        self.answer(exchange, status, f"{anomaly.doc} [{finding.id}]", "refused", close=True)
        return Block(n)

    def go_raw(self, detail: str = "") -> Verdict:
        """From here on the flow is not HTTP to us: both directions pass unseen."""
        self.tunnel = self.flow.info.tunnel = True
        if self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.detail = exchange.detail or detail
            exchange.outcome = "forwarded"
            self.flow.emit(exchange.record(self.flow.now))
        for direction in (OUT, IN):
            self.resume(direction)
        return AllowConnection()

    # --- our own answers

    def answer(
        self,
        exchange: Exchange,
        status: int,
        reason: str,
        outcome: str,
        *,
        close: bool,
        template: str | None = None,
        location: bytes = b"",
    ) -> None:
        """Write a page in place of the response and end the exchange."""
        request = exchange.request
        close = close or self.draining or request is None or not keeps_open(request)
        values = {
            "reason": reason or pages.phrase(status),
            "rule": exchange.rule or "-",
            "host": (request.host if request is not None else "") or "-",
            "flow": self.flow.info.id,
            "proxy": self.proxy_id,
        }
        body = pages.render(template, status, values)
        head_only = exchange.method == b"HEAD"
        page = pages.answer(status, body, close=close, without_body=head_only, location=location)
        self._sent(exchange, status, page, outcome, close)

    def own_answer(
        self,
        exchange: Exchange,
        status: int,
        fields: Iterable[tuple[str, str]],
        body: bytes,
        outcome: str,
        *,
        close: bool,
    ) -> None:
        """Write a response that is not a page, and end the exchange."""
        request = exchange.request
        close = close or self.draining or request is None or not keeps_open(request)
        head_only = exchange.method == b"HEAD"
        answer = pages.message(status, fields, body, close=close, without_body=head_only)
        self._sent(exchange, status, answer, outcome, close)

    def _sent(
        self, exchange: Exchange, status: int, answer: bytes, outcome: str, close: bool
    ) -> None:
        self.flow.inject(IN, answer)
        exchange.status = status
        exchange.must_close = exchange.must_close or close
        self.end(exchange, outcome)

    def block(self, exchange: Exchange, block: ast.Block, n: int, *, close: bool) -> Verdict:
        """A rule's refusal, in the way it asks for."""
        if block.how != "page" or exchange.answered is not Answered.NOT:
            exchange.outcome = "blocked"
            return DropConnection(How.DROP if block.how == "drop" else How.RESET)
        self.answer(
            exchange, block.status, block.reason, "blocked", close=close, template=block.page
        )
        return Block(n)

    def redirect(
        self, exchange: Exchange, redirect: ast.Redirect, n: int, *, close: bool
    ) -> Verdict:
        assert exchange.request is not None
        where = expand_redirect(redirect.to, exchange.request)
        text = f"See {where.decode('ascii')}"
        self.answer(exchange, redirect.status, text, "redirected", close=close, location=where)
        return Block(n)
