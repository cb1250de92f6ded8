"""What a client and a server notice of the HTTP stage, one behaviour a test."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.contract import (
    DialFailure,
    Drain,
    How,
    Overload,
    UpstreamConnected,
    UpstreamFailed,
)
from proxy.limits import Cause, ExceptionPolicies, Limits, OnException
from proxy.model import Endpoint, Layer
from proxy.policy import ast
from proxy.records import Decided, ExceptionApplied
from tests.unit.http.stage_driver import Conversation, FakePolicy, in_bytes, in_cuts, ruling

GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
GET2 = b"GET /two HTTP/1.1\r\nHost: a.test\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a.test\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n"
POST_CHUNKED = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OK2 = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"
REQUEST, RESPONSE = Layer.HTTP_REQUEST, Layer.HTTP_RESPONSE


def outcomes(talk: Conversation) -> list[tuple[str, int | None]]:
    return [(record.outcome, record.status) for record in talk.exchanges]


def statuses(talk: Conversation) -> list[int]:
    """Status codes of our own pages and the server's answers, in order."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", talk.to_client)]


def blocks(**options) -> FakePolicy:
    block = ast.Block(**({"how": "page", "reason": "Not from here."} | options))
    return FakePolicy(request=lambda facts: ruling(REQUEST, block))


class TestPassing:
    """What is not edited goes through byte for byte."""

    @pytest.mark.parametrize(
        "body",
        [
            OK,
            EMPTY,
            CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
            CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
            b"HTTP/1.1 404 \r\nsErVeR: X\r\nContent-Length: 2\r\n\r\nno",
        ],
    )
    def test_responses_keep_their_bytes_and_the_connection(self, body: bytes):
        talk = Conversation().client(GET).server(body).client(GET2).server(OK2)
        assert talk.to_server == GET + GET2
        assert talk.to_client == body + OK2
        assert [outcome for outcome, _ in outcomes(talk)] == ["forwarded"] * 2

    def test_spelling_order_and_duplicates_of_fields_are_kept(self):
        head = b"GET / HTTP/1.1\r\nhOST: a.test\r\nb: 1\r\nA: \r\nb: 2\r\n\r\n"
        assert Conversation().client(head).to_server == head

    def test_a_head_is_written_in_canonical_form(self):
        talk = Conversation().client(b"\r\nGET / HTTP/1.1\r\nHost:\ta.test  \r\nX:1\r\n\r\n")
        assert talk.to_server == b"GET / HTTP/1.1\r\nHost: a.test\r\nX: 1\r\n\r\n"

    def test_request_bodies_pass_as_they_come(self):
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        talk = Conversation().client(POST, b"01234").client(b"56789").server(OK)
        talk.client(POST_CHUNKED, chunks).server(OK)
        assert talk.to_server == POST + b"0123456789" + POST_CHUNKED + chunks
        assert [record.request_bytes for record in talk.exchanges] == [10, 3]

    def test_an_event_stream_is_delivered_at_once(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        policy = FakePolicy(fields=frozenset({"content_type.sniffed"}))
        talk = Conversation(policy).client(GET).server(head)
        assert talk.to_client == head
        assert talk.server(b"data: 1\n\n").to_client == head + b"data: 1\n\n"

    def test_chunks_are_delivered_without_waiting_for_their_end(self):
        talk = Conversation().client(GET).server(CHUNKED + b"5\r\nhe")
        assert talk.to_client == CHUNKED + b"5\r\nhe"

    def test_head_and_304_have_no_body_whatever_they_say(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        talk = Conversation().client(HEAD).server(head).client(GET).server(OK)
        assert talk.to_client == head + OK

    def test_a_body_of_known_length_is_permitted_ahead_but_for_its_last_byte(self):
        talk = Conversation().client(GET)
        talk.server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x" * 10)
        assert talk.credit_inbound == 989
        talk.server(b"x" * 990)
        assert outcomes(talk) == [("forwarded", 200)]
        assert talk.exchanges[0].response_bytes == 1000


class TestInterim:
    def test_100_continue_goes_end_to_end(self):
        talk = Conversation().client(POST)
        talk.server(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert talk.to_client == b"HTTP/1.1 100 Continue\r\n\r\n"
        talk.client(b"0123456789").server(OK)
        assert talk.to_client == b"HTTP/1.1 100 Continue\r\n\r\n" + OK
        assert outcomes(talk) == [("forwarded", 200)]

    def test_early_hints_come_before_the_answer(self):
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        assert Conversation().client(GET).server(hints + hints + OK).to_client == hints * 2 + OK

    def test_an_old_client_never_sees_one(self):
        talk = Conversation().client(OLD).server(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        assert talk.to_client == OK


class TestPipelining:
    def test_one_request_at_a_time_answers_in_order(self):
        talk = Conversation().client(GET + GET2)
        assert talk.to_server == GET
        talk.server(OK)
        assert talk.to_server == GET + GET2
        assert talk.server(OK2).to_client == OK + OK2

    def test_each_request_is_judged(self):
        def second(facts):
            return ruling(REQUEST, ast.Block(how="page")) if facts.request.path == "/two" else None

        talk = Conversation(FakePolicy(request=second)).client(GET + GET2 + GET).server(OK, OK)
        assert talk.to_server == GET + GET
        assert statuses(talk) == [200, 403, 200]
        assert [r.outcome for r in talk.exchanges] == ["forwarded", "blocked", "forwarded"]

    def test_an_exchange_keeps_the_generation_it_began_with(self):
        seen = []
        old = FakePolicy(number=1, response=lambda facts: seen.append(1))
        new = FakePolicy(number=2, response=lambda facts: seen.append(2))
        talk = Conversation(old).client(GET)
        talk.policy = new
        talk.server(OK).client(GET2).server(OK2)
        assert seen == [1, 2]
        assert [record.generation for record in talk.exchanges] == [1, 2]

    def test_many_requests_unread_hold_nothing(self):
        talk = Conversation().client(GET * 1000)
        assert talk.to_server == GET


class TestEnds:
    """Persistence and the ends of both streams (RFC 9112 9)."""

    @pytest.mark.parametrize(
        ("request_", "response"),
        [
            (CLOSE, OK),
            (GET, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
            (OLD, OK),
            (GET, OK.replace(b"HTTP/1.1", b"HTTP/1.0")),
        ],
    )
    def test_whoever_says_close_is_taken_at_his_word(self, request_: bytes, response: bytes):
        talk = Conversation().client(request_).server(response)
        assert talk.to_client == response
        assert talk.fin == [True, True]

    def test_http_10_keeps_alive_when_both_say_so(self):
        ask = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        reply = b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n"
        talk = Conversation().client(ask).server(reply).client(ask).server(reply)
        assert talk.to_client == reply * 2
        assert talk.fin == [False, False]

    def test_chunks_are_taken_off_for_a_client_that_cannot_read_them(self):
        talk = Conversation().client(OLD).server(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")
        head, _, body = talk.to_client.partition(b"\r\n\r\n")
        assert b"ransfer-" not in head
        assert b"\r\nConnection: close" in head
        assert body == b"hello"
        assert talk.fin == [True, True]

    def test_a_close_delimited_body_ends_with_the_servers_fin(self):
        talk = Conversation().client(GET).server(UNTIL_CLOSE, b"hello").server_fin()
        assert talk.to_client == UNTIL_CLOSE + b"hello"
        assert outcomes(talk) == [("forwarded", 200)]
        assert talk.exchanges[0].response_bytes == 5
        assert talk.fin == [True, True]

    def test_a_half_closing_client_gets_its_answer(self):
        talk = Conversation().client(GET).client_fin()
        assert talk.fin == [True, False]
        talk.server(OK)
        assert talk.to_client == OK
        assert talk.fin == [True, True]

    def test_an_idle_client_that_leaves_takes_the_server_with_it(self):
        talk = Conversation().client(GET).server(OK).client_fin()
        assert talk.fin == [True, True]

    def test_an_idle_server_that_leaves_is_seen_by_the_client(self):
        talk = Conversation().client(GET).server(OK).server_fin()
        assert talk.fin == [True, True]
        assert outcomes(talk) == [("forwarded", 200)]

    def test_an_early_answer_is_delivered_during_the_upload(self):
        talk = Conversation().client(POST, b"0123").server(EMPTY)
        assert talk.to_client == EMPTY
        talk.client(b"456789" + GET2).server(OK2)
        assert talk.to_client == EMPTY + OK2
        assert talk.to_server == POST + b"0123456789" + GET2

    def test_an_early_answer_that_closes_ends_the_upload(self):
        reply = b"HTTP/1.1 413 Too Big\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        talk = Conversation().client(POST, b"0123").server(reply).client(b"45")
        assert talk.to_client == reply
        assert talk.fin == [True, True]
        assert outcomes(talk) == [("forwarded", 413)]

    def test_a_reset_after_a_whole_early_answer_does_not_destroy_it(self):
        talk = Conversation().client(POST, b"0123").server(EMPTY)
        talk.signal(UpstreamFailed(DialFailure.RESET))
        assert talk.claimed == [True]
        assert talk.fin == [True, True]


class TestCuts:
    """A truncated message is never passed off as whole."""

    @pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Le"])
    def test_no_answer_is_a_502(self, begin: bytes):
        talk = Conversation().client(GET).server(begin).server_fin()
        assert statuses(talk) == [502]
        assert outcomes(talk) == [("failed", 502)]
        assert talk.fin == [True, True]

    def test_the_same_after_an_interim_response(self):
        talk = Conversation().client(GET).server(b"HTTP/1.1 103 E\r\n\r\n").server_fin()
        assert statuses(talk) == [103, 502]

    @pytest.mark.parametrize(
        "begin",
        [
            OK[:-2],
            OK[:-5],
            CHUNKED,
            CHUNKED + b"5\r\nhel",
            CHUNKED + b"5\r\nhello\r\n",
            CHUNKED + b"5\r\nhello\r\n0\r\n",
        ],
    )
    def test_a_short_body_stays_short(self, begin: bytes):
        talk = Conversation().client(GET).server(begin).server_fin()
        assert talk.to_client == begin
        assert outcomes(talk) == [("aborted", 200)]
        assert talk.fin == [True, True]

    def test_where_fin_would_mean_complete_the_client_sees_a_reset(self):
        talk = Conversation().client(OLD).server(CHUNKED + b"5\r\nhel").server_fin()
        assert talk.ended is How.RESET

    def test_a_reset_in_mid_body_goes_through(self):
        talk = Conversation().client(GET).server(OK[:-2])
        assert talk.signal(UpstreamFailed(DialFailure.RESET)).claimed == [False]
        talk.hang_up("upstream reset")
        assert outcomes(talk) == [("aborted", 200)]

    def test_a_client_that_vanishes_leaves_one_record(self):
        talk = Conversation().client(POST, b"012").hang_up("client reset")
        (record,) = talk.exchanges
        assert (record.outcome, record.detail) == ("aborted", "client reset")

    def test_a_request_cut_short_is_passed_on_as_short(self):
        talk = Conversation().client(POST, b"012").client_fin()
        assert talk.to_server == POST + b"012"
        assert talk.fin == [True, False]
        reply = b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"
        assert talk.server(reply).to_client == reply


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "status"),
        [
            (DialFailure.REFUSED, 502),
            (DialFailure.UNREACHABLE, 502),
            (DialFailure.RESET, 502),
            (DialFailure.TIMEOUT, 504),
            (DialFailure.OVERLOAD, 503),
            (DialFailure.DENIED, 403),
        ],
    )
    def test_each_failure_has_its_status(self, failure: DialFailure, status: int):
        early = Conversation(failed=UpstreamFailed(failure, "why")).client(GET)
        late = Conversation().client(GET).signal(UpstreamFailed(failure, "why"))
        for talk in (early, late):
            assert statuses(talk) == [status]
            assert outcomes(talk) == [("failed", status)]
            assert talk.exchanges[0].detail == "why"
            assert talk.fin == [True, True]

    def test_a_block_page_wins_over_a_failed_dial(self):
        talk = Conversation(blocks(), failed=UpstreamFailed(DialFailure.REFUSED)).client(GET)
        assert statuses(talk) == [403]

    def test_a_dial_that_fails_before_the_head_is_complete_is_told_afterwards(self):
        talk = Conversation().client(GET[:9]).signal(UpstreamFailed(DialFailure.TIMEOUT))
        assert talk.claimed == [True]
        assert talk.to_client == b""
        assert statuses(talk.client(GET[9:])) == [504]

    def test_an_idle_reset_is_passed_on(self):
        talk = Conversation().client(GET).server(OK).signal(UpstreamFailed(DialFailure.RESET))
        assert talk.claimed == [False]


class TestTime:
    def test_a_slow_head_gets_408_measured_from_its_first_byte(self):
        talk = Conversation(limits=Limits(head_seconds=10)).client(GET[:5]).wait(9)
        talk.client(GET[5:9])
        assert talk.to_client == b""
        talk.wait(1.5)
        assert statuses(talk) == [408]
        assert outcomes(talk) == [("failed", 408)]
        assert talk.fin == [True, True]

    def test_a_head_in_time_stops_the_clock(self):
        talk = Conversation().client(GET[:5]).wait(9).client(GET[5:]).wait(60).server(OK)
        assert talk.to_client == OK

    def test_an_idle_connection_is_closed_in_silence(self):
        talk = Conversation(limits=Limits(keepalive_seconds=75)).client(GET).wait(50).server(OK)
        talk.wait(74)
        assert talk.fin == [False, False]
        talk.wait(2)
        assert talk.to_client == OK
        assert talk.fin == [True, True]

    def test_a_long_exchange_is_not_idleness(self):
        talk = Conversation().client(GET).server(CHUNKED).wait(1000)
        assert talk.fin == [False, False]


class TestDrainAndOverload:
    def test_an_idle_connection_is_drained_at_once(self):
        talk = Conversation().client(GET).server(OK).signal(Drain())
        assert talk.fin == [True, True]

    def test_the_exchange_in_work_is_finished_and_says_close(self):
        talk = Conversation().client(GET).signal(Drain()).server(OK)
        assert b"\r\nConnection: close\r\n" in talk.to_client
        assert talk.to_client.endswith(b"hello")
        assert talk.fin == [True, True]

    def test_a_response_already_begun_is_finished(self):
        talk = Conversation().client(GET + GET2).server(OK[:-2]).signal(Drain()).server(OK[-2:])
        assert talk.to_client == OK
        assert talk.to_server == GET
        assert talk.fin == [True, True]

    def test_under_overload_the_next_request_is_refused(self):
        talk = Conversation().client(GET).signal(Overload()).server(OK).client(GET2)
        assert statuses(talk) == [200, 503]
        assert ExceptionApplied(Cause.OVERLOAD, OnException.CLOSED, "http") in talk.records
        assert talk.fin == [True, True]

    def test_overload_open_serves_on(self):
        exceptions = ExceptionPolicies(overload=OnException.OPEN)
        talk = Conversation(exceptions=exceptions).signal(Overload()).client(GET).server(OK)
        assert talk.to_client == OK


class TestPolicy:
    def test_a_block_page_keeps_a_connection_without_a_body(self):
        talk = Conversation(blocks()).client(GET, GET2)
        assert statuses(talk) == [403, 403]
        assert b"Not from here." in talk.to_client
        assert b"keep-alive" in talk.to_client
        assert talk.to_server == b""
        assert [record.rule for record in talk.exchanges] == ["r1", "r1"]

    def test_a_refused_body_closes_the_connection(self):
        talk = Conversation(blocks()).client(POST, b"0123456789")
        assert b"Connection: close" in talk.to_client
        assert talk.fin == [True, True]
        assert talk.to_server == b""

    def test_pages_to_head_and_204_have_no_body(self):
        assert Conversation(blocks()).client(HEAD).to_client.endswith(b"\r\n\r\n")
        empty = Conversation(blocks(status=204)).client(GET).to_client
        assert empty.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"ontent-" not in empty.replace(b"No Content", b"")

    def test_a_page_escapes_what_the_wire_said(self):
        page = "<p>${host} ${reason} ${rule} ${status} ${flow} ${unknown}</p>"
        talk = Conversation(blocks(reason="<b>", page=page))
        talk.client(b"GET / HTTP/1.1\r\nHost: a&b\r\n\r\n")
        assert talk.to_client.endswith(b"<p>a&amp;b &lt;b&gt; r1 403 f1 ${unknown}</p>")

    @pytest.mark.parametrize(("how", "end"), [("reset", How.RESET), ("drop", How.DROP)])
    def test_other_ways_to_block(self, how: str, end: How):
        talk = Conversation(blocks(how=how)).client(GET).hang_up()
        assert talk.ended is end
        assert talk.to_client == b""
        assert [record.outcome for record in talk.exchanges] == ["blocked"]

    def test_a_redirect_fills_its_placeholders_safely(self):
        redirect = ast.Redirect("https://safe.test/${host}${path}?q=${query}")
        policy = FakePolicy(request=lambda facts: ruling(REQUEST, redirect))
        talk = Conversation(policy).client(b"GET /a|`b?x=1 HTTP/1.1\r\nHost: b.test\r\n\r\n")
        location = next(ln for ln in talk.to_client.split(b"\r\n") if ln[:9] == b"Location:")
        assert location == b"Location: https://safe.test/b.test/a%7C%60b?q=x=1"
        assert outcomes(talk) == [("redirected", 302)]

    def test_hits_are_reported_with_the_exchange_and_tags_go_to_the_flow(self):
        made = ruling(REQUEST)
        made = type(made)(made.layer, made.verdict, hits=made.hits, tags=("t",))
        talk = Conversation(FakePolicy(request=lambda facts: made)).client(GET).server(OK)
        (hit,) = [record for record in talk.records if isinstance(record, Decided)]
        assert hit.exchange == 1
        assert talk.info.tags == ["t"]
        assert (talk.exchanges[0].rules, talk.exchanges[0].tags) == (("r1",), ("t",))

    def test_header_edits_leave_framing_alone(self):
        edit = ast.Headers(
            remove=("Content-*", "Connection", "X-Gone"), set=(("Content-Length", "1"),)
        )
        policy = FakePolicy(
            request=lambda facts: ruling(REQUEST, None, edit),
            response=lambda facts: ruling(RESPONSE, None, edit),
        )
        ask = POST.replace(b"\r\n\r\n", b"\r\nX-Gone: 1\r\n\r\n")
        reply = b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nContent-Length: 0\r\n\r\n"
        talk = Conversation(policy).client(ask, b"0123456789").server(reply)
        assert talk.to_server == POST + b"0123456789"
        assert talk.to_client == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert talk.exchanges[0].edits == ("headers",)

    def test_a_url_rewrite_reaches_the_server_and_the_record_has_what_was_asked(self):
        edit = ast.RewriteUrl(regex="^/old/(.*)$", by=r"/new/\1")
        policy = FakePolicy(request=lambda facts: ruling(REQUEST, None, edit))
        talk = Conversation(policy).client(GET.replace(b"/ ", b"/old/x?y ")).server(OK)
        assert talk.to_server.startswith(b"GET /new/x?y HTTP/1.1\r\n")
        assert talk.exchanges[0].target == b"/old/x?y"

    def test_a_blocked_response_is_replaced_and_the_server_left(self):
        policy = FakePolicy(response=lambda facts: ruling(RESPONSE, ast.Block(how="page")))
        talk = Conversation(policy).client(GET).server(OK)
        assert statuses(talk) == [403]
        assert b"hello" not in talk.to_client
        assert talk.fin == [True, True]
        (record,) = talk.exchanges
        assert (record.outcome, record.status, record.upstream_status) == ("blocked", 403, 200)


class TestExplicit:
    """Behind an explicit provider: absolute-form, one upstream after another."""

    A = b"GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nProxy-Connection: keep-alive\r\n\r\n"
    B = b"GET http://b.test:81/y HTTP/1.1\r\nHost: b.test:81\r\n\r\n"

    def test_the_server_gets_origin_form_without_what_is_for_the_proxy(self):
        talk = Conversation(explicit=True).client(self.A)
        assert talk.to_server == b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"

    def test_another_authority_is_dialled_when_the_exchange_is_over(self):
        talk = Conversation(explicit=True).client(self.A + self.B)
        assert talk.dialled == []
        talk.server(OK)
        assert talk.dialled == [Endpoint("b.test", 81)]
        before = len(talk.to_server)
        talk.signal(UpstreamConnected())
        assert talk.to_server[before:] == b"GET /y HTTP/1.1\r\nHost: b.test:81\r\n\r\n"
        assert talk.server(OK2).to_client == OK + OK2

    def test_a_dial_that_fails_is_told(self):
        talk = Conversation(explicit=True).client(self.A).server(OK).client(self.B)
        talk.signal(UpstreamFailed(DialFailure.DENIED))
        assert statuses(talk) == [200, 403]
        assert talk.fin == [True, True]

    def test_late_bytes_of_the_old_server_are_nobodys_answer(self):
        talk = Conversation(explicit=True).client(self.A).server(OK).client(self.B)
        talk.server(OK2)
        assert talk.to_client == OK
        assert talk.anomalies == [("http1.extra_bytes", "refuse")]

    def test_options_without_a_path_is_asterisk_form(self):
        talk = Conversation(explicit=True)
        talk.client(b"OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert talk.to_server.startswith(b"OPTIONS * HTTP/1.1\r\n")

    def test_elsewhere_absolute_form_is_left_as_it_is(self):
        assert Conversation().client(self.A).to_server == self.A


class TestTunnels:
    UPGRADE = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    SWITCH = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

    def test_nothing_is_lost_around_an_upgrade(self):
        talk = Conversation().client(self.UPGRADE + b"\x00early").server(self.SWITCH + b"\x01now")
        talk.client(b"more").server(b"more")
        assert talk.to_server == self.UPGRADE + b"\x00earlymore"
        assert talk.to_client == self.SWITCH + b"\x01nowmore"
        assert outcomes(talk) == [("forwarded", 101)]

    def test_a_declined_upgrade_stays_http(self):
        talk = Conversation().client(self.UPGRADE).server(OK).client(GET).server(OK)
        assert talk.to_client == OK * 2

    def test_connect_where_policy_lets_it_pass(self):
        ask = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        talk = Conversation(FakePolicy(repair=frozenset({"http1.connect"})))
        talk.client(ask + b"\x16").server(reply + b"\x15")
        assert talk.to_server == ask + b"\x16"
        assert talk.to_client == reply + b"\x15"


TRAFFIC = {
    "pipelined": (GET + POST + b"0123456789" + GET2, OK + EMPTY + OK2),
    "chunked": (
        POST_CHUNKED + b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n" + GET,
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + OK,
    ),
    "interim": (POST + b"0123456789", b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    "closing": (CLOSE + GET, OK + OK),
    "old": (OLD, CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
    "until close": (GET, UNTIL_CLOSE + b"hello"),
    "twice answered": (GET, OK + OK),
    "upgrade": (TestTunnels.UPGRADE + b"raw", TestTunnels.SWITCH + b"raw"),
    "garbage": (b"GET / HTTP/1.1\nHost: a\n\n", b"nonsense\r\n\r\n"),
    "cut": (GET + POST + b"012", OK + b"HTTP/1.1 2"),
    "early": (
        POST + b"012",
        b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
    ),
    "edited": (GET + GET2, OK + OK2),
}


@pytest.mark.parametrize("name", TRAFFIC)
@given(seed=st.integers(0, 2**16))
def test_the_result_does_not_depend_on_cuts(name: str, seed: int):
    """The invariance law, for the stage alone: bytes, ends and records."""
    said, answered = TRAFFIC[name]
    edit = ast.Headers(set=(("X-Seen", "yes"),), remove=("Content-Type",))
    policy = FakePolicy(
        request=lambda facts: ruling(REQUEST, None, edit) if name == "edited" else None,
        response=lambda facts: ruling(RESPONSE, None, edit) if name == "edited" else None,
    )

    def run(pieces):
        talk = Conversation(policy).client(*pieces(said)).server(*pieces(answered))
        return talk.server_fin().client_fin().hang_up("end")

    whole, cut = run(lambda data: [data]), run(lambda data: in_cuts(data, seed))
    drip = run(in_bytes)
    for other in (cut, drip):
        assert other.out == whole.out
        assert (other.fin, other.ended) == (whole.fin, whole.ended)
        assert other.records == whole.records
    assert len(whole.exchanges) == len({record.number for record in whole.exchanges})


@given(st.lists(st.sampled_from(list(TRAFFIC)), min_size=1, max_size=3), st.randoms())
def test_whatever_comes_each_exchange_is_recorded_once(names, random):
    """Any mixture of bytes, ends and signals: no exception, one record an exchange."""
    talk = Conversation()
    said = b"".join(TRAFFIC[name][0] for name in names)
    answered = b"".join(TRAFFIC[name][1] for name in names)
    steps = [("C", piece) for piece in in_cuts(said, random.randrange(99))]
    steps += [("S", piece) for piece in in_cuts(answered, random.randrange(99))]
    steps += [("X", Drain()), ("X", Overload()), ("X", UpstreamFailed(DialFailure.RESET))]
    random.shuffle(steps)
    for who, what in itertools.islice(steps, random.randrange(len(steps) + 1)):
        if talk.ended is None and (who != "X" or all(talk.claimed)):
            {"C": talk.client, "S": talk.server, "X": talk.signal}[who](what)
    talk.hang_up("end")
    numbers = [record.number for record in talk.exchanges]
    assert numbers == list(range(1, len(numbers) + 1))
