"""The one protocol stage of a flow: holds the client's bytes until it is clear what they are.

It recognises (`detect`), then hands over, from the same offset, to the stage of that protocol,
or lets the flow pass under its connection rules, edited if they say so. While the client is
silent the server's bytes pass, so that protocols in which the server speaks first work; they
classify nothing.
"""

from __future__ import annotations

from proxy.callouts.context import CalloutContext
from proxy.callouts.detect import Detector
from proxy.callouts.http.stage import HttpStage
from proxy.callouts.opaque import Passing, closes, judge, judge_stream, shed
from proxy.callouts.stream_edit import Greeting, Lane, StreamEdit
from proxy.callouts.tls import TlsStage
from proxy.contract import (
    AllowConnection,
    Defer,
    Drain,
    DropConnection,
    How,
    NeedMoreData,
    Overload,
    Permit,
    Replace,
    Signal,
    StreamCallout,
    StreamData,
    TimerFired,
    UpstreamFailed,
    Verdict,
)
from proxy.limits import Cause
from proxy.model import Direction, Layer, Protocol
from proxy.records import AnomalySeen, Detected

DETECT_TIMER = "detect"
DRAIN_TIMER = "drain"
_STATUS = b"HTTP/"
_NOT_EDITED = (Protocol.HTTP1, Protocol.HTTP2, Protocol.TLS)  # rules of `stream` edit no bytes


class ProtocolStage:
    """One per flow, the first to see its bytes (contract.StreamCallout)."""

    def __init__(self, context: CalloutContext) -> None:
        self._context = context
        self._flow = context.flow
        self._limits = context.config.limits
        self._detector = Detector(self._limits.detect_bytes)
        self._inner: StreamCallout | None = None
        self._heard = False  # a byte of the client's is here
        self._greeting = Greeting(context)
        self._server_waits = False  # bytes of the server's are held
        self._server_finished = False
        self._failed: UpstreamFailed | None = None
        self._draining = False

    def classify(self, data: StreamData) -> Verdict:
        if self._inner is not None:
            return self._delegate(self._inner, data)
        return self._client(data) if data.direction is Direction.OUTBOUND else self._server(data)

    def signal(self, signal: Signal) -> bool:
        if self._inner is not None:
            if signal == TimerFired(DRAIN_TIMER):
                signal = Drain()
            return self._inner.signal(signal)
        match signal:
            case TimerFired(name) if name == DETECT_TIMER:
                self._too_slow()
            case UpstreamFailed():
                return self._upstream_failed(signal)
            case Drain():
                self._drain()
            case Overload():
                shed(self._context)
            case _:
                return False
        return True

    def closed(self, reason: str) -> None:
        if self._inner is not None:
            self._inner.closed(reason)

    # --- bytes, while undecided

    def _client(self, data: StreamData) -> Verdict:
        if not self._heard:
            self._heard = True
            self._flow.set_timer(DETECT_TIMER, self._limits.detect_seconds)
        detection = self._detector.feed(data.data, data.no_more_data or data.disconnect)
        if detection.protocol is not None:
            return self._recognised(detection.protocol, data)
        if detection.exhausted or data.buffer_limit_reached:
            return self._go_on(self._undecided("not recognised by its first bytes"), data)
        return NeedMoreData()

    def _server(self, data: StreamData) -> Verdict:
        """Let it speak first, but for what an HTTP client would take for an answer."""
        if data.disconnect:
            self._server_finished = True
            return self._greeting.classify(data)
        begin = bytes(data.data[: len(_STATUS)]).upper()
        if not self._greeting.spoke and _STATUS.startswith(begin):
            self._server_waits = True
            if begin == _STATUS:
                return Defer()
            if not data.no_more_data and not data.buffer_limit_reached:
                return NeedMoreData()
        self._server_waits = False
        return self._greeting.classify(data)

    # --- the decision

    def _recognised(self, protocol: Protocol, data: StreamData) -> Verdict:
        self._settle(protocol)
        if protocol in _NOT_EDITED:
            self._let_greeting_go()
        if protocol is Protocol.TLS:
            # It tells of itself and asks the connection rules once the server name is read.
            failed = self._failed is not None
            self._inner = TlsStage(self._context, upstream_failed=failed, told=self._greeting.told)
            return self._delegate(self._inner, data)
        self._flow.emit(Detected(protocol))
        if protocol not in _NOT_EDITED:
            return self._go_on(self._opaque(), data)
        dropped = judge(self._context, Layer.STREAM, told=self._greeting.told)
        if dropped is not None:
            return dropped
        if protocol is Protocol.HTTP1:
            return self._http(data)
        return DropConnection() if self._failed is not None else self._http2()

    def _settle(self, protocol: Protocol) -> None:
        self._flow.info.protocol = protocol
        self._flow.set_timer(DETECT_TIMER, None)
        if protocol is not Protocol.HTTP1:
            self._release_server()

    def _release_server(self) -> None:
        if self._server_waits:
            self._server_waits = False
            self._flow.proceed(Direction.INBOUND)

    def _opaque(self) -> StreamCallout | DropConnection:
        """The rules of `stream` alone decide: who takes over, or the end."""
        judged = judge_stream(self._context, self._greeting.told)
        if judged.dropped is not None:
            return judged.dropped
        if self._failed is not None:
            return DropConnection()
        outbound, inbound = Lane(Direction.OUTBOUND), self._greeting.lane
        for lane in (outbound, inbound):
            lane.add(judged.edits)
        edited = outbound.rules or inbound.rules
        return StreamEdit(outbound, inbound) if edited else Passing()

    def _go_on(self, inner: StreamCallout | DropConnection, data: StreamData) -> Verdict:
        if isinstance(inner, DropConnection):
            return inner
        self._inner = inner
        return self._delegate(inner, data)

    def _let_greeting_go(self) -> None:
        """What was held of it for an edit: this protocol's stage edits nothing."""
        rest = self._greeting.lane.finish()
        if rest:
            self._flow.inject(Direction.INBOUND, rest)

    def _http(self, data: StreamData) -> Verdict:
        if self._greeting.spoke:
            # The client may take what it has already read for the answer to this request.
            anomaly, detail = "http1.server_spoke_first", "bytes passed before the first request"
            self._flow.emit(AnomalySeen(anomaly, Direction.INBOUND, "refuse", detail))
            return DropConnection()
        if self._server_finished:
            return DropConnection()  # nobody is left to answer, nor a way to the client
        self._inner = HttpStage(self._context, upstream_failed=self._failed)
        if self._draining:
            self._flow.set_timer(DRAIN_TIMER, 0.0)
        return self._delegate(self._inner, data)

    def _delegate(self, inner: StreamCallout, data: StreamData) -> Verdict:
        verdict = inner.classify(data)
        sent_on = isinstance(verdict, Permit | Replace)
        if self._server_waits and sent_on and data.direction is Direction.OUTBOUND:
            self._release_server()  # only now is there a request that it can be the answer to
        return verdict

    def _http2(self) -> Verdict:
        """Recognised but uninspectable: it would carry requests past the HTTP rules."""
        if Protocol.HTTP1 not in self._context.policies().protocols:
            return AllowConnection()
        closed = closes(self._context, Cause.UNINSPECTABLE, "HTTP/2 with prior knowledge")
        return DropConnection() if closed else AllowConnection()

    def _undecided(self, detail: str) -> StreamCallout | DropConnection:
        self._settle(Protocol.UNKNOWN)
        self._flow.emit(Detected(Protocol.UNKNOWN))
        if closes(self._context, Cause.UNDECIDED, detail):
            return DropConnection()
        return self._opaque()

    # --- signals, while undecided

    def _too_slow(self) -> None:
        """Time is up, counted from the client's first byte, or from the failed dial."""
        if not self._heard:
            self._flow.drop(How.RESET)
            return
        inner = self._undecided("not recognised in time")
        if isinstance(inner, DropConnection):
            self._flow.drop(inner.how)
        else:
            self._inner = inner
            self._flow.proceed(Direction.OUTBOUND)

    def _upstream_failed(self, failed: UpstreamFailed) -> bool:
        """An HTTP client will get an answer, so wait for what this one is."""
        if self._greeting.spoke or self._server_finished:
            return False
        self._failed = failed
        if not self._heard:
            self._flow.set_timer(DETECT_TIMER, self._limits.detect_seconds)
        return True

    def _drain(self) -> None:
        if self._heard:
            self._draining = True
        else:
            self._flow.drop(How.CLOSE)
