"""One exchange that somebody asks about, taken through the layers as a flow meets them.

The order is that of `flow.run`, `callouts.protocol` and `callouts.http`: the connection, what
it was recognised as, the messages, the end. A block ends it; a redirect or an answer of ours
ends the exchange.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxy.heads import RequestHead, ResponseHead
from proxy.model import Direction, FlowInfo, Layer, Protocol
from proxy.policy.explain import Explainer, LayerTrace
from proxy.policy.facts import Facts
from proxy.policy.match_body import BODY_FIELDS
from proxy.policy.ruling import RuleVerdict, Ruling

_CONNECTION = (Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT, Layer.FLOW_ESTABLISHED)
#: What the rules about a response cannot know while there is none.
OF_RESPONSE = frozenset(
    {
        "status",
        "header",
        "response.header",
        "content_type",
        "content_type.sniffed",
        "content_length",
    }
)


#: Known where a rule says where the connection goes instead.
_OF_DESTINATION = frozenset({"dst.ip", "ip_version"})


@dataclass(frozen=True, slots=True)
class Case:
    """What is given. Bodies are content without any coding; None: nothing is known of them.

    `unknown` names fields that the service would know and nobody told, as in Facts;
    `unknown_of_response` is the same at the layers of the response, where `header` is another
    message's. What is unknown to the service too (a principal) is not named.
    """

    flow: FlowInfo
    wall: float
    request: RequestHead | None = None
    response: ResponseHead | None = None
    request_body: bytes | None = None
    response_body: bytes | None = None
    sniffed: str | None = None
    reauthorize: bool = False
    unknown: frozenset[str] = frozenset()
    unknown_of_response: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """A layer with rules. `trace` is None where they are not asked, and `why` says why.

    With a trace, `why` says what was not given.
    """

    layer: Layer
    trace: LayerTrace | None
    why: str = ""

    @property
    def ruling(self) -> Ruling | None:
        return self.trace.ruling if self.trace is not None else None


def explain_case(explainer: Explainer, case: Case) -> tuple[Step, ...]:
    """Every layer that has rules, in order. `case.flow` collects the tags that rules put."""
    return tuple(_Journey(explainer, case).steps())


class _Journey:
    def __init__(self, explainer: Explainer, case: Case) -> None:
        self._explainer = explainer
        self._case = case
        self._over = ""  #: why nothing more is asked of the flow
        self._answered = ""  #: why nothing more is asked of the exchange

    def steps(self) -> Iterator[Step]:
        case, facts = self._case, self._facts(None)
        for layer in (*_CONNECTION, Layer.STREAM):
            yield from self._ask(layer, facts, case.unknown)
        match case.flow.protocol:
            case Protocol.TLS:
                yield from self._ask(Layer.TLS_CLIENT_HELLO, facts, case.unknown)
            case Protocol.HTTP1 if case.request is not None:
                yield from self._messages()
        self._over = self._answered = ""  # the end is always told
        yield from self._ask(Layer.ENDPOINT_CLOSURE, facts, case.unknown)

    def _messages(self) -> Iterator[Step]:
        case, request = self._case, self._facts(Direction.OUTBOUND)
        yield from self._ask(Layer.HTTP_REQUEST, request, case.unknown)
        yield from self._body(Layer.HTTP_REQUEST_BODY, request, case.request_body, case.unknown)
        response = replace(
            self._facts(Direction.INBOUND), response=case.response, sniffed=case.sniffed
        )
        left_open, why = case.unknown_of_response, ""
        if case.response is None:
            left_open, why = left_open | OF_RESPONSE, "no response is given"
        elif case.response_body is None:
            left_open |= {"content_type.sniffed"}
        yield from self._ask(Layer.HTTP_RESPONSE, response, left_open, why)
        yield from self._body(Layer.HTTP_RESPONSE_BODY, response, case.response_body, left_open)

    def _facts(self, direction: Direction | None) -> Facts:
        request = self._case.request if direction is not None else None
        case = self._case
        return Facts(
            case.flow, case.wall, request, direction=direction, reauthorize=case.reauthorize
        )

    # --- one layer

    def _ask(
        self,
        layer: Layer,
        facts: Facts,
        left_open: frozenset[str],
        why: str = "",
        body: bytes | None = None,
    ) -> Iterator[Step]:
        if not self._explainer.generation.wants(layer):
            return
        if self._over or self._answered:
            yield Step(layer, None, self._over or self._answered)
            return
        if facts.flow.redirect.redirect_to is not None:
            left_open -= _OF_DESTINATION
        trace = self._explainer.explain(layer, facts, left_open, body)
        yield Step(layer, trace, why)
        self._heed(layer, trace.ruling)

    def _body(
        self, layer: Layer, facts: Facts, body: bytes | None, left_open: frozenset[str]
    ) -> Iterator[Step]:
        if body is None:
            left_open, why = left_open | BODY_FIELDS, "no body is given"
        else:
            why = ""
        yield from self._ask(layer, facts, left_open, why, body)

    # --- what a ruling means for the layers behind

    def _heed(self, layer: Layer, ruling: Ruling) -> None:
        flow = self._case.flow
        flow.add_tags(ruling.tags)
        if ruling.redirect is not None:
            there = ruling.redirect.instead_of(flow.redirect.original_dst)
            flow.redirect = replace(flow.redirect, redirect_to=there, loopback=None)
        told = f"{ruling.rule} at {layer.value}"
        match ruling.verdict:
            case RuleVerdict.BLOCK if layer in (*_CONNECTION, Layer.STREAM):
                self._over = f"{told} blocks the connection"
            case RuleVerdict.BLOCK:
                self._answered = f"{told} blocks the message"
            case RuleVerdict.REDIRECT:
                self._answered = f"{told} answers with a redirect"
            case RuleVerdict.RESPOND:
                self._answered = f"{told} answers in the server's place"
