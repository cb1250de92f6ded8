"""The same checks for HTTP callouts, in the real HTTP stage: heads, whole bodies, pieces.

    def test_my_callout() -> None:
        check_http_callout(MyCallout, interest=Interest.REQUEST | Interest.RESPONSE_BODY)

The law for HTTP: heads, records and decoded contents do not depend on the cut. Where a body is
framed anew its chunk boundaries (and the flush points of its coding) follow the reads; so does
how much had gone on of a body that is then found undecodable, or blocked for its content
(`proxy.callouts.http.filtered`).
"""

from __future__ import annotations

import contextlib
import gzip
import inspect
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.api import Interest
from proxy.callouts.registration import HttpRegistration
from proxy.content.codings import CodingLimits, Decoder, codings_of
from proxy.contract import Kind, Mode
from proxy.limits import Cause
from proxy.model import FlowInfo, Layer
from proxy.policy.ruling import Policy
from proxy.records import Decided, ExceptionApplied, ExchangeEnded, Record
from proxy.testing.bench import Bench
from proxy.testing.drive import Law, Outcome
from proxy.testing.fuzz import hostile_traces
from proxy.testing.streams import NAME, OWN_FAULTS, Report, check_trace
from proxy.testing.trace import Item, Trace, conversation

_BODY_LAYERS = (Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY)
_CODING = re.compile(rb"\r\ncontent-encoding: ([^\r]*)")
_METHODS = ("request", "response", "body", "data")


def check_http_callout(
    make: Callable[..., Any],
    traces: Sequence[Trace] = (),
    *,
    interest: Interest,
    options: Mapping[str, Any] | None = None,
    kind: Kind = Kind.TERMINATING,
    body_bytes: int = 64 * 1024,
    policy: Policy | None = None,
    cuts: int = 12,
    fuzz: int = 40,
    seed: int = 0,
) -> Report:
    """Put an HTTP callout through everything; `make(flow, options)` as in the settings.

    Your traces and `sample_exchanges` run whole, byte by byte and in `cuts` random ways, then
    `fuzz` hostile ones. Raises AssertionError as `check_stream_callout` does. A body that is
    too long for `body_bytes`, or cannot be decoded, is not the callout's fault.
    """
    report, rng = Report(), random.Random(seed)
    registered = register_http(
        make, interest=interest, options=options, kind=kind, body_bytes=body_bytes, report=report
    )
    bench = Bench(policy=policy, http=[registered])
    decent = [*traces, *sample_exchanges()]
    for trace in decent:
        check_trace(bench, trace, rng, cuts, report, HttpLaw(), OWN_FAULTS)
    for trace in hostile_traces(decent, rng, fuzz):
        check_trace(bench, trace, rng, 2, report, HttpLaw(), OWN_FAULTS)
    return report


def register_http(
    make: Callable[..., Any],
    *,
    interest: Interest,
    options: Mapping[str, Any] | None = None,
    kind: Kind = Kind.TERMINATING,
    body_bytes: int = 64 * 1024,
    report: Report | None = None,
) -> HttpRegistration:
    """An HTTP callout's factory, registered as the settings would: for a Bench.

    A coroutine method makes it out of band.
    """
    given, seen = dict(options or {}), report or Report()

    def watched(flow: FlowInfo) -> Any:
        return _Watched(make(flow, given), seen)

    waits = any(inspect.iscoroutinefunction(getattr(make, name, None)) for name in _METHODS)
    if not inspect.isclass(make):  # a function: ask what it makes
        made = watched(Bench().flow())
        waits = any(inspect.iscoroutinefunction(getattr(made.callout, m, None)) for m in _METHODS)
    seen.waits = waits
    mode = Mode.OUT_OF_BAND if waits else Mode.INLINE
    return HttpRegistration(NAME, 0, kind, mode, interest, watched, body_bytes=body_bytes)


class _Watched:
    """A callout with a stop-watch around it."""

    def __init__(self, callout: Any, report: Report) -> None:
        self.callout = callout
        self._report = report

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.callout, name)

        def call(*arguments: Any) -> Any:
            with _watch(self._report, arguments):
                return method(*arguments)

        async def wait(*arguments: Any) -> Any:
            with _watch(self._report, arguments):
                answer: Awaitable[Any] = method(*arguments)
                return await answer

        return wait if inspect.iscoroutinefunction(method) else call


@contextlib.contextmanager
def _watch(report: Report, arguments: tuple[Any, ...]) -> Iterator[None]:
    report.calls += 1
    sizes = [len(one) for one in arguments if isinstance(one, bytes)]
    report.most_held = max(report.most_held, *sizes, 0)
    started = time.perf_counter()
    try:
        yield
    finally:
        report.slowest_seconds = max(report.slowest_seconds, time.perf_counter() - started)


# --- exchanges to try


def sample_exchanges() -> list[list[Item]]:
    """Conversations in every framing, with and without bodies and codings; keep-alive."""
    json = b'{"user": "ada", "password": "secret", "list": [1, 2, {"password": 3}]}'
    zipped = gzip.compress(json, mtime=0)
    return [
        conversation(("C", request(b"GET")), ("S", response(json))),
        conversation(
            ("C", request(b"POST", json)),
            ("S", response(json, chunked=True)),
            ("C", request(b"GET")),
            ("S", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ),
        conversation(
            ("C", request(b"PUT", json, chunked=True)),
            ("S", response(zipped, b"Content-Encoding: gzip\r\n")),
        ),
        conversation(("C", request(b"HEAD")), ("S", response(json)[: -len(json)])),
        [
            *conversation(("C", request(b"GET")), ("S", response(json, until_close=True)))[:2],
            conversation()[1],
            conversation()[0],
        ],
        conversation(
            ("C", request(b"GET") + request(b"GET", path=b"/two")),
            ("S", response(b"<p>one</p>", content_type=b"text/html")),
            ("S", response(b"", content_type=b"text/plain")),
        ),
    ]


def request(
    method: bytes,
    body: bytes = b"",
    *,
    path: bytes = b"/path?q=1",
    chunked: bool = False,
    fields: bytes = b"",
    content_type: bytes = b"application/json",
) -> bytes:
    """An HTTP/1.1 request."""
    head = b"%b %b HTTP/1.1\r\nHost: a.test\r\n%b" % (method, path, fields)
    if body:
        head += b"Content-Type: %b\r\n" % content_type
    return head + _framed(body, chunked=chunked, length=bool(body))


def response(
    body: bytes,
    fields: bytes = b"",
    *,
    status: bytes = b"200 OK",
    chunked: bool = False,
    until_close: bool = False,
    content_type: bytes = b"application/json",
) -> bytes:
    """An HTTP/1.1 response."""
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%b" % (status, content_type, fields)
    return head + _framed(body, chunked=chunked, length=not until_close)


def _framed(body: bytes, *, chunked: bool, length: bool) -> bytes:
    if chunked:
        chunks = [body[at : at + 16] for at in range(0, len(body), 16)]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        return b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
    return (b"Content-Length: %d\r\n" % len(body) if length else b"") + b"\r\n" + body


# --- what the law leaves open


class HttpLaw(Law):
    """The law with HTTP's relaxations."""

    def output(self, whole: Outcome, a: bytes, b: bytes) -> bool:
        a, b = unchunked(a), unchunked(b)
        if a == b or not _stopped(whole):
            return a == b
        return a.startswith(b) or b.startswith(a)

    def records(self, outcome: Outcome) -> list[Record]:
        if not _stopped(outcome):
            return list(outcome.records)
        return [
            replace(record, request_bytes=0, response_bytes=0)
            if isinstance(record, ExchangeEnded)
            else record
            for record in outcome.records
        ]


def _stopped(outcome: Outcome) -> bool:
    """Whether a body was stopped on its way."""
    return any(
        (isinstance(record, ExceptionApplied) and record.cause is Cause.UNDECODABLE)
        or (isinstance(record, Decided) and record.layer in _BODY_LAYERS)
        for record in outcome.records
    )


def unchunked(stream: bytes) -> bytes:
    """A stream of HTTP messages for comparison: chunks joined, and their content decoded."""
    out, at = [], 0
    while (end := stream.find(b"\r\n\r\n", at)) >= 0:
        head = stream[at : end + 4]
        at = end + 4
        out.append(head)
        fields = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in fields:
            content, ended, at = _joined(stream, at)
            out += [_decoded(fields, content), b"<end>" if ended else b""]
        elif (found := fields.find(b"\r\ncontent-length: ")) >= 0:
            n = fields[found + 18 :].partition(b"\r\n")[0]
            size = int(n) if n.isdigit() else 0
            out.append(stream[at : at + size])
            at += size
    return b"".join([*out, stream[at:]])


def _decoded(fields: bytes, content: bytes) -> bytes:
    """What the content so far decodes to; `fields` in lower case."""
    coding = _CODING.search(fields)
    if coding is None:
        return content
    return b"".join(Decoder(codings_of([coding[1]]), CodingLimits()).feed(content))


def _joined(stream: bytes, at: int) -> tuple[bytes, bool, int]:
    """The content of the chunks from `at` on, as far as they go; whether, and where, they end."""
    content: list[bytes] = []
    while (line := stream.find(b"\r\n", at)) >= 0:
        try:
            size = int(stream[at:line].partition(b";")[0], 16)
        except ValueError:
            break
        at = line + 2
        if not size:
            return b"".join(content), True, at
        content.append(stream[at : at + size])
        at += size + 2
    return b"".join(content), False, at
