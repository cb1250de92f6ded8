"""The HTTP side of `inject_banner`: which responses take one, and what their heads lose.

Where the banner goes in the document is proxy.content.banner's.
"""

from __future__ import annotations

from dataclasses import replace

from proxy.callouts.http import framing
from proxy.callouts.http.body import Editor
from proxy.callouts.http.exchange import Exchange
from proxy.content.banner import BannerEditor
from proxy.heads import Field, ResponseHead
from proxy.policy import ast

_DOCUMENT = "text/html"  # not XHTML: a banner that is not well-formed XML would break the page
_NOT_ASCII = (b"utf-16", b"utf-32", b"utf-7", b"iso-2022", b"hz-")  # no superset of ASCII
# Digests of the bytes as they were (RFC 9530, RFC 1864), and ranges over them.
_STALE = frozenset({b"content-md5", b"digest", b"repr-digest", b"content-digest", b"accept-ranges"})


def editor_for(
    exchange: Exchange, head: ResponseHead, kind: framing.Framing, edit: ast.InjectBanner
) -> Editor | None:
    """An editor for the body, or None with the reason in the exchange's detail."""
    why_not = _unfit(head, kind)
    if why_not:
        exchange.detail = exchange.detail or f"no banner: {why_not}"
        return None
    exchange.note_edit("banner")
    # Character references mean the same in every charset that has ASCII in its place.
    return BannerEditor(edit.content.encode("ascii", "xmlcharrefreplace"), edit.at)


def _unfit(head: ResponseHead, kind: framing.Framing) -> str:
    if isinstance(kind, framing.NoBody):
        return "no body"
    if head.status != 200:
        return f"status {head.status}"
    if head.content_type != _DOCUMENT:
        return "not an HTML document"
    charset = (head.get(b"content-type") or b"").lower().partition(b"charset=")[2].strip(b"\"' ")
    if charset.startswith(_NOT_ASCII):
        return "charset"
    if head.tokens(b"content-encoding") not in ((), (b"identity",)):
        return "compressed"
    disposition = head.get(b"content-disposition") or b""
    return "an attachment" if disposition.lower().startswith(b"attachment") else ""


def weaken(head: ResponseHead) -> ResponseHead:
    """The head of a document whose bytes change: no strong validator, digest or range of it."""
    return replace(head, fields=tuple(_weak(f) for f in head.fields if f.key not in _STALE))


def _weak(field: Field) -> Field:
    if field.key != b"etag" or field.value.startswith(b"W/"):
        return field
    return field._replace(value=b"W/" + field.value)


def check(exchange: Exchange, editors: tuple[Editor, ...]) -> None:
    """After the body: the record says 'banner' only if one was put in."""
    if editors and not any(editor.inserted for editor in editors):
        exchange.edits.remove("banner")
        exchange.detail = exchange.detail or f"no banner: {editors[0].outcome}"
