"""The banner editor: where it inserts, where it must not, and that it changes nothing else.

The oracle is html5lib: with a comment as the banner, the tree of the document must be the same
but for that one comment.
"""

from __future__ import annotations

from xml.dom import Node

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.content.banner import At, BannerEditor, Outcome

MARK = b"<!--BANNER-->"
START, END, HEAD = At.BODY_START, At.BODY_END, At.HEAD_END


def edit(document: bytes, at: str = START, pieces: list[bytes] | None = None) -> tuple[bytes, str]:
    editor = BannerEditor(MARK, at)
    out = b"".join([editor.feed(piece) for piece in pieces or [document]])
    out += editor.finish()
    assert editor.inserted == (editor.outcome is Outcome.INSERTED)
    return out, editor.outcome.value


def placed(template: str, at: str = START) -> None:
    """`|` is where the banner must appear; without one it must not."""
    expected = template.encode().replace(b"|", MARK)
    out, outcome = edit(template.replace("|", "").encode(), at)
    assert out == expected
    assert (outcome == "inserted") == ("|" in template)


class TestBodyStart:
    @pytest.mark.parametrize(
        "document",
        [
            "<html><head></head><body>|x</body></html>",
            "<!doctype html><title>t</title><body class=a>|x",
            "<BODY\n onload=\"if (a > b) c('>')\" x='>'>|x",
            "<body/>|x",
            "<body a=b/>|x",
            "<body ='a>|b'>x",
            "<body>|<body>",
            "<head><!-- <body> --></head><body>|",
            "<!--><body>|-->",
            "<!---><body>|-->",
            "<!-- --!><body>|-->",
            "<!-- <!-- --><body>|-->",
            "<title><body></title><body>|",
            "<title></titles><body></TITLE ><body>|",
            "<style>a::before{content:'<body>'}</style><body>|",
            "<script>if (a<body>b) '</scripts>'</script><body>|",
            "<script><!-- <script> </script> <body> --></script><body>|",
            "<script><!-- <script> </script> <body> </script><body>|",
            "<script><!--></script><body>|",
            "<noscript><body></noscript><body>|",
            "<noframes><body></noframes><body>|",
            "<template><body></template><body>|",
            "<template><template></template><body></template><body>|",
            "<meta content='<body>'><link href=\"<body>\"><body>|",
            "<?php <body> ?><body>|".replace("<body> ?>", "?>"),
            "<![CDATA[<x]]><body>|",
            "</><body>|",
            "</ a><body>|",
            "\ufeff<!doctype html><body>|x",
            "<head></p></div></head><body>|",
        ],
    )
    def test_behind_the_tag_that_opens_the_body(self, document: str):
        placed(document)

    @pytest.mark.parametrize(
        "document",
        [
            "",
            "ok",
            "<p>a fragment</p>",
            "text<body>",
            "<p><body>",
            "</body><body>",
            "<br><body>",
            "<1><body>",
            "<bodyguard>",
            "<frameset><body>",
            "<body",
            "<body a='>",
            "<title><body>",
            "<plaintext><body>",
            "<textarea><body></textarea><body>",
            "<!-- <body>",
            "<script><!--<script></script><body>",
            "<template><body>",
        ],
    )
    def test_nowhere_if_no_tag_opens_it(self, document: str):
        placed(document)
        assert edit(document.encode())[1] == "no_body"


class TestBodyEnd:
    @pytest.mark.parametrize(
        "document",
        [
            "<body>x|</body></html>",
            "<body>x|</html>",
            "<body>x|</BODY\n x='>",
            "<body>x|",
            "<p>x|</body>",
            "<html>|</html>",
            "<body><!-- </body> --><script>'</body>'</script><a b='</body>'>|</body>",
            "<body><textarea></body></textarea><xmp></body></xmp><iframe></body></iframe>|</body>",
            "<body><noembed></body></noembed>|</body>",
            "<body><template></body></template>|</body>",
            "<body><svg><title>t</title><style>a{}</style></svg><select></select>|</body>",
            "<body><svg/><style></body></style>|</body>",
            "<body><svg><![CDATA[ </body ]]></svg>|</body>",
            "<body>x<y|",
        ],
    )
    def test_before_what_ends_the_body(self, document: str):
        if document.endswith("<y|"):
            document = "<body>x<y"  # an unfinished tag swallows what is appended
        placed(document, END)

    @pytest.mark.parametrize(
        "document", ["", "ok", "<p>a fragment</p>", "<frameset></frameset></body>", "<body><!--"]
    )
    def test_nowhere_in_fragments_and_unfinished_documents(self, document: str):
        placed(document, END)

    @pytest.mark.parametrize(
        "document",
        [
            "<body><svg><style> </body> </style></svg></body>",
            "<body><svg><![CDATA[ > </body> ]]></svg></body>",
            "<body><select><plaintext></select></body>",
        ],
    )
    def test_it_gives_up_where_a_tree_would_be_needed(self, document: str):
        assert edit(document.encode(), END) == (document.encode(), "ambiguous")


class TestHeadEnd:
    @pytest.mark.parametrize(
        "document",
        [
            "<head><title></head></title>|</head><body>",
            "<title>t</title>|<body>",
            "<script>'</head>'</script>|</HEAD >",
            "<title>t</title><p>x</head>",
            "<template></head></template>|</head>",
        ],
    )
    def test_before_what_ends_the_head(self, document: str):
        placed(document, HEAD)


class TestStream:
    def test_utf16_is_left_alone(self):
        for mark, codec in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
            document = mark + "<body>x</body>".encode(codec)
            for pieces in ([document], [document[i : i + 1] for i in range(len(document))]):
                assert edit(document, START, pieces) == (document, "charset")

    def test_bytes_leave_as_soon_as_they_are_settled(self):
        editor = BannerEditor(MARK)
        assert editor.feed(b"<!doctype html><head><!-- c -->") == b"<!doctype html><head><!-- c -->"
        assert editor.feed(b"<title>t</title><bo") == b"<title>t</title>"
        assert editor.feed(b"dy>") == b"<body>" + MARK
        assert editor.feed(b"<bo") == b"<bo"

    def test_at_most_a_tag_name_is_held_back(self):
        for document in (b"<" + b"x" * 1000, b"<body " + b"x" * 1000, b"<!-- " + b"-" * 1000):
            editor, sent = BannerEditor(MARK, END), 0
            for end in range(1, len(document) + 1):
                sent += len(editor.feed(document[end - 1 : end]))
                assert end - sent <= 17

    def test_an_unknown_place_is_refused(self):
        with pytest.raises(ValueError, match="nowhere"):
            BannerEditor(MARK, "nowhere")

    @pytest.mark.parametrize(
        "piece", [b"<", b"</", b"<a b='", b"<!--", b"--", b"<script>", b"<svg>", b'<p a="b">']
    )
    @pytest.mark.timeout(30)  # what is not linear does not end
    def test_a_long_document_comes_byte_by_byte(self, piece: bytes):
        document = b"<body>" + piece * (50_000 // len(piece))
        pieces = [document[i : i + 1] for i in range(len(document))]
        assert edit(document, END, pieces) == edit(document, END, [document])


# --- generated documents

NASTY = [
    *("<html>", "<head>", "</head>", "<body>", "<body a='>'>", "</body>", "</html>", "<p>", "</p>"),
    *("<title>", "</title>", "<script>", "</script>", "<style>", "</style>", "<textarea>"),
    *("</textarea>", "<template>", "</template>", "<noscript>", "</noscript>", "<xmp>", "</xmp>"),
    *("<!--", "-->", "--!>", "<!-->", "<!doctype html>", "<![CDATA[", "]]>", "<?x", ">", "<", "</"),
    *("<svg>", "</svg>", "<math>", "</math>", "<table>", "<td>", "<div>", "</div>", '<a href="'),
    *('">', "'", "=", "/", "<br/>", "<iframe>", "</iframe>", "x", " ", "\n", "-", "<!", "&lt;"),
    *("<svg/>", "<meta charset=utf-8>", "<link a='<body>'>", "<scr", "ipt>", "<noframes>"),
]
documents = st.lists(st.sampled_from(NASTY), max_size=14).map("".join)
pages = st.builds(
    "<!doctype html><html><head>{}</head><body{}>{}</body></html>".format,
    documents,
    st.sampled_from(["", " class=x", ' a=">"', " /"]),
    documents,
)


def tree(document: bytes) -> tuple[object, int]:
    """The parsed document without our comments, and how many of them there were."""
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("dom"))
    root = parser.parse(document, transport_encoding="utf-8", scripting=True)
    found = 0

    def plain(node: Node) -> tuple[object, ...]:
        nonlocal found
        children: list[object] = [""]
        for child in node.childNodes:
            if child.nodeType == Node.COMMENT_NODE and child.data == "BANNER":
                found += 1
            elif child.nodeType == Node.TEXT_NODE:
                if not isinstance(children[-1], str):
                    children.append("")
                children[-1] += child.data
            else:
                children += [plain(child), ""]
        attributes = sorted(node.attributes.items()) if node.attributes else ()
        return (node.nodeName, node.nodeValue, tuple(attributes), *children)

    return plain(root), found


@given(documents | pages, st.sampled_from([START, END, HEAD]))
@settings(max_examples=600)
def test_the_tree_differs_by_the_banner_only(document: str, at: At):
    source = document.encode()
    out, outcome = edit(source, at)
    if outcome != "inserted":
        assert out == source
        return
    assert out.replace(MARK, b"") == source
    before, _ = tree(source)
    after, found = tree(out)
    assert (after, found) == (before, 1)


@given(documents | pages, st.sampled_from(list(At)), st.lists(st.integers(1, 40), max_size=20))
@settings(max_examples=300)
def test_the_cut_does_not_matter(document: str, at: At, sizes: list[int]):
    source = document.encode()
    whole = edit(source, at)
    assert edit(source, at, [source[i : i + 1] for i in range(len(source))]) == whole
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(source[begin : begin + size])
        begin += size
    assert edit(source, at, [*pieces, source[begin:]]) == whole


@given(st.binary(max_size=60), st.sampled_from(list(At)))
def test_any_bytes_come_out_unchanged_but_for_the_banner(data: bytes, at: At):
    out, outcome = edit(data, at)
    assert out.replace(MARK, b"", 1) == data
    assert (out != data) == (outcome == "inserted")
