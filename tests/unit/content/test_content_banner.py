"""The banner editor: where it inserts, where it must not, and that it changes nothing else.

What a parser makes of the documents that come out is asked in test_content_banner_trees.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.content.banner import BannerEditor
from proxy.content.insertion import LATE_BYTES, At, Outcome

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
            "<bodyguard>",
            "<frameset><body>",
            "<body",
            "<body a='>",
            "<title><body>",
            "<plaintext><body>",
            "<textarea><body></textarea>",
            "<!-- <body>",
            "<script><!--<script></script><body>",
            "<template><body>",
            "x" + " " * LATE_BYTES + "<body>",
            "x<svg><style><body></style></svg>",
        ],
    )
    def test_nowhere_if_there_is_no_such_tag(self, document: str):
        placed(document)
        assert edit(document.encode())[1] == "no_body"

    @pytest.mark.parametrize(
        "document",
        [
            "text<body>",
            "<p>a</p><body class=x>b",
            "</body><body>",
            "<br><body>",
            "<1><body>",
            "<textarea><body></textarea><body>",
            "x" + " " * (LATE_BYTES - 1) + "<body>",
        ],
    )
    def test_nowhere_if_content_has_opened_the_body_before_its_tag(self, document: str):
        for at in (START, HEAD):
            assert edit(document.encode(), at) == (document.encode(), "late")

    def test_a_document_without_a_body_is_not_kept_waiting(self):
        editor = BannerEditor(MARK)
        assert editor.feed(b"<p>x</p><bo") == b"<p>x</p><bo"
        assert editor.outcome is Outcome.PENDING
        assert editor.feed(b"dy>") == b"dy>"
        assert editor.outcome is Outcome.LATE


class TestBodyEnd:
    @pytest.mark.parametrize(
        "document",
        [
            "<body>x|</body></html>",
            "<body>x|</html>",
            "<body>x|</BODY\n x='>",
            "<body>x|",
            "<p>x|</body>",
            "<html>x|</html>",
            "<body><!-- </body> --><script>'</body>'</script><a b='</body>'>|</body>",
            "<body><textarea></body></textarea><xmp></body></xmp><iframe></body></iframe>|</body>",
            "<body><noembed></body></noembed>|</body>",
            "<body><template></body></template>|</body>",
            "<body><svg><title>t</title><style>a{}</style></svg><select></select>|</body>",
            "<body><svg/><style></body></style>|</body>",
            "<body><svg><![CDATA[ </body ]]></svg>|</body>",
            "<p>x<frame></frame>|</body>",
            "<p>x<frameset></frameset>|</body>",
            "<body><frameset>|</body>",
            "<p><body><frameset></frameset>|</body>",
        ],
    )
    def test_before_what_ends_the_body(self, document: str):
        placed(document, END)

    @pytest.mark.parametrize(
        "document",
        [
            "",
            "ok",
            "<p>a fragment</p>",
            "<frameset></frameset></body>",
            "<div><frameset></frameset></body>",
            "<div></body><frameset></frameset>",
            "<html></html>",
            "<body><!--",
            "<body>x<y",
            "<body><svg>",
        ],
    )
    def test_nowhere_in_fragments_and_unfinished_documents(self, document: str):
        placed(document, END)

    @pytest.mark.parametrize(
        "document",
        [
            "<body><svg><style> </body> </style></svg></body>",
            "<body><svg><![CDATA[ > </body> ]]></svg></body>",
            "<body><select><plaintext></select></body>",
            "<body><select></body>",
            "<body><svg></body>",
            "<body><svg><![CDATA[ \x83]]></body>",
        ],
    )
    def test_it_gives_up_where_a_tree_would_be_needed(self, document: str):
        source = document.encode("latin-1")
        assert edit(source, END) == (source, "ambiguous")


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


@given(st.binary(max_size=60), st.sampled_from(list(At)))
def test_any_bytes_come_out_unchanged_but_for_the_banner(data: bytes, at: At):
    out, outcome = edit(data, at)
    assert out.replace(MARK, b"", 1) == data
    assert (out != data) == (outcome == "inserted")
