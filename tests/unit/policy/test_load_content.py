"""Actions on content from their YAML: what they become, and what is wrong with them where."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from proxy.errors import PolicyError
from proxy.patterns import StreamPattern, literal, regex
from proxy.policy import ast
from proxy.policy.load import parse_policy

HEAD = "version: 1\npolicy: p\n"
PLAIN = "text/plain; charset=utf-8"
FILES = {
    "pages/down.html": b"<h1>${host}</h1>",
    "pages/wrong.html": b"<h1>${hots}</h1>",
    "pages/latin1.html": b"<p>caf\xe9",
    "pages/big.bin": b"x" * (1024 * 1024 + 1),
    "s/index.html": b"<p>home",
    "s/a/index.html": b"<p>a",
    "s/a/x.js": b"1",
    "s/logo.png": b"\x89PNG",
}


def read_file(path: str) -> bytes:
    if path not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[path]


def list_folder(path: str, most: int) -> Sequence[tuple[str, int]]:
    sizes = {
        "s": [(name[2:], len(data)) for name, data in FILES.items() if name.startswith("s/")],
        "many": [(f"{n}.txt", 1) for n in range(1001)],
        "large": [("a.txt", 16 * 1024 * 1024 + 1)],
        "empty": [],
    }
    if path not in sizes:
        raise FileNotFoundError(2, "No such file or directory")
    return sizes[path]


def load(then: str, layer: str) -> tuple[ast.Action, ...]:
    text = f"{HEAD}rules:\n- id: r\n  layer: {layer}\n  then: {then}\n"
    return parse_policy("p.yaml", text.encode(), read_file, list_folder).rules[0].then


def one(then: str, layer: str = "http_request") -> ast.Action:
    (action,) = load(then, layer)
    return action


def wrong(then: str, layer: str = "http_request") -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(then, layer)
    return [str(problem) for problem in caught.value.problems]


# --- banners -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("<b>x</b>", ast.InjectBanner("<b>x</b>")),
        ("{text: a < b}", ast.InjectBanner("a < b", ast.Form.TEXT)),
        (
            "{template: '${host}', at: body_end, csp: extend, frames: true}",
            ast.InjectBanner("${host}", ast.Form.TEMPLATE, "body_end", "extend", frames=True),
        ),
        ("{file: pages/down.html}", ast.InjectBanner("<h1>${host}</h1>")),
        (
            "{template_file: pages/down.html}",
            ast.InjectBanner("<h1>${host}</h1>", ast.Form.TEMPLATE),
        ),
        ("'${not} a template'", ast.InjectBanner("${not} a template")),
    ],
)
def test_banners(text: str, action: ast.Action) -> None:
    assert one(f"{{inject_banner: {text}}}", "http_response") == action


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{at: body_end}", "6:25: inject_banner without content (give exactly one of html, text"),
        ("{html: a, text: b}", "6:25: html and text together"),
        ("{template: '${hots}'}", "6:36: unknown placeholder ${hots} (did you mean 'host'?)"),
        ("{template_file: pages/wrong.html}", "6:41: unknown placeholder ${hots}"),
        ("{file: pages/latin1.html}", "6:32: banner pages/latin1.html is not UTF-8"),
        ("{file: no.html}", "6:32: cannot read no.html: No such file or directory"),
        ("{html: a, csp: extnd}", "(did you mean 'extend'?)"),
        ("{html: a, frames: 1}", "the number 1 as frames, expected true or false"),
    ],
)
def test_mistakes_of_banners(text: str, expected: str) -> None:
    (problem,) = wrong(f"{{inject_banner: {text}}}", "http_response")
    assert expected in problem


# --- replacements --------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["http_request", "http_response"])
@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("{secret: '***'}", [(literal("secret"), "***")]),
        ("{a: b, c: ''}", [(literal("a"), "b"), (literal("c"), "")]),
        ("{literal: a, by: b}", [(literal("a"), "b")]),
        (
            "[{literal: A, by: b, ignore_case: true}, {regex: '([0-9]{4})x', by: '\\1'}]",
            [(literal("A", ignore_case=True), "b"), (regex("([0-9]{4})x"), "\\1")],
        ),
    ],
)
def test_replacements(layer: str, text: str, items: list[tuple[StreamPattern, str]]) -> None:
    made = tuple(ast.Replacement(pattern, by) for pattern, by in items)
    assert one(f"{{replace_body: {text}}}", layer) == ast.Replace(made)


def test_raw_replacements_are_one_search_in_each_direction() -> None:
    def pairs(*texts: str) -> tuple[ast.Replacement, ...]:
        return tuple(ast.Replacement(literal(text), "x") for text in texts)

    assert load("{replace: {a: x, b: x}}", "stream") == (ast.Replace(pairs("a", "b"), "both"),)
    inbound = "{literal: a, by: x, direction: inbound}"
    assert load(f"{{replace: {inbound}}}", "stream") == (ast.Replace(pairs("a"), "inbound"),)
    outbound = "{literal: c, by: x, direction: outbound}"
    both = "{literal: b, by: x}"
    assert load(f"{{replace: [{inbound}, {both}, {outbound}]}}", "stream") == (
        ast.Replace(pairs("b", "c"), "outbound"),
        ast.Replace(pairs("a", "b"), "inbound"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "a list as replace_body, expected at least one entry"),
        ("{}", "the key 'by' is missing"),
        ("[{literal: a}]", "6:25: the key 'by' is missing"),
        ("[{literal: a, by: b}, {regex: 'a+', by: b}]", "6:54: "),
        ("{regex: 'a+', by: b}", "6:32: "),
        ("[{regex: '(?=a)', by: b}]", "RE2 has no look-around"),
        ("[{regex: '(a)', by: '\\2'}]", "6:25: \\2 in a replacement (the pattern has 1 groups)"),
        ("[{regex: 'a', by: '\\x'}]", "'\\x' in a replacement"),
        ("[{regex: a, by: b, ignore_case: true}]", "ignore_case with a regex (begin the pattern"),
        ("[{literal: a, regex: b, by: c}]", "literal and regex together"),
        ("[{by: c}]", "a replacement without content (give exactly one of literal, regex)"),
        ("[{literal: '', by: c}]", "6:35: an empty text would be found everywhere"),
        ("[{litteral: a, by: c}]", "unknown key 'litteral'"),
        ("[{literal: a, by: c, direction: inbound}]", "unknown key 'direction'"),
        ("{a: 5}", 'the number 5 as by, expected text (quote it: "5")'),
    ],
)
def test_mistakes_of_replacements(text: str, expected: str) -> None:
    assert any(expected in problem for problem in wrong(f"{{replace_body: {text}}}"))


# --- content -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("Hello", ast.Content(b"Hello", PLAIN)),
        ("{text: ''}", ast.Content(b"", PLAIN)),
        ("{text: '{}', content_type: application/json}", ast.Content(b"{}", "application/json")),
        (
            "{template: '<p>${url}', content_type: text/html}",
            ast.Content(b"<p>${url}", "text/html; charset=utf-8", template=True),
        ),
        ("{text: é, content_type: text/html; charset=UTF-8}", None),
        (
            "{file: pages/down.html}",
            ast.Content(b"<h1>${host}</h1>", "text/html; charset=utf-8"),
        ),
        (
            "{template_file: pages/down.html}",
            ast.Content(b"<h1>${host}</h1>", "text/html; charset=utf-8", template=True),
        ),
        ("{file: pages/latin1.html}", ast.Content(b"<p>caf\xe9", "text/html")),
        ("{file: s/logo.png}", ast.Content(b"\x89PNG", "image/png")),
    ],
)
def test_set_body(text: str, content: ast.Content | None) -> None:
    if content is None:
        content = ast.Content("é".encode(), "text/html; charset=UTF-8")
    for layer in ("http_request", "http_response"):
        assert one(f"{{set_body: {text}}}", layer) == ast.SetBody(content)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("503", ast.Respond(503, ast.Content(b"", PLAIN))),
        ("{}", ast.Respond(200, ast.Content(b"", PLAIN))),
        (
            "{status: 503, text: down, headers: {Retry-After: '60'}}",
            ast.Respond(503, ast.Content(b"down", PLAIN), (("Retry-After", "60"),)),
        ),
    ],
)
def test_respond(text: str, action: ast.Action) -> None:
    assert one(f"{{respond: {text}}}") == action


def test_remove_body() -> None:
    assert one("{remove_body: true}", "http_response") == ast.RemoveBody()


@pytest.mark.parametrize(
    ("text", "layer", "expected"),
    [
        ("{set_body: {}}", "http_request", "set_body without content"),
        ("{set_body: {text: a, file: b}}", "http_request", "text and file together"),
        ("{set_body: {text: a, content_type: html}}", "http_request", "'html' is not a media type"),
        ("{set_body: {file: pages/big.bin}}", "http_request", "too large (at most 1048576 bytes)"),
        ("{set_body: {file: ../x}}", "http_request", "leaves the policy directory"),
        ("{remove_body: false}", "http_request", "remove_body takes nothing but true"),
        ("{remove_body: true, set_body: x}", "http_response", "6:29: set_body and remove_body exc"),
        (
            "{set_body: x, replace_body: {a: b}}",
            "http_request",
            "6:23: replace_body and set_body exclude each other",
        ),
        ("{remove_body: true, inject_banner: x}", "http_response", "exclude each other"),
        ("{respond: 99}", "http_request", "expected at least 200"),
        ("{respond: true}", "http_request", "true as respond, expected a mapping"),
        ("{respond: {status: 204, text: x}}", "http_request", "status 204 has no content"),
        ("{respond: {headers: {Content-Length: '3'}}}", "http_request", "Content-Length cannot be"),
        ("{respond: {headers: {connection: close}}}", "http_request", "connection cannot be"),
        ("{respond: {headers: {Proxy-Status: a}}}", "http_request", "Proxy-Status cannot be"),
        ("{respond: {headers: {Content-Type: a}}}", "http_request", "write content_type"),
        ('{respond: {headers: {A: "x\\ny"}}}', "http_request", "a header value with"),
        ("{respond: 503, permit: true}", "http_request", "permit is never reached: respond ends"),
        ("{respond: 503}", "http_response", "respond is not possible at http_response"),
        ("{replace_body: {a: b}}", "stream", "replace_body is not possible at stream"),
        ("{replace: {a: b}}", "http_request", "replace is not possible at http_request"),
        ("{set_body: x}", "http_request_body", "set_body is not possible at http_request_body"),
    ],
)
def test_mistakes_of_content(text: str, layer: str, expected: str) -> None:
    problems = wrong(text, layer)
    assert len(problems) == 1
    assert expected in problems[0]


# --- block with hold -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hold"), [("true", 0), ("{hold: 64KiB}", 65536), ("{hold: 1MiB}", 1 << 20)]
)
def test_a_block_of_content_shows_a_page_and_may_hold(text: str, hold: int) -> None:
    for layer in ("http_request_body", "http_response_body"):
        assert one(f"{{block: {text}}}", layer) == ast.Block(how="page", hold=hold)


@pytest.mark.parametrize(
    ("text", "layer", "expected"),
    [
        ("{hold: 2MiB}", "http_response_body", "'2MiB' as hold, expected at most 1048576"),
        ("{hold: much}", "http_response_body", "'much' as a size, expected a number, or a size"),
        ("{hold: 1KiB}", "http_response", "hold has no effect at http_response (it holds content"),
        ("{hold: 1KiB}", "auth_connect", "hold has no effect at auth_connect"),
        ("{hold: 1KiB, how: drop}", "http_response_body", "hold has no effect"),
    ],
)
def test_mistakes_of_hold(text: str, layer: str, expected: str) -> None:
    (problem,) = wrong(f"{{block: {text}}}", layer)
    assert expected in problem


# --- local files ---------------------------------------------------------------------------


def etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'


def test_a_folder_of_local_files() -> None:
    action = one("{map_local: {prefix: /static, dir: s/, missing: pass}}")
    assert isinstance(action, ast.MapLocal)
    assert (action.prefix, action.missing) == ("/static/", "pass")
    paths = ["", "a/", "a/index.html", "a/x.js", "index.html", "logo.png"]
    assert sorted(action.files) == paths
    assert action.files["a/"] == action.files["a/index.html"]
    script = action.files["a/x.js"]
    assert script == ast.LocalFile("text/javascript; charset=utf-8", b"1", etag(b"1"))


def test_one_local_file() -> None:
    action = one("{map_local: {path: /logo, file: s/logo.png}}")
    assert isinstance(action, ast.MapLocal)
    assert (action.prefix, action.missing) == ("/logo", "pass")
    assert dict(action.files) == {
        "": ast.LocalFile("image/png", b"\x89PNG", etag(b"\x89PNG")),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{prefix: /a/}", "needs another set of keys (give prefix and dir, or path and file)"),
        ("{path: /a, file: s/logo.png, missing: pass}", "needs another set of keys"),
        ("{prefix: a/, dir: s}", "'a/' is not the path of a URL"),
        ("{prefix: /a%20b/, dir: s}", "'/a%20b/' is not the path of a URL"),
        ("{prefix: /a/../b/, dir: s}", "is not the path of a URL"),
        ("{prefix: /a/, dir: /etc}", "path '/etc' leaves the policy directory"),
        ("{prefix: /a/, dir: ../s}", "leaves the policy directory"),
        ("{prefix: /a/, dir: none}", "6:40: cannot read none: No such file or directory"),
        ("{prefix: /a/, dir: empty}", "empty has no files"),
        ("{prefix: /a/, dir: many}", "many has too many files (at most 1000)"),
        ("{prefix: /a/, dir: large}", "large is too large (at most 16777216 bytes)"),
        ("{prefix: /a/, dir: s, missing: 404}", "the number 404 as missing, expected text"),
    ],
)
def test_mistakes_of_local_files(text: str, expected: str) -> None:
    assert any(expected in problem for problem in wrong(f"{{map_local: {text}}}"))
