"""What a test gives, as values: the connection, and the turns of its conversation in bytes."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from proxy.model import (
    Confidence,
    Direction,
    Endpoint,
    Principal,
    RedirectInfo,
)
from proxy.policy.cases import CaseModel
from proxy.policy.cases_given import (
    ConnectionModel,
    GivenModel,
    Octets,
    PrincipalModel,
    RequestModel,
    ResponseModel,
    TlsModel,
    TurnModel,
)
from proxy.policytest.messages import request_bytes, response_bytes

#: Where names lead in a test (TEST-NET-1, RFC 5737).
_SOMEWHERE = "192.0.2.1"
ReadFile = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Say:
    """One side sends this."""

    direction: Direction
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer, sent once a whole request is there; `last`: then it closes."""

    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


Turn = Say | Reply | Wait


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that is given. `method` is None where it is not one HTTP exchange."""

    redirect: RedirectInfo
    tags: tuple[str, ...]
    wall: float  #: seconds since the epoch
    turns: tuple[Turn, ...]
    method: str | None

    @property
    def size(self) -> int:
        """Bytes of all turns."""
        return sum(len(turn.data) for turn in self.turns if not isinstance(turn, Wait))


def script_of(case: CaseModel, read_file: ReadFile) -> Script:
    """The script of a test. Raises OSError when one of its files cannot be read."""
    given = case.given
    request = given.request
    if request is None and given.response is not None:
        request = RequestModel()
    return Script(
        redirect=_redirect(given.connection, _default_destination(request, given.tls)),
        tags=tuple(given.connection.tags),
        wall=datetime.fromisoformat(given.at).timestamp(),
        turns=_turns(given, request, read_file),
        method=request.method if request is not None else None,
    )


def octets(source: Octets | None, read_file: ReadFile) -> bytes:
    """The bytes that are meant. Raises OSError."""
    if source is None:
        return b""
    return _once(source, read_file) * source.repeat


def _once(source: Octets, read_file: ReadFile) -> bytes:
    if source.text is not None:
        return source.text.encode("utf-8")
    if source.base64 is not None:
        return base64.b64decode("".join(source.base64.split()))
    return read_file(source.file or "")


def _turns(
    given: GivenModel, request: RequestModel | None, read_file: ReadFile
) -> tuple[Turn, ...]:
    if request is not None:
        response = given.response or ResponseModel()
        asked = request_bytes(request, octets(request.body, read_file))
        answer = response_bytes(response, octets(response.body, read_file), request.method)
        last = response.framing == "close" or response.version == "1.0"
        return Say(Direction.OUTBOUND, asked), Reply(answer, last)
    if given.tls is not None:
        return (Say(Direction.OUTBOUND, _client_hello(given.tls)),)
    return tuple(_turn(turn, read_file) for turn in given.stream or ())


def _turn(turn: TurnModel, read_file: ReadFile) -> Turn:
    if turn.client is not None:
        return Say(Direction.OUTBOUND, octets(turn.client, read_file))
    if turn.server is not None:
        return Say(Direction.INBOUND, octets(turn.server, read_file))
    return Wait(turn.wait or 0.0)


def _client_hello(model: TlsModel) -> bytes:
    """A real one, by the platform's TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if model.alpn:
        context.set_alpn_protocols(model.alpn)
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=model.sni)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()  # the hello is written, and now it would wait for the server's
    raise RuntimeError("a TLS handshake ended without a server")


# --- the connection ------------------------------------------------------------------------


def _default_destination(request: RequestModel | None, tls: TlsModel | None) -> Endpoint:
    """An address wherever the request's own is not one: a name alone would be dst.host."""
    if request is None:
        return Endpoint(_SOMEWHERE, 443 if tls is not None else 80)
    authority = request.url.removeprefix("http://").partition("/")[0].partition("?")[0]
    _, colon, port = authority.rpartition(":")
    has_port = bool(colon) and port.isdigit()
    try:
        there = Endpoint.parse(authority if has_port else f"{authority}:80")
    except ValueError:
        return Endpoint(_SOMEWHERE, 80)
    return there if there.ip is not None else Endpoint(_SOMEWHERE, there.port)


def _redirect(model: ConnectionModel, default: Endpoint) -> RedirectInfo:
    there = Endpoint.parse(model.dst) if model.dst is not None else default
    name = None if there.ip is not None else there.host
    return RedirectInfo(
        provider=model.provider,
        original_dst=there if name is None else Endpoint(_SOMEWHERE, there.port),
        client=Endpoint.parse(model.client),
        dst_name=name,
        principal=_principal(model.principal),
        loopback=is_loopback(there) if model.loopback is None else model.loopback,
    )


def is_loopback(there: Endpoint) -> bool:
    """By the address alone: a test has no machine with addresses of its own."""
    return there.ip is not None and there.ip.is_loopback


def _principal(who: PrincipalModel) -> Principal:
    known = who.model_dump(exclude_none=True)
    confidence = known.pop("confidence", Confidence.EXACT if known else Confidence.NONE)
    return Principal(**known, confidence=Confidence(confidence))
