"""Pages of every charset and coding in a real browser, with the banner and without."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from pathlib import Path

import brotli
import pytest

from tests.support.browser import CHROMIUM, Tab, browser
from tests.support.live import Origin, live, origin

WORDS = {
    "utf-8": "Grüße, Привет, 你好",
    "windows-1252": "Grüße – “quoted”",
    "iso-8859-1": "déjà vu",
    "koi8-r": "Привет, мир",
    "shift_jis": "こんにちは、表示",
    "euc-jp": "こんにちは",
    "iso-2022-jp": "こんにちは",
    "gbk": "你好,世界",
    "gb18030": "你好,世界",
    "big5": "你好,許功蓋",
    "euc-kr": "안녕하세요",
    "utf-16le": "Grüße, 你好",
    "utf-16be": "Grüße, 你好",
}
CODE = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
}
BANNER = "Watched – 监视"
POLICY = f"""
version: 1
policy: banner
description: A banner on every page.
rules:
  - id: banner
    layer: http_response
    then:
      inject_banner:
        html: '<div id="sluice">{BANNER}</div>'
"""
PAGE = """<!doctype html><html><head>{meta}<link rel=icon href="data:,"><title>{word}</title>
<style>body {{ font: 16px sans-serif }}</style></head>
<body class="a>b"><!-- <body> --><h1>{word}</h1><p id=p>text</p>
<script>var s = "</bo" + "dy><body>"; console.log("script ran: {word}");</script>
</body></html>"""


def document(charset: str, declared: str) -> tuple[bytes, str]:
    """(bytes, Content-Type): the charset is declared by header, by meta, or by a mark."""
    word = WORDS[charset]
    meta = f'<meta charset="{charset}">' if declared == "meta" else ""
    data = PAGE.format(meta=meta, word=word).encode(charset.replace("gbk", "gb18030"))
    if declared == "mark":
        data = "\ufeff".encode(charset) + data
    return data, f"text/html; charset={charset}" if declared == "header" else "text/html"


async def pages(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """/CHARSET/DECLARED/CODING/FRAMING; everything else is not there."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        parts = head.split(b" ")[1].decode().strip("/").split("/")
        if len(parts) != 4:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            continue
        data, content_type = document(parts[0], parts[1])
        data = CODE[parts[2]](data)
        fields = f"Content-Type: {content_type}\r\nContent-Encoding: {parts[2]}\r\n"
        if parts[3] == "chunked":
            fields += "Transfer-Encoding: chunked\r\n"
            cut = [data[i : i + 11] for i in range(0, len(data), 11)]
            data = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in cut) + b"0\r\n\r\n"
        else:
            fields += f"Content-Length: {len(data)}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + data)


def every_page() -> list[str]:
    paths = []
    for number, charset in enumerate(WORDS):
        wide = charset.startswith("utf-16")
        ways = ("mark", "header") if wide else ("header", "meta")
        for way in (*ways, "mark") if charset == "utf-8" else ways:
            coding = list(CODE)[(number + len(way)) % len(CODE)]
            framing = "chunked" if number % 2 else "length"
            paths.append(f"/{charset}/{way}/{coding}/{framing}")
    return paths + [f"/utf-8/header/{coding}/chunked" for coding in CODE]


async def compare(tab: Tab, path: str, through: str, server: Origin) -> None:
    """The same page directly and through the proxy differs by the banner alone."""
    direct = await tab.visit(f"http://{server.endpoint}{path}")
    edited = await tab.visit(f"http://{through}{path}")
    assert edited.text == f"{BANNER}\n{direct.text}", path
    node = f'<div id="sluice">{BANNER}</div>'
    assert edited.html.count(node) == 1, path
    assert edited.html.replace(node, "") == direct.html, path
    assert WORDS[path.split("/")[1]] in edited.text, path
    where = re.compile(r"127\.0\.0\.1:\d+")
    assert [where.sub("", m) for m in edited.console] == [where.sub("", m) for m in direct.console]
    height = "document.getElementById('sluice').getBoundingClientRect().height"
    assert await tab.evaluate(height) > 10, path


@pytest.mark.peers
@pytest.mark.skipif(CHROMIUM is None, reason="not installed: chromium")
async def test_every_charset_and_coding_shows_the_page_and_the_banner(tmp_path: Path):
    async with origin(pages) as server, live(tmp_path, server.endpoint, POLICY) as service:
        async with browser(tmp_path) as tab:
            for path in every_page():
                await compare(tab, path, str(service.endpoint), server)
            (tmp_path / "banner.png").write_bytes(await tab.screenshot())
    edits = [event for event in service.events("EXCHANGE") if event.get("sluicegate.edits")]
    assert len(edits) == len(every_page())
