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
    if node[0] == "#comment":
        return node[1] == "BANNER"
    return node[0] == "div" and ("class", "sluicegate-banner") in node[1]


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
        if child[0] == "#text" and not spaces and not str(child[1]).strip():
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
