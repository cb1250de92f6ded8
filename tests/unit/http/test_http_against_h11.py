"""Our reading of messages held against h11, fed the whole of them: heads, framing, chunks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import h11
from hypothesis import given
from hypothesis import strategies as st

from proxy.callouts.http import framing, writer
from proxy.callouts.http.chunked import ChunkScanner
from proxy.callouts.http.lines import EndOfHead
from proxy.callouts.http.parse import parse_request, parse_response

NAMES = st.sampled_from(["Accept", "X-a", "COOKIE", "connection", "Content-Type", "x_y", "~"])
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12).map(
    lambda text: text.encode()
) | st.binary(max_size=6).map(lambda raw: bytes(b | 0x80 for b in raw))
BODIES = st.binary(max_size=40)


@dataclass(frozen=True)
class Message:
    head: bytes
    body: bytes  #: content
    wire: bytes  #: content as framed


@st.composite
def framed(draw: st.DrawFn, start: bytes, host: bool) -> Message:
    """A valid message: fields in any order around its framing ones."""
    body = draw(BODIES)
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))
    lines = [
        b"%b:%b%b" % (n.encode(), draw(st.sampled_from([b"", b" ", b"\t "])), v) for n, v in fields
    ]
    match draw(st.sampled_from(["none", "length", "chunked"])):
        case "length":
            lines.append(b"content-Length: %d" % len(body))
            wire = body
        case "chunked":
            lines.append(b"Transfer-encoding: " + draw(st.sampled_from([b"chunked", b"CHUNKED"])))
            wire = draw(chunks_of(body))
        case _:
            body = wire = b""
    lines = draw(st.permutations(lines))
    if host:
        lines = [b"Host: a.test", *lines]
    return Message(b"\r\n".join([start, *lines, b"", b""]), body, wire)


@st.composite
def chunks_of(draw: st.DrawFn, body: bytes) -> bytes:
    cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=4))})
    parts = [body[a:b] for a, b in itertools.pairwise(cuts)]
    size = draw(st.sampled_from([b"%x", b"%X", b"0%x"]))
    wire = b"".join(b"%b\r\n%b\r\n" % (size % len(part), part) for part in parts if part)
    trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"A:\r\nB: c\r\n"]))
    return wire + b"0\r\n" + trailer + b"\r\n"


def read_whole(connection: h11.Connection, wire: bytes) -> tuple[object, bytes, int]:
    """h11's head event, content, and how many bytes of `wire` the message took."""
    connection.receive_data(wire)
    first, content = connection.next_event(), b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            return first, content, len(wire) - len(connection.trailing_data[0])
        else:
            raise AssertionError(event)


def our_end(kind: framing.Framing, wire: bytes) -> int:
    """How many bytes of body our framing and scanner take from `wire`."""
    match kind:
        case framing.NoBody():
            return 0
        case framing.Length(n):
            return n
        case framing.Chunked():
            scanner = ChunkScanner(256, 4096, lambda _: True)
            scan = scanner.scan(wire)
            assert scanner.done
            return scan.consumed
        case framing.UntilClose():
            return len(wire)


METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"M-SEARCH", b"!#"])
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


@given(st.data(), METHODS, st.sampled_from([b"/", b"/a?b=%20", b"http://a.test/x"]))
def test_requests_end_where_h11_says(data: st.DataObject, method: bytes, target: bytes) -> None:
    message = data.draw(framed(b"%b %b HTTP/1.1" % (method, target), host=True))
    event, content, end = read_whole(h11.Connection(h11.SERVER), message.head + message.wire + NEXT)
    parsed = parse_request(message.head, 100)
    assert parsed.findings == ()
    head = parsed.head
    assert head is not None
    assert isinstance(event, h11.Request)
    assert (head.method, head.target) == (event.method, event.target)
    assert [(f.name, f.value) for f in head.fields] == event.headers.raw_items()
    kind = framing.of_request(head)
    assert len(message.head) + our_end(kind, message.wire + NEXT) == end
    assert content == message.body


@given(st.data(), METHODS, st.sampled_from([200, 204, 206, 304, 404, 500]))
def test_responses_end_where_h11_says(data: st.DataObject, method: bytes, status: int) -> None:
    message = data.draw(framed(b"HTTP/1.1 %d X" % status, host=False))
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    parsed = parse_response(message.head, 100)
    head = parsed.head
    assert head is not None
    if status == 204:
        assert all(finding.id == "http1.body_on_bodiless" for finding in parsed.findings)
    else:
        assert parsed.findings == ()
    kind = framing.of_response(head, method)
    if isinstance(kind, framing.UntilClose):
        client.receive_data(message.head + b"body")
        client.next_event()
        assert isinstance(client.next_event(), h11.Data)
        client.receive_data(b"")
        assert isinstance(client.next_event(), h11.EndOfMessage)
        return
    event, _, end = read_whole(client, message.head + message.wire + NEXT)
    assert isinstance(event, h11.Response)
    assert len(message.head) + our_end(kind, message.wire + NEXT) == end


PIECES = st.lists(
    st.sampled_from(
        [
            b"Host: a",
            b"X:",
            b"\r\n",
            b"\n",
            b" ",
            b"\t",
            b"\x0b",
            b"\x1f",
            b"\x85",
            b"\xa0",
            b":",
            b"a",
            b"Content-Length: 5",
            b"Upgrade: x",
            b"Connection: close",
            b"Expect: 100-continue",
            b"~",
        ]
    )
    | st.binary(max_size=3),
    max_size=12,
).map(b"".join)


@given(METHODS, st.sampled_from([b"1.1", b"1.0"]), PIECES)
def test_the_gate_answers_as_h11_would_for_requests(method: bytes, version: bytes, noise: bytes):
    """A head without findings is passed by h11 too, and read the same, field by field."""
    raw = b"%b /x HTTP/%b\r\nHost: b\r\n%b\r\n\r\n" % (method, version, noise)
    end = EndOfHead(len(raw)).find(raw)
    head = parse_request(raw[:end], 100).head
    if head is None or parse_request(raw[:end], 100).findings:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw[:end])
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, event.http_version) == (method, b"/x", version)
    assert [(f.name, f.value) for f in head.fields] == event.headers.raw_items()
    assert [f.key for f in head.fields] == [key for key, _ in event.headers]


@given(st.integers(100, 599), st.sampled_from([b"1.1", b"1.0"]), PIECES)
def test_the_gate_answers_as_h11_would_for_responses(status: int, version: bytes, noise: bytes):
    raw = b"HTTP/%b %d x y\r\n%b\r\n\r\n" % (version, status, noise)
    end = EndOfHead(len(raw)).find(raw)
    head = parse_response(raw[:end], 100).head
    if head is None or parse_response(raw[:end], 100).findings:
        return
    client = h11.Connection(h11.CLIENT)
    ask = [(b"Host", b"a"), (b"Connection", b"upgrade"), (b"Upgrade", b"x")]
    client.send(h11.Request(method=b"GET", target=b"/", headers=ask))
    client.receive_data(raw[:end])
    event = client.next_event()
    assert isinstance(event, h11.Response | h11.InformationalResponse)
    assert (event.status_code, event.reason, event.http_version) == (status, b"x y", version)
    assert [(f.name, f.value) for f in head.fields] == event.headers.raw_items()


@given(st.data())
def test_writing_and_reading_a_head_is_stable(data: st.DataObject) -> None:
    message = data.draw(framed(b"POST /x HTTP/1.1", host=True))
    head = parse_request(message.head, 100).head
    assert head is not None
    once = writer.write_request(head)
    again = parse_request(once, 100).head
    assert again == head
    assert writer.write_request(head) == once


CHUNKY = st.lists(
    st.sampled_from(
        [b"0", b"1", b"5", b"a", b"\r\n", b"\n", b"\r", b";x=y", b";", b" ", b"hello", b"X: y"]
    ),
    max_size=12,
).map(b"".join)


@given(CHUNKY)
def test_what_the_scanner_passes_is_what_h11_reads(wire: bytes) -> None:
    """Whatever our scanner completes, h11 completes at the same byte with the same content."""
    scanner = ChunkScanner(256, 4096, lambda _: True)
    scan = scanner.scan(wire)
    if not scanner.done:
        return
    server = h11.Connection(h11.SERVER)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    _, content, end = read_whole(server, head + wire)
    assert content == b"".join(wire[a:b] for a, b in scan.payload)
    assert end - len(head) == scan.consumed


@given(CHUNKY | BODIES.flatmap(chunks_of))
def test_the_way_for_small_chunks_proves_the_same(wire: bytes) -> None:
    slow, fast = (ChunkScanner(64, 64, lambda _: True, spans=s) for s in (True, False))
    one, other = slow.scan(wire), fast.scan(wire)
    assert (one.consumed, one.size, one.cuts) == (other.consumed, other.size, other.cuts)
    assert one.size == sum(end - start for start, end in one.payload)
    assert (slow.done, slow.fault) == (fast.done, fast.fault)


@given(CHUNKY | BODIES.flatmap(chunks_of), st.lists(st.integers(1, 7), max_size=40))
def test_the_scanner_does_not_depend_on_cuts(wire: bytes, widths: list[int]) -> None:
    whole = ChunkScanner(64, 64, lambda _: True)
    scan = whole.scan(wire)
    content = b"".join(wire[a:b] for a, b in scan.payload)
    pieces = ChunkScanner(64, 64, lambda _: True)
    held, seen, consumed, at = bytearray(), b"", 0, 0
    for width in [*widths, len(wire)]:
        held += wire[at : at + width]
        at += width
        step = pieces.scan(held)
        seen += b"".join(bytes(held[a:b]) for a, b in step.payload)
        consumed += step.consumed
        del held[: step.consumed]
    assert (seen, consumed) == (content, scan.consumed)
    assert (pieces.done, pieces.fault) == (whole.done, whole.fault)
