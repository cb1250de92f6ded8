"""What looks into bodies or changes them on their way: sniffing and the banner."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract import How
from proxy.limits import Limits
from proxy.model import Layer
from proxy.policy import ast
from tests.unit.http.stage_driver import Conversation, FakePolicy, in_bytes, in_cuts, ruling

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
DOCUMENT = b"<html><head><title>t</title></head><body><p>text</p></body></html>"
BANNER = b"<p>seen</p>"
EDITED = DOCUMENT.replace(b"<body>", b"<body>" + BANNER)
RESPONSE = Layer.HTTP_RESPONSE
PROGRAM = b"MZ" + bytes(100)


def html(*fields: bytes, body: bytes = DOCUMENT) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/html; charset=utf-8", *fields]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def chunked(body: bytes, *fields: bytes, size: int = 7) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/html", *fields]
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""])
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def with_banner() -> FakePolicy:
    edit = ast.InjectBanner(BANNER.decode())
    return FakePolicy(response=lambda _: ruling(RESPONSE, None, edit), banner=True)


def read(wire: bytes, *, closed: bool = False) -> tuple[h11.Response, bytes]:
    """A response as an independent client reads it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    if closed:
        client.receive_data(b"")
    head, content = client.next_event(), b""
    assert isinstance(head, h11.Response)
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        content += event.data
    return head, content


class TestBanner:
    @pytest.mark.parametrize(
        "response", [html(), chunked(DOCUMENT), html().replace(b"text/html", b"Text/HTML")]
    )
    def test_it_goes_into_documents_whatever_their_framing(self, response: bytes):
        talk = Conversation(with_banner()).client(GET).server(response)
        head, content = read(talk.to_client)
        assert content == EDITED
        assert (b"transfer-encoding", b"chunked") in list(head.headers)
        assert talk.exchanges[0].edits == ("banner",)
        assert talk.fin == [False, False]

    def test_until_close_documents_too(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
        talk = Conversation(with_banner()).client(GET).server(head + DOCUMENT).server_fin()
        assert read(talk.to_client)[1] == EDITED
        assert talk.fin == [True, True]

    def test_an_old_client_gets_it_until_close(self):
        talk = Conversation(with_banner()).client(OLD).server(html())
        head, content = read(talk.to_client, closed=True)
        assert content == EDITED
        assert {b"transfer-encoding", b"content-length"}.isdisjoint(dict(head.headers))
        assert talk.fin == [True, True]

    def test_an_old_client_never_takes_a_cut_document_for_whole(self):
        talk = Conversation(with_banner()).client(OLD).server(html()[:-3]).server_fin()
        assert talk.ended is How.RESET

    def test_a_cut_document_has_no_last_chunk(self):
        talk = Conversation(with_banner()).client(GET).server(html()[:-3]).server_fin()
        assert not talk.to_client.endswith(b"0\r\n\r\n")
        assert talk.exchanges[0].outcome == "aborted"

    def test_trailers_survive(self):
        wire = chunked(DOCUMENT).removesuffix(b"\r\n") + b"X-Sum: 1\r\n\r\n"
        talk = Conversation(with_banner()).client(GET).server(wire)
        assert talk.to_client.endswith(b"0\r\nX-Sum: 1\r\n\r\n")

    def test_validators_and_digests_of_the_old_bytes_do_not_survive(self):
        fields = [b'ETag: "a"', b"Content-MD5: x", b"Repr-Digest: y", b"Accept-Ranges: bytes"]
        head, _ = read(Conversation(with_banner()).client(GET).server(html(*fields)).to_client)
        assert dict(head.headers)[b"etag"] == b'W/"a"'
        gone = {b"content-md5", b"repr-digest", b"accept-ranges", b"content-length"}
        assert gone.isdisjoint(dict(head.headers))

    @pytest.mark.parametrize(
        ("response", "why"),
        [
            (html(b"Content-Encoding: sdch"), "coding"),
            (html(b"Content-Disposition: attachment"), "attachment"),
            (html().replace(b"text/html", b"text/plain"), "not_html"),
            (html().replace(b"200", b"206"), "status"),
            (html(body=b""), "empty"),
        ],
    )
    def test_other_responses_are_not_touched(self, response: bytes, why: str):
        talk = Conversation(with_banner()).client(GET).server(response)
        assert talk.to_client == response
        assert (talk.exchanges[0].edits, talk.exchanges[0].detail) == ((), f"no banner: {why}")

    def test_a_fragment_is_left_alone_and_the_record_says_so(self):
        talk = Conversation(with_banner()).client(GET).server(html(body=b"{}"))
        assert read(talk.to_client)[1] == b"{}"
        assert (talk.exchanges[0].edits, talk.exchanges[0].detail) == ((), "no banner: no_body")

    def test_two_rules_put_in_two(self):
        both = [ast.InjectBanner("<i>1</i>"), ast.InjectBanner("<i>2</i>")]
        policy = FakePolicy(response=lambda _: ruling(RESPONSE, None, *both))
        _, content = read(Conversation(policy).client(GET).server(html()).to_client)
        assert b"<i>1</i>" in content
        assert b"<i>2</i>" in content

    def test_head_is_not_touched(self):
        head = html().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        talk = Conversation(with_banner()).client(GET.replace(b"GET", b"HEAD")).server(head)
        assert talk.to_client == head

    def test_a_document_passes_on_before_it_is_complete(self):
        talk = Conversation(with_banner()).client(GET).server(html()[:-7])
        assert BANNER in talk.to_client
        assert b"<p>text</p>" in talk.to_client

    @given(st.integers(0, 2**16), st.booleans())
    def test_its_content_does_not_depend_on_cuts(self, seed: int, in_chunks: bool):
        """Chunk boundaries of an edited body may (documented in callouts/http/body.py)."""
        wire = chunked(DOCUMENT) if in_chunks else html()
        cut = Conversation(with_banner()).client(GET).server(*in_cuts(wire, seed))
        drip = Conversation(with_banner()).client(GET).server(*in_bytes(wire))
        assert read(cut.to_client) == read(drip.to_client)
        assert read(cut.to_client)[1] == EDITED
        assert cut.records == drip.records

    def test_the_server_is_asked_for_codings_that_can_be_taken_off(self):
        ask = (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: text/html,*/*;q=0.8\r\n"
            b"Accept-Encoding: gzip, sdch\r\nRange: bytes=5-\r\n\r\n"
        )
        talk = Conversation(with_banner()).client(ask)
        assert talk.to_server.endswith(b"*/*;q=0.8\r\nAccept-Encoding: gzip\r\n\r\n")

    def test_but_not_for_what_cannot_be_a_document(self):
        ask = (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: image/png\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        assert Conversation(with_banner()).client(ask).to_server == ask

    def test_a_range_of_a_download_is_kept(self):
        ask = b"GET / HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nRange: bytes=5-\r\n\r\n"
        assert Conversation(with_banner()).client(ask).to_server == ask


class TestSniffing:
    """Rules on the content's own type see it before the head is let through."""

    @staticmethod
    def policy() -> FakePolicy:
        def programs(facts):
            bad = facts.sniffed == "application/x-msdownload" or facts.unknown
            return ruling(RESPONSE, ast.Block(how="page")) if bad else None

        return FakePolicy(response=programs, fields=frozenset({"content_type.sniffed"}))

    @staticmethod
    def response(body: bytes, *fields: bytes) -> bytes:
        length = b"Content-Length: %d" % len(body)
        return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, length, b"", body])

    @pytest.mark.parametrize("in_chunks", [False, True])
    @pytest.mark.parametrize("pieces", [lambda d: [d], in_bytes, lambda d: in_cuts(d, 3)])
    def test_a_program_is_seen_however_it_arrives(self, in_chunks: bool, pieces):
        wire = chunked(PROGRAM, size=1) if in_chunks else self.response(PROGRAM)
        talk = Conversation(self.policy()).client(GET).server(*pieces(wire))
        assert talk.to_client.startswith(b"HTTP/1.1 403")
        assert b"MZ" not in talk.to_client

    def test_the_head_waits_for_enough_bytes_only(self):
        wire = self.response(b"x" * 5000)
        talk = Conversation(self.policy(), limits=Limits(sniff_bytes=100)).client(GET)
        talk.server(wire[: -5000 + 99])
        assert talk.to_client == b""
        talk.server(wire[-5000 + 99 :])
        assert talk.to_client == wire

    def test_a_slow_body_is_judged_on_what_is_there_when_time_is_up(self):
        wire = self.response(PROGRAM)
        slow = Conversation(self.policy()).client(GET).server(wire[:-99])
        assert slow.to_client == b""
        assert slow.wait(0.3).to_client.startswith(b"HTTP/1.1 403")

    def test_an_end_of_stream_ends_the_wait(self):
        wire = b"HTTP/1.1 200 OK\r\n\r\nhello"
        talk = Conversation(self.policy()).client(GET).server(wire).server_fin()
        assert talk.to_client == wire

    def test_coded_content_is_unknown_and_does_not_wait(self):
        talk = Conversation(self.policy()).client(GET)
        talk.server(self.response(PROGRAM, b"Content-Encoding: gzip")[:-50])
        assert talk.to_client.startswith(b"HTTP/1.1 403")

    @pytest.mark.parametrize("field", ["x", "content_type"])
    def test_without_a_rule_that_asks_nothing_waits(self, field: str):
        wire = self.response(PROGRAM)[:-50]
        talk = Conversation(FakePolicy(fields=frozenset({field}))).client(GET).server(wire)
        assert talk.to_client == wire

    @given(st.integers(0, 2**16), st.booleans())
    def test_the_result_does_not_depend_on_cuts(self, seed: int, program: bool):
        wire = chunked(PROGRAM if program else DOCUMENT * 40)
        whole = Conversation(self.policy()).client(GET).server(wire)
        cut = Conversation(self.policy()).client(GET).server(*in_cuts(wire, seed))
        assert cut.out == whole.out
        assert cut.records == whole.records
