"""What came of a test, read from records and bytes: the verdict and everything that may be
expected. Two runs of one test whose cuts alone differ have equal outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from proxy.contract import How
from proxy.policytest.bench import Played
from proxy.policytest.given import Script
from proxy.policytest.messages import Seen, read_requests, read_response
from proxy.records import AnomalySeen, Decided, ExceptionApplied, ExchangeEnded

#: From the outcome of an exchange to the word of a test.
_VERDICTS = {
    "forwarded": "permit",
    "blocked": "block",
    "redirected": "redirect",
    "responded": "respond",
    "refused": "refuse",
}  # everything else, failed and aborted, is a fail
_ENDS = {How.RESET: "reset", How.DROP: "drop"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`rule`: the one that decided. Verdict and rule are those of the last exchange, request and
    response the first that arrived. Of HTTP not bytes are compared but messages, for how an
    edited body is divided may depend on the cut.
    """

    verdict: str
    ended: str  #: reset, drop, or empty
    rule: str | None
    rules: tuple[str, ...]
    shadow_rules: tuple[str, ...]
    edits: tuple[str, ...]
    tags: tuple[str, ...]
    anomalies: tuple[str, ...]
    exceptions: tuple[str, ...]  #: rows of the exception table that were used
    protocol: str
    redirected_to: str
    request: Seen | None
    response: Seen | None
    streams: tuple[bytes, bytes]  #: as they are; empty for HTTP
    to_server: bytes = field(compare=False)
    to_client: bytes = field(compare=False)
    detail: str = field(compare=False)

    @property
    def lawful(self) -> Outcome:
        """What the invariance law speaks of. How much of a message had passed when the flow was
        reset depends on the cut, as it does on the network: a reset throws away what is on its
        way (RFC 9293 3.10.7.4).
        """
        if not self.ended:
            return self
        return replace(self, request=_begun(self.request), response=_begun(self.response))

    @property
    def status(self) -> int | None:
        """What the client got."""
        return int(self.response.start[0]) if self.response is not None else None


def outcome_of(script: Script, played: Played) -> Outcome:
    """Read what a run left behind."""
    records = played.records
    exchanges = [record for record in records if isinstance(record, ExchangeEnded)]
    exchange = exchanges[-1] if exchanges else None
    to_server, to_client = played.streams
    method = script.method or (_method(exchanges[0]) if exchanges else "")
    requests = read_requests(to_server) if method else []
    decided = [record for record in records if isinstance(record, Decided)]
    return Outcome(
        verdict=_verdict(played, exchange, decided),
        ended=_ENDS.get(played.ended, "") if played.ended is not None else "",
        rule=_rule(played, exchange, decided),
        rules=_once(hit.rule for hit in decided if not hit.shadow),
        shadow_rules=_once(hit.rule for hit in decided if hit.shadow),
        edits=_once(
            edit for one in records if isinstance(one, ExchangeEnded) for edit in one.edits
        ),
        tags=_once(tag for tag in played.tags if tag not in script.tags),
        anomalies=_once(one.anomaly for one in records if isinstance(one, AnomalySeen)),
        exceptions=_once(_exception(one) for one in records if isinstance(one, ExceptionApplied)),
        protocol=played.protocol.value,
        redirected_to=played.redirected_to,
        request=requests[0] if requests else None,
        response=read_response(to_client, method, ended=True) if method else None,
        streams=(b"", b"") if method else played.streams,
        to_server=to_server,
        to_client=to_client,
        detail=exchange.detail if exchange is not None else "",
    )


def _method(exchange: ExchangeEnded) -> str:
    """For reading messages; a head that never came to its end may still have been answered."""
    return exchange.method.decode("latin-1") or "GET"


def _verdict(played: Played, exchange: ExchangeEnded | None, decided: list[Decided]) -> str:
    if played.refusal is not None:
        return "block"
    if exchange is not None and exchange.outcome != "aborted":
        return _VERDICTS.get(exchange.outcome, "fail")
    if _blocking(decided) is not None:
        return "block"
    if exchange is not None:
        return _VERDICTS.get(exchange.outcome, "fail")
    return "refuse" if played.ended in _ENDS else "permit"


def _rule(played: Played, exchange: ExchangeEnded | None, decided: list[Decided]) -> str | None:
    if played.refusal is not None:
        return played.refusal.rule
    if exchange is not None and exchange.rule is not None:
        return exchange.rule
    blocking = _blocking(decided)
    if blocking is not None:
        return blocking
    return next((hit.rule for hit in reversed(decided) if _settles(hit)), None)


def _blocking(decided: list[Decided]) -> str | None:
    """The rule that ended the connection, if one did."""
    return next((hit.rule for hit in decided if hit.verdict == "block" and not hit.shadow), None)


def _settles(hit: Decided) -> bool:
    return hit.verdict == "permit" and not hit.shadow


def _exception(record: ExceptionApplied) -> str:
    return f"{record.cause} ({record.action}): {record.detail}"


def _begun(message: Seen | None) -> Seen | None:
    """A message that did not come to its end, without what came of its body."""
    if message is None or not message.problem:
        return message
    return replace(message, body=b"", problem="it is not complete")


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
