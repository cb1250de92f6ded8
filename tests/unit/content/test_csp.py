"""A Content-Security-Policy against a piece of HTML: honoured, and extended for it alone."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.content.csp import Wish, parse
from proxy.content.csp_needs import needs
from proxy.content.csp_source import resolve

PAGE = "http://site.example/dir/page.html"
SCRIPT = b"<script>go()</script>"
STYLE = b"<style>p{color:red}</style>"
STYLED = b'<p style="color:red">x</p>'
HANDLER = b'<p onclick="go(&quot;x&quot;)">x</p>'
LINK = b'<a href=" java&#10;script:1">x</a><a href="javascript:go()">x</a>'


def digest(text: str, algorithm: str = "sha256") -> str:
    raw = hashlib.new(algorithm, text.encode()).digest()
    return f"'{algorithm}-{base64.b64encode(raw).decode()}'"


GO = digest("go()")
RED = digest("color:red")
CALL = digest('go("x")')


def forbidden(policy: str, html: bytes = SCRIPT) -> bool:
    return Wish(needs(html), PAGE).forbidden([policy])


def extended(policy: str, html: bytes = SCRIPT) -> str | None:
    made = Wish(needs(html), PAGE).extend([policy.encode()])
    return None if made is None else made[0].decode()


class TestHonoured:
    @pytest.mark.parametrize(
        "policy",
        [
            "",
            "img-src 'none'; frame-ancestors 'none'",
            "script-src 'unsafe-inline'",
            "script-src 'self' 'UNSAFE-INLINE'",
            "default-src 'none'; script-src 'unsafe-inline'",
            "script-src 'none'; script-src-elem 'unsafe-inline'",
            f"script-src {GO}",
            f"script-src {digest('go()', 'sha512')}",
            f"script-src {digest('go()', 'sha384').replace('+', '-').replace('/', '_')}",
            "script-src 'unsafe-inline'; script-src 'none'",  # the first one counts
            "sandbox allow-scripts",
        ],
    )
    def test_an_inline_script_is_allowed(self, policy: str):
        assert not forbidden(policy)

    @pytest.mark.parametrize(
        "policy",
        [
            "default-src 'self'",
            "script-src",
            "script-src 'none'",
            "script-src 'nonce-abc' 'unsafe-inline'",
            f"script-src 'unsafe-inline' {digest('other()')}",
            "script-src 'unsafe-inline' 'strict-dynamic'",
            "script-src 'unsafe-inline'; script-src-elem 'self'",
            "SCRIPT-SRC 'self'",
            "img-src *, script-src 'self'",  # every policy of a line must allow it
            "sandbox",
        ],
    )
    def test_an_inline_script_is_forbidden(self, policy: str):
        assert forbidden(policy)

    @pytest.mark.parametrize(
        ("html", "policy", "forbids"),
        [
            (STYLE, "style-src 'self'", True),
            (STYLE, "script-src 'none'", False),
            (STYLE, f"style-src {digest('p{color:red}')}", False),
            (STYLE, "style-src-attr 'none'", False),
            (STYLED, f"style-src {RED}", True),  # an attribute's needs 'unsafe-hashes' too
            (STYLED, f"style-src 'unsafe-hashes' {RED}", False),
            (STYLED, "style-src 'self'; style-src-attr 'unsafe-inline'", False),
            (HANDLER, "script-src 'self'", True),
            (HANDLER, f"script-src-attr 'unsafe-hashes' {CALL}", False),
            (LINK, "script-src 'self'", True),
            (LINK, "style-src 'none'", False),
            (b"<p>text</p>", "default-src 'none'", False),
            (b"<script type='application/json'>{}</script>", "script-src 'none'", False),
            (b"<script type=module>x</script>", "script-src 'none'", True),
            (b"<!-- <script>x</script> --><title><script></title>", "script-src 'none'", False),
            (b"<iframe srcdoc='&lt;script>go()&lt;/script>'></iframe>", "script-src 'none'", True),
            (b"<svg><script>a<b</script></svg>", "script-src 'none'", True),
        ],
    )
    def test_whatever_is_inline_asks_its_own_directive(self, html, policy, forbids):
        assert forbidden(policy, html) == forbids

    @pytest.mark.parametrize(
        ("source", "url", "allowed"),
        [
            ("*", "https://x.example/a.png", True),
            ("*", "data:image/png;base64,AA", False),
            ("data:", "data:image/png;base64,AA", True),
            ("'self'", "/a.png", True),
            ("'self'", "a.png", True),
            ("'self'", "//site.example/a.png", True),
            ("'self'", "https://site.example/a.png", True),  # made secure
            ("'self'", "http://site.example:8080/a.png", False),
            ("'self'", "https://x.example/a.png", False),
            ("http:", "https://x.example/a.png", True),
            ("https:", "http://x.example/a.png", False),
            ("x.example", "http://x.example/a.png", True),
            ("X.Example", "https://x.EXAMPLE/a.png", True),
            ("https://x.example", "http://x.example/a.png", False),
            ("x.example", "http://www.x.example/a.png", False),
            ("*.x.example", "http://www.x.example/a.png", True),
            ("*.x.example", "http://x.example/a.png", False),
            ("x.example:*", "http://x.example:81/a.png", True),
            ("x.example", "http://x.example:81/a.png", False),
            ("x.example:80", "https://x.example/a.png", True),
            ("x.example/img/", "http://x.example/img/a.png", True),
            ("x.example/img/", "http://x.example/a.png", False),
            ("x.example/a%2epng", "http://x.example/a.png", True),
            ("/dir/", "/dir/a.png", False),  # not a source expression
            ("'none'", "/a.png", False),
            ("*", "http://[", False),
        ],
    )
    def test_what_is_fetched_is_held_against_the_sources(self, source, url, allowed):
        html = f'<img src="{url}">'.encode()
        assert forbidden(f"img-src {source}", html) == (not allowed)
        assert forbidden(f"default-src {source}", html) == (not allowed)
        assert not forbidden(f"img-src *  data: http: ; media-src {source}", html) or "[" in url

    def test_elements_that_fetch(self):
        fetches = {
            "script-src": "<script src=/x></script>",
            "style-src": "<link rel='alternate StyleSheet' href=/x>",
            "img-src": "<img srcset='/x 1x, /y 2x'>",
            "frame-src": "<iframe src=/x></iframe>",
            "child-src": "<iframe src=/x></iframe>",
            "media-src": "<video src=/x></video>",
            "object-src": "<object data=/x></object>",
            "manifest-src": "<link rel=manifest href=/x>",
            "base-uri": "<base href=/x>",
            "form-action": "<form action=/x></form>",
        }
        for directive, html in fetches.items():
            assert forbidden(f"{directive} 'none'", html.encode()), directive
            assert not forbidden(f"{directive} 'self'", html.encode()), directive
            assert not forbidden("font-src 'none'", html.encode())
        assert not forbidden("default-src 'none'", b"<base href=/x>")

    def test_long_attributes_are_read_whole(self):
        style = "color:red;" * 5000
        policy = f"style-src 'unsafe-hashes' {digest(style)}; img-src data:"
        html = f"<img style='{style}' src='data:image/png;base64,{'A' * 50000}'>".encode()
        assert not forbidden(policy, html)
        assert forbidden(policy, html.replace(b"red", b"blue"))

    def test_an_external_script_under_strict_dynamic(self):
        policy = f"script-src 'strict-dynamic' 'nonce-a' 'self' {GO}"
        assert forbidden(policy, b"<script src=/x></script>")
        signed = f"<script src=/x integrity={GO.strip(chr(39))}></script>"
        assert not forbidden(policy, signed.encode())


class TestExtended:
    @pytest.mark.parametrize(
        ("before", "html", "after"),
        [
            ("script-src 'self'", SCRIPT, f"script-src 'self' {GO}"),
            ("script-src 'none'", SCRIPT, f"script-src {GO}"),
            ("script-src", SCRIPT, f"script-src {GO}"),
            ("script-src-elem a.b; script-src", SCRIPT, f"script-src-elem a.b {GO}; script-src"),
            (
                "default-src 'self'; img-src *",
                SCRIPT,
                f"default-src 'self'; img-src *; script-src 'self' {GO}",
            ),
            ("default-src 'none'", SCRIPT, f"default-src 'none'; script-src {GO}"),
            ("script-src 'nonce-a' 'strict-dynamic'", SCRIPT, None),
            ("script-src 'unsafe-inline'", SCRIPT, "script-src 'unsafe-inline'"),
            (
                "default-src 'unsafe-inline' 'nonce-a'",
                SCRIPT,
                f"default-src 'unsafe-inline' 'nonce-a'; script-src 'unsafe-inline' 'nonce-a' {GO}",
            ),
            (
                "style-src 'self'",
                STYLED,
                f"style-src 'self'; style-src-attr 'self' 'unsafe-hashes' {RED}",
            ),
            (
                "default-src 'none'",
                b"<img src=https://cdn.example:8443/a.png><img src=/b.png>",
                "default-src 'none'; img-src https://cdn.example:8443 'self'",
            ),
            (
                "child-src 'self'",
                b"<iframe src=//b.example></iframe>",
                "child-src 'self'; frame-src 'self' http://b.example",
            ),
            ("img-src 'self'", b"<img src=data:x>", "img-src 'self' data:"),
            ("script-src a.b", b"<script src=http://c.d/x></script>", "script-src a.b http://c.d"),
        ],
    )
    def test_by_what_is_needed(self, before: str, html: bytes, after: str | None):
        if after is None:
            after = f"{before} {GO}"
        assert extended(before, html) == after
        assert not forbidden(after, html)

    @pytest.mark.parametrize(
        ("policy", "html"),
        [
            ("script-src 'self'", b"<script src=data:x></script>"),  # would let anything in
            ("frame-src 'self'", b"<iframe src=data:x></iframe>"),
            ("script-src 'strict-dynamic'", b"<script src=/x></script>"),
            ("sandbox", SCRIPT),
            ("img-src 'self'", b"<img src='http://['>"),
            ("script-src 'self'", b"<svg><script>a<b</script></svg>"),
        ],
    )
    def test_not_where_that_cannot_be_said(self, policy: str, html: bytes):
        assert forbidden(policy, html)
        assert extended(policy, html) is None

    def test_every_policy_of_every_line_and_no_other(self):
        lines = [b"img-src  *", b"script-src 'self',default-src 'none' ; img-src *,", b"\xff x"]
        made = Wish(needs(SCRIPT), PAGE).extend(lines)
        assert made == (
            b"img-src  *",
            f"script-src 'self' {GO}, default-src 'none'; img-src *; script-src {GO}".encode(),
            b"\xff x",
        )

    def test_with_strict_dynamic_an_external_script_goes_by_its_integrity(self):
        html = f"<script src=/x integrity={GO.strip(chr(39))}></script>".encode()
        assert extended("script-src 'strict-dynamic'", html) == f"script-src 'strict-dynamic' {GO}"


WORDS = [
    *("'self'", "'none'", "'unsafe-inline'", "'unsafe-hashes'", "'strict-dynamic'", "'nonce-abc'"),
    *(
        "https:",
        "data:",
        "*",
        "x.example",
        digest("other()"),
        GO,
        RED,
        "nonsense",
        "'report-sample'",
    ),
]
NAMES = [
    *("default-src", "script-src", "script-src-elem", "script-src-attr", "style-src", "img-src"),
    *("style-src-elem", "style-src-attr", "child-src", "frame-src", "sandbox", "report-uri"),
]
directives = st.builds(
    lambda name, words: " ".join([name, *words]),
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(WORDS), max_size=4),
)
policies = st.lists(directives, max_size=4).map("; ".join)
PARTS = [SCRIPT, STYLE, STYLED, HANDLER, b"<script>other()</script>", b"<img src=http://y.example>"]


@given(policies, st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map(b"".join))
def test_an_extension_allows_what_is_needed_and_takes_nothing_away(policy: str, html: bytes):
    after = extended(policy, html)
    if after is None:
        assert "sandbox" in policy
        return
    assert not forbidden(after, html)
    for other in PARTS:
        if not forbidden(policy, other):
            assert not forbidden(after, other)
    for other in (b"<script>evil()</script>", b"<p onclick=evil()>", b"<p style=evil>"):
        assert forbidden(policy, other) == forbidden(after, other)


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_is_too_strange(text: str, url: str):
    wish = Wish(needs(f"<img src='{url}'>{text}".encode("ascii", "xmlcharrefreplace")), url)
    wish.forbidden([text])
    wish.extend([text.encode()])
    parse(text)
    resolve(text, url)
