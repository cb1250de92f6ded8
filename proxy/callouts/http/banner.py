"""The HTTP side of `inject_banner`: which responses take one, as what, and under which policy.

Where the banner goes in the document is proxy.content.insertion's; every reason why there is
none is one of its Outcomes, and stands in the exchange's record as `no banner: <outcome>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from proxy.callouts.http import framing
from proxy.callouts.http.body import Editor
from proxy.callouts.http.exchange import Exchange
from proxy.content.banner import BannerEditor
from proxy.content.charsets import charset_in
from proxy.content.csp import Wish
from proxy.content.csp_needs import needs
from proxy.content.insertion import At, Outcome
from proxy.content.markup import as_ascii, escape, note
from proxy.heads import RequestHead, ResponseHead
from proxy.policy import ast
from proxy.policy.templates import fill

_CSP = b"content-security-policy"  # Content-Security-Policy-Report-Only forbids nothing
_XHTML = frozenset({"application/xhtml+xml", "application/xml", "text/xml"})
_UNSEEN = frozenset({204, 205, 206, 226})  # no content, or a part or a difference of it

#: Sec-Fetch-Dest of a document that is shown in another one (fetch.spec.whatwg.org 2.2.5).
_FRAMES = frozenset({b"iframe", b"frame", b"embed", b"object", b"fencedframe"})
# What scripts send with their requests for parts of pages.
_SCRIPTED = frozenset(
    b"hx-request turbo-frame up-version x-barba x-inertia x-livewire x-pjax x-up-version".split()
)


class ExtendingBanner(BannerEditor):
    """One whose wish the head's policies are extended by (`csp: extend`, see `allow`)."""


def editor_for(
    exchange: Exchange,
    head: ResponseHead,
    kind: framing.Framing,
    planned: ast.InjectBanner,
    variables: Mapping[str, str] | None = None,
) -> Editor | None:
    """An editor for the decoded content, or None with the reason in the exchange's detail.

    `head` is what the client will get, with the rules' header edits: taking `no-transform` or
    a policy out of it is how an operator goes over the server's wish. `variables`: text for
    CONTENT_PLACEHOLDERS, not escaped.
    """
    request = exchange.request
    outcome = _unfit(head, kind) or _fragment(request, frames=planned.frames)
    editor = None
    if outcome is None:
        editor = _editor(head, _page(request), planned, variables or {})
        outcome = Outcome.CSP if editor is None else None
    if outcome is not None:
        exchange.detail = exchange.detail or f"no banner: {outcome}"
    return editor


def _editor(
    head: ResponseHead, page: str, planned: ast.InjectBanner, variables: Mapping[str, str]
) -> BannerEditor | None:
    """None: the page's policy forbids it, and is honoured or cannot be extended."""
    at, charset = At(planned.at), _charset(head)
    values = head.all(_CSP)
    policies = [value.decode("latin-1") for value in values]
    if planned.form is ast.Form.TEXT:
        html, plain = (note(planned.content, at, styled=styled) for styled in (True, False))
        wish = Wish(needs(html), page)
        if wish.forbidden(policies):
            return BannerEditor(plain, at, charset=charset)
        return BannerEditor(html, at, charset=charset, wish=wish, plain=plain)
    html = as_ascii(_filled(planned, variables))
    wish = Wish(needs(html), page)
    if not wish.forbidden(policies):
        return BannerEditor(html, at, charset=charset, wish=wish)
    if planned.csp != "extend" or wish.extend(values) is None:
        return None
    return ExtendingBanner(html, at, charset=charset, wish=wish)


def _filled(planned: ast.InjectBanner, variables: Mapping[str, str]) -> str:
    if planned.form is not ast.Form.TEMPLATE:
        return planned.content
    return fill(planned.content, {name: escape(value) for name, value in variables.items()})


def _page(request: RequestHead | None) -> str:
    """The document's URL, for what a policy means by 'self'."""
    if request is None:
        return ""
    host = request.authority or (request.all(b"host") or (b"",))[0]
    return f"http://{host.decode('latin-1')}{request.path or '/'}"


def _charset(head: ResponseHead) -> str | None:
    """What Content-Type declares, if there is such an encoding."""
    charset = charset_in(head.get(b"content-type") or b"")
    return charset.name if charset is not None else None


# --- which responses


def _unfit(head: ResponseHead, kind: framing.Framing) -> Outcome | None:
    """What the response says against it."""
    if isinstance(kind, framing.NoBody):
        return Outcome.EMPTY
    if head.status < 200 or head.status in _UNSEEN or 300 <= head.status < 400:
        return Outcome.STATUS
    if head.content_type != "text/html":
        return Outcome.XHTML if head.content_type in _XHTML else Outcome.NOT_HTML
    disposition = head.get(b"content-disposition") or b""
    if disposition.lower().startswith(b"attachment"):
        return Outcome.ATTACHMENT
    # RFC 9110 7.7 binds proxies. Edits for safety's sake go over it; a notice does not.
    return Outcome.NO_TRANSFORM if b"no-transform" in head.tokens(b"cache-control") else None


def _fragment(request: RequestHead | None, *, frames: bool) -> Outcome | None:
    """What the request says: is it a document that the answer becomes?

    Browsers send Sec-Fetch-* to hosts that they trust only (TLS, localhost), so that the other
    signs count as much. Nothing said is nothing against it. Requests of htmx and of Turbo are
    a script's, boosted ones too: the script decides what becomes of the answer.
    """
    if request is None:
        return None
    destination = request.get(b"sec-fetch-dest")
    if destination in _FRAMES:
        return None if frames else Outcome.FRAME
    scripted = (
        request.method not in (b"GET", b"POST")
        or destination not in (None, b"document")
        or request.get(b"sec-fetch-mode") not in (None, b"navigate")
        # An Android web view writes its application's name there.
        or (request.get(b"x-requested-with") or b"").lower() == b"xmlhttprequest"
        or any(request.get(name) is not None for name in _SCRIPTED)
        or not _accepts_documents(request)
    )
    return Outcome.FRAGMENT if scripted else None


def _accepts_documents(request: RequestHead) -> bool:
    """Whether Accept is one of a navigation: a browser's names HTML, `*/*` alone is fetch()'s."""
    accept = (request.get(b"accept") or b"*/*").lower()
    if b"html" in accept or b"text/*" in accept or request.get(b"accept") is None:
        return True
    browser = (request.get(b"user-agent") or b"").startswith(b"Mozilla/")
    return b"*/*" in accept and not browser


# --- the head that goes with it


def allow(head: ResponseHead, editors: Iterable[Editor]) -> ResponseHead:
    """The head with its Content-Security-Policy extended by what these banners need."""
    for editor in editors:
        if isinstance(editor, ExtendingBanner):
            extended = editor.wish.extend(head.all(_CSP))
            values = iter(extended if extended is not None else head.all(_CSP))
            fields = (f._replace(value=next(values)) if f.key == _CSP else f for f in head.fields)
            head = replace(head, fields=tuple(fields))
    return head
