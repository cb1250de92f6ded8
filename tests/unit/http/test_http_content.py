"""Content on its way: searched, edited, replaced, removed, answered; by real policies."""

from __future__ import annotations

import gzip
import zlib

import brotli
import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract import DialFailure, How, UpstreamFailed
from proxy.limits import ExceptionPolicies, Limits, OnException
from proxy.policy.build import PolicyText, compile_all, load_all
from proxy.policy.generation import Generation
from tests.unit.http.stage_driver import Conversation, in_bytes, in_cuts

GET = b"GET /x HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: gzip, br, sdch\r\n\r\n"
OLD = b"GET /x HTTP/1.0\r\n\r\n"
TEXT = b"one secret, two secrets, no more. " * 3
CLEAN = TEXT.replace(b"secret", b"[gone]")
CODE = {
    "": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}
DECODE = {
    "": lambda data: data,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "gzip, br": lambda data: gzip.decompress(brotli.decompress(data)),
}


def policy(rules: str, **files: bytes) -> Generation:
    """A generation of these rules (YAML list items, indented by two)."""
    text = b"version: 1\npolicy: test\nrules:\n" + rules.encode()
    return compile_all(load_all([PolicyText("test.yaml", text)], lambda p: files[p]), 1)


REDACT = policy(
    """
  - id: redact
    layer: http_response
    then:
      replace_body:
        - {literal: secret, by: "[gone]"}
"""
)
REDACT_UPLOADS = policy(
    """
  - id: redact
    layer: http_request
    then:
      replace_body:
        - {literal: secret, by: "[gone]"}
"""
)
NO_SECRETS = policy(
    """
  - id: no-secrets
    layer: http_response_body
    when: {body: secret}
    then: {block: true}
"""
)
NO_UPLOADS = policy(
    """
  - id: dlp
    layer: http_request_body
    when: {body: secret}
    then: {block: {reason: Not out of here.}}
"""
)


def response(body: bytes, *fields: bytes, coding: str = "", framing: str = "length") -> bytes:
    data = CODE[coding](body)
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/plain", *fields]
    if coding:
        lines.append(b"Content-Encoding: " + coding.encode())
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        pieces = [data[i : i + 9] for i in range(0, len(data), 9)]
        data = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    elif framing == "length":
        lines.append(b"Content-Length: %d" % len(data))
    return b"\r\n".join([*lines, b"", data])


def post(body: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST /in HTTP/" + version, b"Host: a.test", *fields]
    if not any(b"chunked" in field for field in fields):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def in_chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def read(wire: bytes, *, closed: bool = False, method: bytes = b"GET") -> tuple[dict, bytes, int]:
    """A response as an independent client reads it: (fields, content, status)."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    if closed:
        client.receive_data(b"")
    head, content = client.next_event(), b""
    assert isinstance(head, h11.Response)
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        content += event.data
    return dict(head.headers), content, head.status_code


def at_the_server(wire: bytes) -> tuple[dict, bytes]:
    """A request as the server reads it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(wire)
    head, content = server.next_event(), b""
    assert isinstance(head, h11.Request)
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        content += event.data
    return dict(head.headers), content


class TestReplaceInResponses:
    @pytest.mark.parametrize("coding", CODE)
    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    def test_in_every_framing_and_coding(self, coding: str, framing: str):
        talk = Conversation(REDACT).client(GET)
        talk.server(response(TEXT, coding=coding, framing=framing))
        if framing == "close":
            talk.server_fin()
        fields, content, _ = read(talk.to_client)
        assert DECODE[coding](content) == CLEAN
        assert fields.get(b"content-encoding", b"").decode() == coding
        assert b"content-length" not in fields
        assert talk.exchanges[0].edits == ("replace_body",)

    def test_an_old_client_gets_it_until_close(self):
        talk = Conversation(REDACT).client(OLD).server(response(TEXT, coding="gzip"))
        fields, content, _ = read(talk.to_client, closed=True)
        assert gzip.decompress(content) == CLEAN
        assert b"transfer-encoding" not in fields
        assert talk.fin == [True, True]

    @given(seed=st.integers(0, 2**16), coding=st.sampled_from(["", "gzip", "gzip, br"]))
    def test_what_arrives_does_not_depend_on_cuts(self, seed: int, coding: str):
        wire = response(TEXT, coding=coding, framing="chunked")
        cut = Conversation(REDACT).client(GET).server(*in_cuts(wire, seed))
        drip = Conversation(REDACT).client(GET).server(*in_bytes(wire))
        assert DECODE[coding](read(cut.to_client)[1]) == CLEAN
        assert DECODE[coding](read(drip.to_client)[1]) == CLEAN
        assert cut.records == drip.records

    def test_codings_that_cannot_be_taken_off_are_not_asked_for_and_no_ranges(self):
        ask = GET.replace(b"\r\n\r\n", b"\r\nRange: bytes=5-\r\nIf-Range: x\r\n\r\n")
        talk = Conversation(REDACT).client(ask)
        assert b"Accept-Encoding: gzip, br\r\n" in talk.to_server
        assert b"ange: " not in talk.to_server

    def test_content_arrives_as_it_comes_but_for_the_beginning_of_a_match(self):
        talk = Conversation(REDACT).client(GET)
        talk.server(response(TEXT, framing="close")[: -len(TEXT)], b"data: hello\n\nsecr")
        assert talk.to_client.endswith(b"data: hello\n\n\r\n")
        talk.server(b"eg")
        assert talk.to_client.endswith(b"secreg\r\n")

    def test_coded_content_arrives_as_it_comes_too(self):
        talk = Conversation(REDACT).client(GET)
        coder = zlib.compressobj(wbits=31)
        event = coder.compress(b"data: hello\n\n") + coder.flush(zlib.Z_SYNC_FLUSH)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        talk.server(head + event)
        framed = talk.to_client.partition(b"\r\n\r\n")[2]
        size, _, rest = framed.partition(b"\r\n")
        assert zlib.decompressobj(31).decompress(rest[: int(size, 16)]) == b"data: hello\n\n"

    def test_head_and_304_go_untouched(self):
        head = response(TEXT).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        talk = Conversation(REDACT).client(GET.replace(b"GET", b"HEAD")).server(head)
        assert talk.to_client == head
        unchanged = b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'
        assert Conversation(REDACT).client(GET).server(unchanged).to_client == unchanged

    def test_a_part_that_nobody_asked_for_is_refused(self):
        wire = response(TEXT).replace(b"200 OK", b"206 Partial Content")
        talk = Conversation(REDACT).client(GET).server(wire)
        assert talk.to_client.startswith(b"HTTP/1.1 502 ")
        assert talk.anomalies == [("body.partial", "refuse")]

    def test_stale_trailers_go(self):
        wire = response(TEXT, framing="chunked").removesuffix(b"\r\n")
        wire += b"Repr-Digest: x\r\nX-Sum: 1\r\n\r\n"
        talk = Conversation(REDACT).client(GET).server(wire)
        assert talk.to_client.endswith(b"0\r\nX-Sum: 1\r\n\r\n")

    def test_pipelined_answers_stay_in_order(self):
        talk = Conversation(REDACT).client(GET * 2)
        talk.server(response(TEXT, coding="gzip")).server(response(b"plain"))
        assert talk.to_client.endswith(b"5\r\nplain\r\n0\r\n\r\n")
        assert [e.edits for e in talk.exchanges] == [("replace_body",), ()]


class TestUndecodable:
    @pytest.mark.parametrize("rules", [REDACT, NO_SECRETS])
    def test_an_unknown_coding_is_refused_before_a_byte_of_it_went(self, rules: Generation):
        wire = response(TEXT, b"Content-Encoding: sdch")
        talk = Conversation(rules).client(GET).server(wire)
        assert talk.to_client.startswith(b"HTTP/1.1 502 ")
        assert b"secret" not in talk.to_client
        assert talk.anomalies == [("body.coding_unknown", "refuse")]

    @pytest.mark.parametrize("rules", [REDACT, NO_SECRETS])
    @pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes])
    def test_a_lie_about_the_coding_ends_the_flow(self, rules: Generation, pieces):
        wire = response(TEXT, b"Content-Encoding: gzip")
        talk = Conversation(rules).client(GET).server(*pieces(wire))
        assert b"secret" not in talk.to_client
        assert talk.ended is How.RESET
        assert talk.anomalies == [("body.coding_invalid", "refuse")]

    def test_what_is_cut_before_its_checksum_is_not_whole(self):
        data = gzip.compress(TEXT)[:-8]
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        talk = Conversation(REDACT).client(GET).server(head + data).server_fin()
        assert talk.anomalies == [("body.coding_truncated", "refuse")]
        assert talk.ended is How.RESET

    def test_a_bomb_ends_the_flow(self):
        limits = Limits(decode_ratio_from=100_000)
        wire = response(b"\0" * 5_000_000, coding="gzip")
        talk = Conversation(NO_SECRETS, limits=limits).client(GET).server(wire)
        assert talk.anomalies == [("body.bomb", "refuse")]
        assert talk.ended is How.RESET

    @pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes])
    @pytest.mark.parametrize("coding", [b"gzip", b"sdch"])
    def test_the_open_row_lets_it_pass_as_it_came_and_says_so(self, pieces, coding: bytes):
        wire = response(TEXT, b"Content-Encoding: " + coding)
        policies = ExceptionPolicies(undecodable=OnException.OPEN)
        talk = Conversation(NO_SECRETS, exceptions=policies).client(GET).server(*pieces(wire))
        assert talk.to_client == wire
        assert [action for _, action in talk.anomalies] == ["open"]

    def test_uploads_in_unknown_codings_are_refused_with_415(self):
        talk = Conversation(NO_UPLOADS).client(post(TEXT, b"Content-Encoding: sdch"))
        assert talk.to_client.startswith(b"HTTP/1.1 415 ")
        assert talk.to_server == b""


class TestBlockByContent:
    @pytest.mark.parametrize("coding", CODE)
    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    @pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes, lambda d: in_cuts(d, 5)])
    def test_no_match_ever_goes_whole(self, coding: str, framing: str, pieces):
        wire = response(b"fine so far. " * 9 + TEXT, coding=coding, framing=framing)
        talk = Conversation(NO_SECRETS).client(GET).server(*pieces(wire))
        assert talk.ended is How.RESET
        assert b"secret" not in talk.to_client
        talk.hang_up()
        assert (talk.exchanges[0].outcome, talk.exchanges[0].rule) == ("blocked", "no-secrets")

    @pytest.mark.parametrize("coding", CODE)
    @pytest.mark.parametrize("framing", ["length", "chunked", "close"])
    @pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes])
    def test_what_holds_nothing_passes_untouched(self, coding: str, framing: str, pieces):
        body = b"nothing to see, secre" * 20
        wire = response(body, coding=coding, framing=framing)
        talk = Conversation(NO_SECRETS).client(GET).server(*pieces(wire))
        if framing == "close":
            talk.server_fin()
        _, content, _ = read(talk.to_client, closed=framing == "close")
        assert content == CODE[coding](body)
        if framing == "length":
            assert talk.to_client == wire
        assert talk.exchanges[0].edits == ()

    def test_with_hold_the_client_sees_a_page(self):
        rules = policy(
            """
  - id: no-secrets
    layer: http_response_body
    when: {body: secret}
    then: {block: {hold: 64KiB, status: 451}}
"""
        )
        for pieces in ([response(TEXT, coding="gzip")], in_bytes(response(TEXT, coding="gzip"))):
            talk = Conversation(rules).client(GET).server(*pieces)
            assert read(talk.to_client)[2] == 451
            assert talk.exchanges[0].outcome == "blocked"

    def test_holding_ends_with_time_and_the_search_goes_on(self):
        rules = policy(
            """
  - id: no-secrets
    layer: http_response_body
    when: {body: secret}
    then: {block: {hold: 64KiB}}
"""
        )
        talk = Conversation(rules, limits=Limits(hold_seconds=1.0)).client(GET)
        wire = response(b"slowly. " + TEXT)
        talk.server(wire[: -len(TEXT)])
        assert talk.to_client == b""
        talk.wait(1.0)
        assert talk.to_client == wire[: -len(TEXT)]
        talk.server(TEXT)
        assert talk.ended is How.RESET
        assert b"secret" not in talk.to_client

    def test_event_streams_are_never_held(self):
        rules = policy(
            """
  - id: no-secrets
    layer: http_response_body
    when: {body: secret}
    then: {block: {hold: 64KiB}}
"""
        )
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        talk = Conversation(rules).client(GET).server(head + b"data: 1\n\n")
        assert talk.to_client == head + b"data: 1\n\n"

    @pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes])
    def test_an_upload_is_answered_with_the_page(self, pieces):
        talk = Conversation(NO_UPLOADS).client(*pieces(post(b"a" * 50 + TEXT)))
        assert read(talk.to_client)[2] == 403
        assert b"Not out of here." in talk.to_client
        assert b"secret" not in talk.to_server
        assert talk.fin == [True, True]

    def test_a_clean_upload_goes_untouched(self):
        wire = post(b"all is well " * 30)
        talk = Conversation(NO_UPLOADS).client(*in_bytes(wire)).server(response(b"ok"))
        assert talk.to_server == wire
        assert talk.exchanges[0].request_bytes == 12 * 30

    def test_by_digest_at_the_end(self):
        rules = policy(
            """
  - id: known
    layer: http_response_body
    when: {body.sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
    then: {block: true}
"""
        )
        talk = Conversation(rules).client(GET).server(response(b"test", coding="gzip"))
        assert talk.ended is How.RESET
        assert Conversation(rules).client(GET).server(response(b"tests")).ended is None

    def test_by_size_as_soon_as_it_is_exceeded(self):
        rules = policy(
            """
  - id: big
    layer: http_request_body
    when: {body.size: {gt: 1000}}
    then: {block: {status: 413}}
"""
        )
        talk = Conversation(rules).client(
            post(b"", b"Transfer-Encoding: chunked"), b"3e8\r\n" + b"x" * 1000 + b"\r\n"
        )
        assert talk.to_client == b""
        talk.client(b"1\r\nx\r\n")
        assert talk.to_client.startswith(b"HTTP/1.1 413 ")


class TestUploads:
    def test_a_small_one_keeps_a_length(self):
        talk = Conversation(REDACT_UPLOADS).client(*in_bytes(post(TEXT, b"Digest: x")))
        fields, content = at_the_server(talk.to_server)
        assert content == CLEAN
        assert fields[b"content-length"] == b"%d" % len(CLEAN)
        assert b"digest" not in fields

    @pytest.mark.parametrize("limit", [0, 5])
    def test_a_large_one_goes_in_chunks(self, limit: int):
        talk = Conversation(REDACT_UPLOADS, limits=Limits(gather_bytes=limit)).client(post(TEXT))
        fields, content = at_the_server(talk.to_server)
        assert content == CLEAN
        assert fields[b"transfer-encoding"] == b"chunked"

    def test_one_that_waits_for_100_is_not_waited_for(self):
        wire = post(TEXT, b"Expect: 100-continue")
        talk = Conversation(REDACT_UPLOADS).client(wire[: -len(TEXT)])
        assert b"Expect: 100-continue\r\n" in talk.to_server
        talk.server(b"HTTP/1.1 100 Continue\r\n\r\n").client(TEXT)
        assert at_the_server(talk.to_server)[1] == CLEAN

    def test_an_old_clients_large_one_is_sent_as_http_1_1(self):
        wire = b"POST /in HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(TEXT), TEXT)
        talk = Conversation(REDACT_UPLOADS, limits=Limits(gather_bytes=5)).client(wire)
        fields, content = at_the_server(talk.to_server)
        assert content == CLEAN
        assert fields[b"host"] == b"192.0.2.1:80"
        talk.server(response(b"done", framing="chunked"))
        assert talk.to_client.endswith(b"\r\n\r\ndone")

    def test_one_that_stops_short_is_never_sent(self):
        talk = Conversation(REDACT_UPLOADS).client(post(TEXT)[:-5]).client_fin()
        assert talk.to_server == b""
        assert talk.exchanges[0].outcome == "aborted"

    def test_chunked_and_coded(self):
        wire = post(
            in_chunks(gzip.compress(TEXT)), b"Transfer-Encoding: chunked", b"Content-Encoding: gzip"
        )
        talk = Conversation(REDACT_UPLOADS).client(*in_bytes(wire))
        fields, content = at_the_server(talk.to_server)
        assert gzip.decompress(content) == CLEAN
        assert fields[b"content-encoding"] == b"gzip"


SET = policy(
    """
  - id: note
    layer: http_response
    then:
      set_body: {template: "<p>${host}${path} ${status}</p>", content_type: text/html}
"""
)
REMOVE = policy(
    """
  - id: nothing
    layer: http_response
    then: {remove_body: true}
"""
)


class TestOtherContent:
    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_set_body(self, framing: str):
        talk = Conversation(SET).client(GET.replace(b"/x", b"/a&b"))
        talk.server(response(TEXT, b'ETag: "a"', coding="gzip", framing=framing))
        fields, content, status = read(talk.to_client)
        assert (content, status) == (b"<p>a.test/a&amp;b 200</p>", 200)
        assert fields[b"content-type"].startswith(b"text/html")
        assert {b"etag", b"content-encoding", b"transfer-encoding"}.isdisjoint(fields)
        assert talk.exchanges[0].edits == ("set_body",)
        assert talk.fin == [False, False]
        talk.client(GET).server(response(TEXT))
        assert len(talk.exchanges) == 2

    def test_head_gets_the_length_that_get_would_get(self):
        head = response(TEXT).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        talk = Conversation(SET).client(GET.replace(b"GET", b"HEAD")).server(head)
        fields, content, _ = read(talk.to_client, method=b"HEAD")
        assert (fields[b"content-length"], content) == (b"%d" % len("<p>a.test/x 200</p>"), b"")

    def test_remove_body(self):
        talk = Conversation(REMOVE).client(GET).server(response(TEXT, coding="br"))
        fields, content, _ = read(talk.to_client)
        assert (fields[b"content-length"], content) == (b"0", b"")
        assert {b"content-type", b"content-encoding"}.isdisjoint(fields)

    def test_304_stays_as_it_is(self):
        unchanged = b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'
        assert Conversation(SET).client(GET).server(unchanged).to_client == unchanged

    def test_of_requests(self):
        rules = policy(
            """
  - id: note
    layer: http_request
    then:
      set_body: {text: "nothing"}
"""
        )
        talk = Conversation(rules).client(*in_bytes(post(TEXT, b"Content-Type: image/png")))
        fields, content = at_the_server(talk.to_server)
        assert content == b"nothing"
        assert fields[b"content-type"].startswith(b"text/plain")


class TestRespond:
    RULES = policy(
        """
  - id: later
    layer: http_request
    when: {path: /x}
    then:
      respond:
        status: 503
        headers: {Retry-After: "120"}
        template: "<h1>${host}</h1>"
        content_type: text/html
"""
    )

    def test_the_server_sees_nothing_and_the_connection_stays(self):
        talk = Conversation(self.RULES).client(GET * 2)
        assert talk.to_server == b""
        fields, content, status = read(talk.to_client)
        assert (status, content, fields[b"retry-after"]) == (503, b"<h1>a.test</h1>", b"120")
        assert [e.outcome for e in talk.exchanges] == ["responded", "responded"]
        assert talk.fin == [False, False]

    def test_it_needs_no_server(self):
        failed = UpstreamFailed(DialFailure.REFUSED)
        talk = Conversation(self.RULES, failed=failed).client(GET)
        assert talk.to_client.startswith(b"HTTP/1.1 503 ")

    def test_head(self):
        talk = Conversation(self.RULES).client(GET.replace(b"GET", b"HEAD"))
        fields, content, _ = read(talk.to_client, method=b"HEAD")
        assert (fields[b"content-length"], content) == (b"15", b"")


def test_only_what_rules_look_at_is_held_back_at_all():
    wire = response(TEXT)
    talk = Conversation(NO_UPLOADS).client(GET).server(wire[:-20])
    assert talk.to_client == wire[:-20]
    assert talk.credit_inbound > 0
