"""Banners under a page's Content-Security-Policy, as a real browser enforces it.

Honoured: nothing new on the console. Extended: everything in the banner works, and the page's
own inline script is allowed or forbidden as before.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.browser import CHROMIUM, Tab, browser
from tests.support.live import live, origin

BANNER = (
    '<div id="b" style="width:123px" onclick="window.clicked = 1">seen'
    "<script>window.ran = 1; document.getElementById(`b`).click()</script>"
    "<style>#b { height: 45px }</style><img id=i src=/i.svg></div>"
)
POLICY = """
version: 1
policy: banner
description: A banner that needs permission for much, and one that needs none.
rules:
  - id: extend
    layer: http_response
    when: {{path: /extend/*}}
    then: {{inject_banner: {{html: '{html}', csp: extend}}}}
  - id: honour
    layer: http_response
    when: {{path: /honour/*}}
    then: {{inject_banner: {{html: '{html}'}}}}
  - id: text
    layer: http_response
    when: {{path: /text/*}}
    then: {{inject_banner: {{text: Traffic is inspected.}}}}
"""
PAGE = (
    "<!doctype html><html><head><link rel=icon href='data:,'>{meta}</head><body>"
    "<script nonce=abc>window.page = 1</script><p>text</p></body></html>"
)
PICTURE = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"

POLICIES = [
    "default-src 'none'",
    "default-src 'self'",
    "script-src 'self'; style-src 'self'",
    "script-src 'nonce-abc' 'strict-dynamic'; style-src 'nonce-abc'",
    "default-src 'unsafe-inline'; img-src 'none'",
    "script-src 'unsafe-inline' 'nonce-abc'; style-src-attr 'none'; style-src-elem 'none'",
    "script-src 'unsafe-hashes' 'sha256-AAAA'; default-src https:",
    "script-src-attr 'none'; script-src-elem 'nonce-abc'; img-src https:",
    "img-src 'self', style-src 'none'",
    "frame-ancestors 'none'; base-uri 'none'",
]


async def pages(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """/WHICH/header/POLICY and /WHICH/meta/POLICY; /i.svg is the picture."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        path = unquote(head.split(b" ")[1].decode())
        _, which, *rest = path.split("/", 3)
        field, media, body = "", "text/html; charset=utf-8", PAGE.format(meta="").encode()
        if which == "i.svg":
            media, body = "image/svg+xml", PICTURE
        elif rest[0] == "meta":
            meta = f'<meta http-equiv="Content-Security-Policy" content="{rest[1]}">'
            body = PAGE.format(meta=meta).encode()
        else:
            field = f"Content-Security-Policy: {rest[1]}\r\n"
        fields = f"{field}Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + body)


WORKS = (
    "[window.ran, window.clicked, document.getElementById('b')?.getBoundingClientRect().width,"
    " document.getElementById('b')?.getBoundingClientRect().height,"
    " document.getElementById('i')?.naturalWidth].join()"
)


def url(endpoint: object, which: str, where: str, policy: str) -> str:
    return f"http://{endpoint}/{which}/{where}/{policy.replace(' ', '%20')}"


async def complaints(tab: Tab, address: str) -> list[str]:
    """What the console says of policies, but for the icon, which is fetched at any time."""
    shown = await tab.visit(address)
    told = [line for line in shown.console if "Content Security Policy" in line]
    return [line for line in told if "data:," not in line]


async def check(tab: Tab, server: object, service: object, policy: str) -> None:
    for where in ("header", "meta"):
        before = await complaints(tab, url(server, "honour", where, policy))
        page = await tab.evaluate("String(window.page)")
        for which in ("honour", "extend", "text"):
            after = await complaints(tab, url(service, which, where, policy))
            assert len(after) == len(before), (which, where, policy, after)
            assert await tab.evaluate("String(window.page)") == page, (which, where, policy)
            works = await tab.evaluate(WORKS)
            if which == "extend" and where == "header":
                assert works == "1,1,123,45,9", policy
            elif which != "text":
                assert works in ("1,1,123,45,9", ",,,,"), (which, where, policy)
            else:
                note = "document.querySelector('.sluicegate-banner').getBoundingClientRect().height"
                assert await tab.evaluate(note) > 10


@pytest.mark.peers
@pytest.mark.skipif(CHROMIUM is None, reason="not installed: chromium")
async def test_a_browser_has_nothing_to_complain_about(tmp_path: Path):
    rules = POLICY.format(html=BANNER.replace("'", "''"))
    async with origin(pages) as server, live(tmp_path, server.endpoint, rules) as service:
        async with browser(tmp_path) as tab:
            for policy in POLICIES:
                await check(tab, server.endpoint, service.endpoint, policy)
