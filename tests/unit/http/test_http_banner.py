"""inject_banner over HTTP, by real policies: which answers get one, in what form and coding."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib

import brotli
import h11
import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.content.insertion import Outcome
from proxy.policy.build import PolicyText, compile_all, load_all
from proxy.policy.generation import Generation
from proxy.records import ExchangeEnded
from tests.unit.http.stage_driver import Conversation, in_bytes, in_cuts

GET = b"GET /a?b=1 HTTP/1.1\r\nHost: a.test\r\n\r\n"
PAGE = "<!doctype html><html><head><title>t</title></head><body><p>text</p></body></html>"
CODE = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}
DECODE = {
    "identity": lambda data: data,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "gzip, br": lambda data: gzip.decompress(brotli.decompress(data)),
}


def _no_file(path: str) -> bytes:
    raise FileNotFoundError(path)


def policy(banner: str, more: str = "") -> Generation:
    """A generation with one rule that injects (a YAML flow value), and does `more`."""
    then = f"{{inject_banner: {banner}{more}}}"
    text = "version: 1\npolicy: pages\nrules:\n"
    text += f"  - {{id: notice, layer: http_response, then: {then}}}\n"
    return compile_all(load_all([PolicyText("test.yaml", text.encode())], _no_file), 1)


SEEN = "<i>seen</i>"
SIMPLE = policy(f'"{SEEN}"')
FRAMES = policy(f'{{html: "{SEEN}", frames: true}}')
SCRIPT = '{html: "<script>go()</script>"}'
EXTEND = '{html: "<script>go()</script>", csp: extend}'
GO = f"'sha256-{base64.b64encode(hashlib.sha256(b'go()').digest()).decode()}'"


def ask(*fields: str, method: str = "GET", host: str = "a.test") -> bytes:
    lines = [f"{method} /a?b=1 HTTP/1.1", f"Host: {host}", *fields]
    if method in ("POST", "PUT"):
        lines.append("Content-Length: 0")
    return "\r\n".join([*lines, "", ""]).encode()


def answer(
    *fields: str,
    page: str | bytes = PAGE,
    media: str = "text/html; charset=utf-8",
    status: str = "200 OK",
) -> bytes:
    content = page.encode() if isinstance(page, str) else page
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {media}", *fields]
    lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def read(wire: bytes, method: bytes = b"GET") -> tuple[h11.Response, bytes]:
    """A response as an independent client reads it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    head, content = client.next_event(), b""
    assert isinstance(head, h11.Response)
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        content += event.data
    return head, content


def talk(generation: Generation, response: bytes, request: bytes = GET) -> Conversation:
    return Conversation(generation).client(request).server(response)


def record(conversation: Conversation) -> ExchangeEnded:
    (exchange,) = conversation.exchanges
    return exchange


def left_alone(conversation: Conversation, response: bytes, outcome: Outcome) -> None:
    """Nothing changed, and the record says why."""
    assert conversation.to_client == response
    ended = record(conversation)
    assert (ended.edits, ended.detail) == ((), f"no banner: {outcome}")


def page_of(conversation: Conversation) -> str:
    assert record(conversation).edits == ("banner",)
    return read(conversation.to_client)[1].decode()


class TestCodings:
    @pytest.mark.parametrize("coding", CODE)
    @pytest.mark.parametrize("cut", [lambda d: [d], in_bytes, lambda d: in_cuts(d, 5)])
    def test_a_compressed_page_gets_it_and_stays_compressed(self, coding: str, cut):
        response = answer(f"Content-Encoding: {coding}", page=CODE[coding](PAGE.encode()))
        done = Conversation(SIMPLE).client(GET).server(*cut(response))
        head, content = read(done.to_client)
        assert dict(head.headers)[b"content-encoding"] == coding.encode()
        assert DECODE[coding](content).decode() == PAGE.replace("<body>", f"<body>{SEEN}")
        assert record(done).edits == ("banner",)

    def test_compressed_utf_16(self):
        page = gzip.compress(("\ufeff" + PAGE).encode("utf-16be"))
        done = talk(SIMPLE, answer("Content-Encoding: gzip", page=page, media="text/html"))
        content = gzip.decompress(read(done.to_client)[1]).decode("utf-16be")
        assert content == "\ufeff" + PAGE.replace("<body>", f"<body>{SEEN}")

    def test_a_coding_that_cannot_be_taken_off(self):
        response = answer("Content-Encoding: sdch", page="?")
        left_alone(talk(SIMPLE, response), response, Outcome.CODING)

    def test_a_compressed_fragment_keeps_its_content(self):
        response = answer("Content-Encoding: gzip", page=gzip.compress(b"<p>part</p>"))
        done = talk(SIMPLE, response)
        assert gzip.decompress(read(done.to_client)[1]) == b"<p>part</p>"
        assert (record(done).edits, record(done).detail) == ((), "no banner: no_body")

    def test_page_and_banner_leave_before_the_page_is_complete(self):
        squeeze = zlib.compressobj(wbits=31)
        begin = squeeze.compress(PAGE[:-14].encode()) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        rest = squeeze.compress(PAGE[-14:].encode()) + squeeze.flush()
        response = answer("Content-Encoding: gzip", page=begin + rest)
        done = talk(SIMPLE, response[: -len(rest)])
        chunk = done.to_client.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]
        assert SEEN.encode() in zlib.decompressobj(wbits=31).decompress(chunk)


class TestAnswers:
    @pytest.mark.parametrize("status", ["200 OK", "203 N", "404 Not Found", "503 Wait"])
    @pytest.mark.parametrize("media", ["text/html", "Text/HTML;charset=x", 'text/html; a="b"'])
    def test_documents_of_any_status_that_is_shown(self, status: str, media: str):
        done = talk(SIMPLE, answer(status=status, media=media))
        assert page_of(done) == PAGE.replace("<body>", f"<body>{SEEN}")

    @pytest.mark.parametrize(
        ("response", "outcome"),
        [
            (answer(page=""), Outcome.EMPTY),
            (b"HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n", Outcome.EMPTY),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\n\r\n", Outcome.EMPTY),
            (answer("Content-Range: bytes 0-76/99", status="206 Part"), Outcome.STATUS),
            (answer("Location: /", status="302 Found"), Outcome.STATUS),
            (answer(media="text/plain"), Outcome.NOT_HTML),
            (answer(media="text/html-sandboxed"), Outcome.NOT_HTML),
            (answer(media="application/json"), Outcome.NOT_HTML),
            (answer(media="application/xhtml+xml"), Outcome.XHTML),
            (answer('Content-Disposition: Attachment; filename="a.html"'), Outcome.ATTACHMENT),
            (answer("Cache-Control: max-age=1, No-Transform"), Outcome.NO_TRANSFORM),
        ],
    )
    def test_others_are_left_alone(self, response: bytes, outcome: Outcome):
        left_alone(talk(SIMPLE, response), response, outcome)

    def test_head_is_left_alone(self):
        response = answer()[: -len(PAGE)]
        left_alone(talk(SIMPLE, response, ask(method="HEAD")), response, Outcome.EMPTY)

    @pytest.mark.parametrize(
        ("page", "outcome"),
        [
            ("{}", Outcome.NO_BODY),
            ("<p>part</p>", Outcome.NO_BODY),
            ("<frameset></frameset>", Outcome.NO_BODY),
            ("<p>x<body>", Outcome.LATE),
            ("<meta charset=hz-gb-2312><body>", Outcome.CHARSET),
        ],
    )
    def test_documents_without_a_place_keep_their_content(self, page: str, outcome: Outcome):
        done = talk(SIMPLE, answer(page=page, media="text/html"))
        assert read(done.to_client)[1].decode() == page
        assert (record(done).edits, record(done).detail) == ((), f"no banner: {outcome}")

    def test_an_operator_goes_over_no_transform_by_taking_it_out(self):
        generation = policy(f'"{SEEN}"', ", headers: {remove: Cache-Control}")
        done = talk(generation, answer("Cache-Control: no-transform"))
        head, content = read(done.to_client)
        assert SEEN.encode() in content
        assert b"cache-control" not in dict(head.headers)

    def test_what_was_true_of_the_old_bytes_goes(self):
        fields = ['ETag: "a"', "Content-MD5: x", "Digest: x", "Repr-Digest: x", "Want-Digest: x"]
        head, _ = read(talk(SIMPLE, answer(*fields, "Accept-Ranges: bytes")).to_client)
        names = {name for name, _ in head.headers}
        assert names == {b"content-type", b"etag", b"want-digest", b"transfer-encoding"}
        assert dict(head.headers)[b"etag"] == b'W/"a"'


NAVIGATION = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
BROWSER = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/130"


class TestRequests:
    @pytest.mark.parametrize(
        "fields",
        [
            [],
            ["Accept: */*", "User-Agent: curl/8.5"],
            [NAVIGATION, BROWSER, "Upgrade-Insecure-Requests: 1"],
            ["Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Purpose: prefetch"],
            [NAVIGATION, "X-Requested-With: com.example.app"],  # an Android web view
            [NAVIGATION, "X-Moz: prefetch", "Purpose: prefetch"],
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_page_that_a_user_opens_gets_it(self, fields: list[str], method: str):
        assert SEEN in page_of(talk(SIMPLE, answer(), ask(*fields, method=method)))

    @pytest.mark.parametrize(
        "fields",
        [
            ["Sec-Fetch-Dest: empty", "Sec-Fetch-Mode: cors"],
            ["Sec-Fetch-Dest: script"],
            ["Sec-Fetch-Mode: same-origin"],
            ["X-Requested-With: XMLHttpRequest", NAVIGATION],
            ["X-PJAX: true", NAVIGATION],
            ["HX-Request: true"],
            ["HX-Request: true", "HX-Boosted: true"],
            ["Turbo-Frame: main", "Accept: text/html"],
            ["Accept: application/json"],
            ["Accept: image/*"],
            ["Accept: */*", BROWSER],  # what fetch() and XMLHttpRequest say
        ],
    )
    def test_what_a_script_fetches_does_not(self, fields: list[str]):
        left_alone(talk(SIMPLE, answer(), ask(*fields)), answer(), Outcome.FRAGMENT)

    def test_other_methods_do_not(self):
        left_alone(talk(SIMPLE, answer(), ask(method="PUT")), answer(), Outcome.FRAGMENT)

    @pytest.mark.parametrize("kind", ["iframe", "frame", "embed", "object"])
    def test_frames_do_if_the_rule_says_so(self, kind: str):
        request = ask(f"Sec-Fetch-Dest: {kind}", "Sec-Fetch-Mode: navigate")
        left_alone(talk(SIMPLE, answer(), request), answer(), Outcome.FRAME)
        assert SEEN in page_of(talk(FRAMES, answer(), request))


class TestForms:
    def test_a_template_gets_the_values_of_the_exchange_escaped(self):
        generation = policy("{template: \"<b title='${query}'>${host} ${status} ${rule} $x</b>\"}")
        request = ask().replace(b"/a?b=1", b"/a?'&lt;onclick='x'")
        page = page_of(talk(generation, answer(), request))
        (found,) = html5lib.parse(page, namespaceHTMLElements=False).iter("b")
        assert found.attrib == {"title": "'&lt;onclick='x'"}
        assert found.text == "a.test 200 notice $x"

    def test_a_text_is_text(self):
        page = page_of(talk(policy('{text: "1 < 2 & \\"x\\"\\nÜ"}'), answer()))
        (found,) = html5lib.parse(page, namespaceHTMLElements=False).findall("body/div")
        assert found.get("role") == "note"
        assert [*found.itertext()] == ['1 < 2 & "x"', "Ü"]

    def test_a_text_goes_without_its_look_where_a_policy_forbids_style(self):
        generation = policy("{text: seen}")
        free = page_of(talk(generation, answer()))
        assert "style=" in free
        done = talk(generation, answer("Content-Security-Policy: style-src 'self'"))
        assert "style=" not in page_of(done)
        assert "seen</div>" in page_of(done)
        meta = '<head><meta http-equiv="Content-Security-Policy" content="style-src \'none\'">'
        strict = page_of(talk(generation, answer(page=PAGE.replace("<head>", meta))))
        assert "style=" not in strict
        assert "seen</div>" in strict


class TestContentSecurityPolicy:
    def test_honoured(self):
        for value in ("script-src 'self'", "default-src 'none'", "img-src *, script-src 'none'"):
            response = answer(f"Content-Security-Policy: {value}")
            left_alone(talk(policy(SCRIPT), response), response, Outcome.CSP)

    @pytest.mark.parametrize(
        "field",
        [
            "Content-Security-Policy: script-src 'unsafe-inline'",
            "Content-Security-Policy: img-src 'none'",
            f"Content-Security-Policy: script-src {GO}",
            "Content-Security-Policy-Report-Only: script-src 'none'",
        ],
    )
    def test_nothing_to_honour(self, field: str):
        head, content = read(talk(policy(SCRIPT), answer(field)).to_client)
        assert b"<script>go()</script>" in content
        assert tuple(part.encode() for part in field.split(": ")) in {
            (name.title().replace(b"Csp", b"CSP"), value) for name, value in head.headers
        }

    def test_extended_by_its_hash_in_every_header(self):
        fields = [
            "Content-Security-Policy: default-src 'self'",
            "content-security-policy: img-src *",
            "Content-Security-Policy-Report-Only: default-src 'none'",
            "Content-Security-Policy: script-src 'nonce-a'",
        ]
        head, content = read(talk(policy(EXTEND), answer(*fields)).to_client)
        assert b"<body><script>go()</script>" in content
        assert [value.decode() for name, value in head.headers if b"policy" in name] == [
            f"default-src 'self'; script-src 'self' {GO}",
            "img-src *",
            "default-src 'none'",
            f"script-src 'nonce-a' {GO}",
        ]

    def test_two_banners_extend_it_by_both(self):
        text = "version: 1\npolicy: pages\nrules:\n" + "".join(
            f"  - {{id: r{n}, layer: http_response, then: {{inject_banner: "
            f'{{html: "<script>{n}</script>", csp: extend}}}}}}\n'
            for n in (1, 2)
        )
        generation = compile_all(load_all([PolicyText("test.yaml", text.encode())], _no_file), 1)
        done = talk(generation, answer("Content-Security-Policy: script-src 'none'"))
        head, _ = read(done.to_client)
        (value,) = [v for name, v in head.headers if name == b"content-security-policy"]
        assert value.count(b"'sha256-") == 2

    def test_one_that_cannot_be_extended_is_honoured(self):
        response = answer("Content-Security-Policy: sandbox")
        left_alone(talk(policy(EXTEND), response), response, Outcome.CSP)

    @pytest.mark.parametrize("banner", [SCRIPT, EXTEND])
    def test_one_in_the_document_can_only_be_honoured(self, banner: str):
        """It shows when the head of the message has gone."""
        meta = "<META HTTP-EQUIV=content-security-policy CONTENT='script-src &apos;self&apos;'>"
        page = PAGE.replace("<title>", f"{meta}<title>")
        done = talk(policy(banner), answer(page=page))
        assert read(done.to_client)[1].decode() == page
        assert (record(done).edits, record(done).detail) == ((), "no banner: csp")
        allowed = page.replace("self", "unsafe-inline")
        assert "go()" in page_of(talk(policy(banner), answer(page=allowed)))

    def test_a_policy_that_is_too_long_to_read_counts_as_one_that_forbids(self):
        meta = f"<meta http-equiv=content-security-policy content='img-src {'a ' * 9000}'>"
        page = PAGE.replace("<title>", f"{meta}<title>")
        assert record(talk(policy(SCRIPT), answer(page=page))).detail == "no banner: csp"
        assert SEEN in page_of(talk(SIMPLE, answer(page=page)))

    def test_the_policy_that_the_client_gets_is_the_one_that_counts(self):
        generation = policy(SCRIPT, ", headers: {remove: Content-Security-Policy}")
        done = talk(generation, answer("Content-Security-Policy: script-src 'none'"))
        assert b"<script>go()</script>" in read(done.to_client)[1]
        generation = policy(SCRIPT, ", headers: {set: {Content-Security-Policy: script-src x.y}}")
        assert record(talk(generation, answer())).detail == "no banner: csp"

    def test_a_source_of_its_own_host_is_self(self):
        generation = policy('{html: "<img src=/logo.png>"}')
        request = ask(host="a.test:8080")
        for value in ("'self'", "a.test:8080", "http://a.test:*"):
            done = talk(generation, answer(f"Content-Security-Policy: img-src {value}"), request)
            assert "logo.png" in page_of(done)
        response = answer("Content-Security-Policy: img-src http://a.test")
        left_alone(talk(generation, response, request), response, Outcome.CSP)


@given(st.integers(0, 2**16), st.sampled_from(list(CODE)), st.sampled_from([SCRIPT, "{text: x}"]))
def test_nothing_depends_on_cuts(seed: int, coding: str, banner: str):
    meta = "<head><meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
    page = CODE[coding](PAGE.replace("<head>", meta).encode())
    response = answer(f"Content-Encoding: {coding}", page=page)
    generation = policy(banner)
    whole = Conversation(generation).client(GET).server(response)
    cut = Conversation(generation).client(GET).server(*in_cuts(response, seed))
    (head, content), (cut_head, cut_content) = read(whole.to_client), read(cut.to_client)
    assert head.headers == cut_head.headers
    assert DECODE[coding](content) == DECODE[coding](cut_content)
    assert whole.records == cut.records
