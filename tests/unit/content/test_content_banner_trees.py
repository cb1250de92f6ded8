"""Independent parsers on documents with and without a banner: the tree differs by it alone.

html5lib and lexbor read the same standard. A comment as the banner must change nothing else
anywhere; a visible note must not where it begins the body, and at the body's end wherever all
elements that it could close are closed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from xml.dom import Node

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from proxy.content.banner import BannerEditor
from proxy.content.insertion import At
from proxy.content.markup import note

MARK = b"<!--BANNER-->"
NOTE = note("Traffic is inspected.\nBy policy & law.", At.BODY_START, styled=True)
START, END, HEAD = At.BODY_START, At.BODY_END, At.HEAD_END

Tree = tuple[object, ...]


def edit(
    document: bytes, at: At, banner: bytes = MARK, sizes: tuple[int, ...] = ()
) -> tuple[bytes, str]:
    editor, out, begin = BannerEditor(banner, at), b"", 0
    for size in sizes:
        out += editor.feed(document[begin : begin + size])
        begin += size
    out += editor.feed(document[begin:]) + editor.finish()
    return out, editor.outcome.value


# --- what the parsers say: (name, attributes, children), text joined, our node taken out


def by_html5lib(document: bytes) -> Tree:
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("dom"))
    root = parser.parse(document, transport_encoding="utf-8", scripting=True)
    return _plain(root)


def _plain(node: Node) -> Tree:
    if node.nodeType in (Node.TEXT_NODE, Node.COMMENT_NODE, Node.DOCUMENT_TYPE_NODE):
        return (node.nodeName, node.nodeValue)
    attributes = tuple(sorted(node.attributes.items())) if node.attributes else ()
    return (node.nodeName, attributes, *(_plain(child) for child in node.childNodes))


def by_lexbor(document: bytes) -> Tree:
    """It reads as a browser that runs no scripts."""
    root = LexborHTMLParser(document.decode("utf-8", "replace")).root
    assert root is not None
    assert root.parent is not None
    return ("#document", (), *map(_lexbor, root.parent.iter(include_text=True)))


def _lexbor(node) -> Tree:
    if node.tag in ("-text", "-comment", "-doctype"):
        name = {"-text": "#text", "-comment": "#comment"}.get(node.tag, node.tag)
        return (name, node.comment_content if name == "#comment" else node.text_content)
    attributes = tuple(sorted((k, v or "") for k, v in node.attributes.items()))
    inside = [("inner", node.inner_html)] if node.tag == "template" else []
    return (node.tag, attributes, *inside, *map(_lexbor, node.iter(include_text=True)))


def is_banner(node: Tree) -> bool:
    if not isinstance(node[1], tuple):
        return node == ("#comment", "BANNER")
    return ("class", "sluicegate-banner") in node[1] or ("name", "notice") in node[1]


def without(node: Tree, *, spaces: bool = True) -> tuple[Tree, int]:
    """The tree without our node, and how often it was there. `spaces`: keep white space."""
    if not isinstance(node[1], tuple):
        return node, 0
    children: list[Tree] = []
    found = 0
    for child in node[2:]:
        if is_banner(child):
            found += 1
            continue
        child, below = without(child, spaces=spaces)
        found += below
        if child[0] == "#text" and not spaces:
            child = ("#text", str(child[1]).strip())
        if child == ("#text", ""):
            continue
        if child[0] == "#text" and children and children[-1][0] == "#text":
            children[-1] = ("#text", f"{children[-1][1]}{child[1]}")
        else:
            children.append(child)
    return (node[0], node[1], *children), found


PARSERS = [by_html5lib, by_lexbor]


def differs_by_the_banner(source: bytes, out: bytes, *, spaces: bool = True) -> None:
    for parse in PARSERS:
        before = without(parse(source), spaces=spaces)
        after = without(parse(out), spaces=spaces)
        assert after == (before[0], 1), parse.__name__


# --- nasty documents, put together by chance

NASTY = [
    *("<html>", "<head>", "</head>", "<body>", "<body a='>'>", "</body>", "</html>", "<p>", "</p>"),
    *("<title>", "</title>", "<script>", "</script>", "<style>", "</style>", "<textarea>"),
    *("</textarea>", "<template>", "</template>", "<noscript>", "</noscript>", "<xmp>", "</xmp>"),
    *("<!--", "-->", "--!>", "<!-->", "<!doctype html>", "<![CDATA[", "]]>", "<?x", ">", "<", "</"),
    *("<svg>", "</svg>", "<math>", "</math>", "<table>", "<td>", "<div>", "</div>", '<a href="'),
    *('">', "'", "=", "/", "<br/>", "<iframe>", "</iframe>", "x", " ", "\n", "-", "<!", "&lt;"),
    *("<svg/>", "<meta charset=utf-8>", "<link a='<body>'>", "<scr", "ipt>", "<noframes>"),
    *(
        "<frameset>",
        "</frameset>",
        "<select>",
        "</select>",
        "<b>",
        "<option>",
        "<a href=x>",
        "<li>",
    ),
]
documents = st.lists(st.sampled_from(NASTY), max_size=14).map("".join)
pages = st.builds(
    "<!doctype html><html><head>{}</head><body{}>{}</body></html>".format,
    documents,
    st.sampled_from(["", " class=x", ' a=">"', " /"]),
    documents,
)


@given(documents | pages, st.sampled_from([START, END, HEAD]))
@settings(max_examples=500)
def test_a_comment_changes_nothing_else(document: str, at: At):
    source = document.encode()
    out, outcome = edit(source, at)
    if outcome != "inserted":
        assert out == source
        return
    assert out.replace(MARK, b"") == source
    differs_by_the_banner(source, out)


@given(documents | pages)
@settings(max_examples=300)
def test_a_note_that_begins_the_body_changes_nothing_else(document: str):
    source = document.encode()
    out, outcome = edit(source, START, NOTE)
    if outcome == "inserted":
        differs_by_the_banner(source, out)


@given(documents | pages, st.sampled_from(list(At)), st.lists(st.integers(1, 40), max_size=20))
@settings(max_examples=300)
def test_the_cut_does_not_matter(document: str, at: At, sizes: list[int]):
    source = document.encode()
    whole = edit(source, at)
    assert edit(source, at, sizes=(1,) * len(source)) == whole
    assert edit(source, at, sizes=tuple(sizes)) == whole


# --- pages as people write them

HEADS = [
    '<meta charset="utf-8"><title>News &amp; views</title>',
    "<title>How </body> and <body> work</title>",
    '<meta name="description" content="<body> > </head>"><base href="/">',
    "<style>body > p::before { content: '</body><body>' }</style>",
    "<script>document.write('<body></body></head>'); if (1 < 2 && '</scr' + 'ipt>') x()</script>",
    "<script><!--\n  var s = '<script>alert(1)</script>';\n//--></script>",
    '<script type="application/ld+json">{"@type": "WebPage", "name": "</body>"}</script>',
    "<!-- <body class=old> --><!--[if IE]><body class=ie><![endif]-->",
    "<!--[if !IE]><!--><meta name=x><!--<![endif]-->",
    "<noscript><link rel=stylesheet href='a.css'></noscript>",
    "<template><body><p>not yet</p></body></template>",
    "<LINK REL='icon' HREF=favicon.ico><META NAME=viewport CONTENT=\"width=device-width\">",
]
BLOCKS = [
    "<p>Plain text with &lt;body&gt; and a &amp; and 1 < 2.</p>",
    "<table><thead><tr><th>a<tbody><tr><td>1<td>2<tr><td colspan=2>3</table>",
    "<ul><li>one<li>two<ul><li>deep</ul></ul><dl><dt>t<dd>d</dl>",
    "<svg viewBox='0 0 9 9'><title>t</title><style>.a{fill:red}</style><path d='M0'/><g></g></svg>",
    "<svg><desc><![CDATA[ 1 & 2 ]]></desc><foreignObject><p>in</p></foreignObject></svg>",
    "<math><mi>x</mi><annotation-xml encoding='text/html'><b>y</b></annotation-xml></math>",
    "<form action=/s><input value='</body>'><select><option>1<option selected>2</select></form>",
    "<textarea></body><body></textarea><button onclick=\"if (a > b) go('</body>')\">ok</button>",
    "<script>var page = '</body></html><body>'; for (i = 0; i < n; i++) t('<' + '/body>')</script>",
    "<style>@media (width > 9px) { a { content: '</body>' } }</style>",
    "<!-- </body></html> --><!-- a -- b --!><!----><!-->",
    "<iframe src=x></body></iframe><noscript><p></body></p></noscript><xmp></body></xmp>",
    "<b><i>misnested</b></i> <a href='?a=1&b=2'>link</a><br/><hr><img src=x alt='a > b'>",
    "<template><div></body></div><template></html></template></template>",
    "<pre>\n  <code>&lt;body></code>\n</pre><blockquote><p>one<p>two</blockquote>",
    "<details><summary>s</summary>d</details><video controls><source src=v></video>",
    "<DIV CLASS=Upper>UPPER<P>case</DIV><custom-element a=1><slot></slot></custom-element>",
    "<p>Grüße, 世界 \U0001f600</p><ruby>漢<rp>(<rt>kan<rp>)</ruby>",
    "</p></unknown><p></p></div><? php ?><!doctype again></ >",
]
SHELLS = [
    "<!DOCTYPE html>\n<html lang=en>\n<head>\n{}\n</head>\n<body>\n{}\n</body>\n</html>\n",
    "<!doctype html><html><head>{}</head><body class='a b' data-x='>'>{}</body></html>",
    "<!DOCTYPE HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'><HTML><HEAD>{}</HEAD><BODY>{}</BODY></HTML>",
    "<html>{}<body>{}",
    "\ufeff<!doctype html>{}<body onload='x(\"<body>\")'>{}</html>",
    "<!-- 1 --><!doctype html><html ><head >{}</head ><body\n>{}</body\n></html\n><!-- 2 -->",
]


def pages_of(seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for shell in SHELLS:
        for _ in range(8):
            head = "\n".join(rng.sample(HEADS, rng.randrange(5)))
            body = "\n".join(rng.sample(BLOCKS, rng.randrange(1, 6)))
            yield shell.format(head, body).encode()


def whole_pages() -> list[bytes]:
    every = [SHELLS[0].format("\n".join(HEADS), "\n".join(BLOCKS)).encode()]
    every += [SHELLS[1].format(head, block).encode() for head in HEADS for block in BLOCKS[:2]]
    every += [SHELLS[1].format(HEADS[0], block).encode() for block in BLOCKS]
    return every + [page for seed in range(6) for page in pages_of(seed)]


PAGES = whole_pages()


@pytest.mark.parametrize("at", list(At))
@pytest.mark.parametrize("banner", [MARK, NOTE], ids=["comment", "note"])
def test_pages_differ_by_the_banner_alone(at: At, banner: bytes):
    if at is HEAD and banner is NOTE:
        banner = note("seen", HEAD, styled=False)
    for page in PAGES:
        out, outcome = edit(page, at, banner)
        assert outcome == "inserted", page
        assert out.replace(banner, b"", 1) == page
        differs_by_the_banner(page, out)


@pytest.mark.parametrize(
    "body", ["<p>one<p>two\n", "<ul><li>a<li>b", "<div><b><i>x", "<table><tr><td>x", "<b><p>x</b>y"]
)
def test_a_note_at_the_end_leaves_open_elements_but_for_white_space(body: str):
    """A <div> ends an open <p>, so that a line end behind </body> falls into the body."""
    page = SHELLS[0].format("", body).encode()
    out, outcome = edit(page, END, NOTE)
    assert outcome == "inserted"
    differs_by_the_banner(page, out, spaces=False)


def test_every_cut_of_a_page_gives_the_same():
    page = SHELLS[5].format(HEADS[5], "\n".join(BLOCKS[3:9])).encode()
    for at in At:
        whole = edit(page, at)
        for cut in range(len(page)):
            assert edit(page, at, sizes=(cut,)) == whole
