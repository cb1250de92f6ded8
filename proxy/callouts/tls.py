"""TLS: the ClientHello is read for the server name and ALPN, judged, and sent on as it came.

Nothing is decrypted and nothing is changed. The hello is held until it is complete; it may be
spread over any number of records and segments.
"""

from __future__ import annotations

from proxy.callouts.client_hello import BadHello, ClientHello, HelloReader, TooLarge
from proxy.callouts.context import CalloutContext
from proxy.callouts.opaque import Passing, closes, judge, shed
from proxy.contract import (
    PERMIT_FIN,
    AllowConnection,
    Drain,
    DropConnection,
    How,
    NeedMoreData,
    Overload,
    Permit,
    Signal,
    StreamData,
    TimerFired,
    UpstreamFailed,
    Verdict,
)
from proxy.limits import Cause
from proxy.model import Direction, Layer, Protocol
from proxy.records import AnomalySeen, Detected

HELLO_TIMER = "hello"
_UNREAD = frozenset({"sni", "alpn"})


class TlsStage:
    """One per flow, from its first byte that is TLS (contract.StreamCallout).

    With `upstream_failed` the hello is read for the record, and the flow is reset. `told`:
    rules of `stream` whose hits are in the records already.
    """

    def __init__(
        self,
        context: CalloutContext,
        *,
        upstream_failed: bool = False,
        told: frozenset[str] = frozenset(),
    ) -> None:
        self._context = context
        self._flow = context.flow
        self._reader = HelloReader(context.config.limits.client_hello_bytes)
        self._upstream_failed = upstream_failed
        self._told = told
        self._detected = False
        self._passing: Passing | None = None
        self._flow.set_timer(HELLO_TIMER, context.config.limits.detect_seconds)

    def classify(self, data: StreamData) -> Verdict:
        if self._passing is not None:
            return self._passing.classify(data)
        if data.direction is Direction.INBOUND:
            # Bytes of the server classify nothing; an alert may come before our hello is whole.
            return PERMIT_FIN if data.disconnect else Permit(len(data.data))
        outcome = self._reader.feed(data.data)
        if outcome is None and data.no_more_data:
            outcome = BadHello("the stream ends inside the ClientHello")
        if outcome is None and data.buffer_limit_reached:
            outcome = TooLarge("the buffer limit was reached inside the ClientHello")
        return NeedMoreData() if outcome is None else self._conclude(outcome)

    def signal(self, signal: Signal) -> bool:
        if self._passing is not None:
            return self._passing.signal(signal)
        match signal:
            case TimerFired(name) if name == HELLO_TIMER:
                self._too_slow()
            case UpstreamFailed():
                self._upstream_failed = True
            case Drain():
                self._flow.drop(How.CLOSE)
            case Overload():
                shed(self._context)
            case _:
                return False
        return True

    def closed(self, reason: str) -> None:
        self._detect()

    def _conclude(self, outcome: ClientHello | BadHello | TooLarge) -> Verdict:
        """The hello is read, or never will be."""
        self._flow.set_timer(HELLO_TIMER, None)
        match outcome:
            case ClientHello():
                self._flow.info.sni, self._flow.info.alpn = outcome.server_name, outcome.alpn
                return self._judge(frozenset())
            case BadHello():
                anomaly, cause = "tls.bad_client_hello", Cause.PARSE_ERROR
            case TooLarge():
                anomaly, cause = "tls.client_hello_too_large", Cause.BUFFER_LIMIT
        self._detect()
        refused = closes(self._context, cause, outcome.reason)
        self._flow.emit(
            AnomalySeen(
                anomaly, Direction.OUTBOUND, "refuse" if refused else "open", outcome.reason
            )
        )
        return DropConnection() if refused else self._judge(_UNREAD)

    def _judge(self, unknown: frozenset[str]) -> Verdict:
        """Connection rules, then rules of this layer; both may look at the server name."""
        self._detect()
        for layer, told in ((Layer.STREAM, self._told), (Layer.TLS_CLIENT_HELLO, frozenset())):
            dropped = judge(self._context, layer, unknown, told)
            if dropped is not None:
                return dropped
        return DropConnection() if self._upstream_failed else AllowConnection()

    def _too_slow(self) -> None:
        """A hello that does not end would hold the flow for ever."""
        self._detect()
        detail = "ClientHello not complete in time"
        verdict = (
            DropConnection()
            if closes(self._context, Cause.UNDECIDED, detail)
            else self._judge(_UNREAD)
        )
        if isinstance(verdict, DropConnection):
            self._flow.drop(verdict.how)
        else:
            self._passing = Passing()
            self._flow.proceed(Direction.OUTBOUND)

    def _detect(self) -> None:
        """Tell the accounts, once, with whatever is known by then."""
        if not self._detected:
            self._detected = True
            info = self._flow.info
            self._flow.emit(Detected(Protocol.TLS, info.sni, info.alpn))
