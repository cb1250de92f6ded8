"""HTTP/1.1 as one stage of the waterfall: bytes in, verdicts out, one exchange at a time.

The stage owns no logic of its own: it hands each direction to its side (`request`,
`response`), which share a `session`, and turns signals into what they mean for HTTP: 408 for
a slow head, 502 to 504 for a failed upstream, an orderly end on drain.
"""

from __future__ import annotations

from proxy.callouts.context import CalloutContext
from proxy.callouts.http.exchange import Answered
from proxy.callouts.http.request import HEAD_TIMER, RequestSide
from proxy.callouts.http.response import SNIFF_TIMER, ResponseSide
from proxy.callouts.http.session import Session
from proxy.contract import (
    Answer,
    DialFailure,
    Drain,
    Overload,
    Signal,
    StreamData,
    TimerFired,
    UpstreamConnected,
    UpstreamFailed,
    Verdict,
)
from proxy.model import Direction

KEEPALIVE_TIMER = "keepalive"


class HttpStage:
    """One per flow, from the first byte of its first request (contract.StreamCallout)."""

    def __init__(
        self, context: CalloutContext, *, upstream_failed: UpstreamFailed | None = None
    ) -> None:
        self._session = Session(context, upstream_failed)
        self._request = RequestSide(self._session)
        self._response = ResponseSide(self._session)
        self._session.flow.set_timer(KEEPALIVE_TIMER, self._session.limits.keepalive_seconds)

    def classify(self, data: StreamData) -> Verdict:
        side = self._request if data.direction is Direction.OUTBOUND else self._response
        return side.classify(data)

    def signal(self, signal: Signal) -> bool:
        if self._session.tunnel:
            return False
        match signal:
            case TimerFired(name):
                self._timer(name)
            case UpstreamConnected():
                return self._request.dialled()
            case UpstreamFailed():
                return self._upstream_failed(signal)
            case Answer():
                return self._session.panel.note(signal)
            case Drain():
                self._drain()
            case Overload():
                self._session.overloaded = True
            case _:
                return False
        return True

    def closed(self, reason: str) -> None:
        exchange = self._session.exchange
        if exchange is not None:
            self._session.exchange = None
            exchange.detail = exchange.detail or reason
            self._session.flow.emit(exchange.record(self._session.flow.now))

    # --- signals

    def _timer(self, name: str) -> None:
        if self._session.closing:
            return
        if name == HEAD_TIMER:
            self._slow_head()
        elif name == SNIFF_TIMER:
            self._response.stop_sniffing()
        elif name == KEEPALIVE_TIMER:
            self._keepalive()
        else:
            _ = self._request.timer_fired(name) or self._response.timer_fired(name)

    def _slow_head(self) -> None:
        """RFC 9110 15.5.9, measured from the head's first byte."""
        session = self._session
        self._request.forget_timer()
        exchange = session.begin(None, session.policies())
        exchange.detail = "request head not complete in time"
        reason = "The request did not arrive in time."
        session.answer(exchange, 408, reason, "failed", close=True)

    def _keepalive(self) -> None:
        """Close what has been idle long enough; one timer a connection, set again when early."""
        session = self._session
        left = session.idle_since + session.limits.keepalive_seconds - session.flow.now
        idle = session.exchange is None and not self._request.busy
        if idle and left <= 0:
            session.close()
        else:
            delay = left if left > 0 else session.limits.keepalive_seconds
            session.flow.set_timer(KEEPALIVE_TIMER, delay)

    def _upstream_failed(self, signal: UpstreamFailed) -> bool:
        session = self._session
        exchange = session.exchange
        if session.dialling is not None:
            session.failed = signal
            return self._request.dialled()
        if exchange is None:
            return self._failed_idle(signal)
        if exchange.answered is Answered.NOT:
            self._request.fail(exchange, signal.failure, signal.detail)
            return True
        if exchange.answered is Answered.WHOLE:
            exchange.must_close = True
            session.end(exchange, "forwarded")
            return True
        return False  # the client must see that the body is cut

    def _failed_idle(self, signal: UpstreamFailed) -> bool:
        """No request in work: before the first one it will be told; later the flow ends."""
        session = self._session
        if session.closing:
            return True
        if session.count == 0 or self._request.busy:
            session.failed = signal
            return True
        if signal.failure is DialFailure.TIMEOUT:
            session.close()
            return True
        return False

    def _drain(self) -> None:
        session = self._session
        session.draining = True
        if session.exchange is None:
            session.close()
