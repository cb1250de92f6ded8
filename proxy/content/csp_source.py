"""Source expressions of a Content-Security-Policy against URLs and texts. W3C CSP3 6.7.2, 6.7.3."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: 6.7.2.8, A: an expression's scheme -> schemes of URLs that it stands for.
_UPGRADES = {
    "http": {"http", "https"},
    "ws": {"ws", "wss", "http", "https"},
    "wss": {"wss", "https"},
}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_HOST = re.compile(
    r"(?:([a-z][a-z0-9+.-]*)://)?(\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::([0-9]{1,5}|\*))?(/[^;,]*)?",
    re.IGNORECASE,
)
_HASH = re.compile(r"'(sha256|sha384|sha512)-([A-Za-z0-9+/_-]+={0,2})'", re.IGNORECASE)
_NONCE = re.compile(r"'nonce-[A-Za-z0-9+/_-]+={0,2}'", re.IGNORECASE)


class Url(NamedTuple):
    """What source expressions can tell apart; `host` empty where there is none (data:)."""

    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def origin(self) -> str:
        """As a source expression."""
        if not self.host:
            return f"{self.scheme}:"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def resolve(reference: str, page: str = "") -> Url | None:
    """The URL that a reference on that page means; None if it is not a URL."""
    try:
        parts = urlsplit(urljoin(page, reference.strip("\t\n\f\r ")))
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
        return Url(parts.scheme, parts.hostname or "", port, parts.path)
    except ValueError:
        return None


def is_hash(source: str) -> bool:
    return _HASH.fullmatch(source) is not None


def is_nonce(source: str) -> bool:
    return _NONCE.fullmatch(source) is not None


def hash_of(text: bytes) -> str:
    """The expression that permits exactly this text (UTF-8)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode('ascii')}'"


def permits_text(sources: Iterable[str], text: bytes) -> bool:
    """Whether one of the hashes is this text's (6.7.3.3, step 5)."""
    for source in sources:
        found = _HASH.fullmatch(source)
        if found and _digest(found[2]) == hashlib.new(found[1].lower(), text).digest():
            return True
    return False


def _digest(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.replace("-", "+").replace("_", "/"))
    except binascii.Error:
        return b""


def matches(source: str, url: Url, page: Url) -> bool:
    """6.7.2.8: does the URL match the expression?"""
    if source == "*":
        return url.scheme in ("http", "https", "ws", "wss", page.scheme)
    if source.lower() == "'self'":
        return _same_origin(url, page)
    if _SCHEME.fullmatch(source):
        return _scheme_part(source[:-1].lower(), url.scheme)
    found = _HOST.fullmatch(source)
    if found is None or not url.host:
        return False
    scheme, host, port, path = found.groups()
    return (
        _scheme_part((scheme or page.scheme).lower(), url.scheme)
        and _host_part(host.lower(), url.host)
        and _port_part(port, url)
        and _path_part(path, url.path)
    )


def _same_origin(url: Url, page: Url) -> bool:
    """The page's origin, or the same one made secure."""
    if url.host != page.host:
        return False
    if (url.scheme, url.port) == (page.scheme, page.port):
        return True
    usual = all(u.port == _DEFAULT_PORTS.get(u.scheme) for u in (url, page))
    return usual and _scheme_part(page.scheme, url.scheme)


def _scheme_part(allowed: str, scheme: str) -> bool:
    return scheme in _UPGRADES.get(allowed, {allowed})


def _host_part(allowed: str, host: str) -> bool:
    if allowed.startswith("*"):
        return host.endswith(allowed[1:])
    return allowed.strip("[]") == host


def _port_part(allowed: str | None, url: Url) -> bool:
    if allowed == "*":
        return True
    if allowed is None:
        return url.port == _DEFAULT_PORTS.get(url.scheme)
    return url.port == int(allowed) or (allowed == "80" and url.port == 443)


def _path_part(allowed: str | None, path: str) -> bool:
    if not allowed or allowed == "/":
        return True
    wanted, given = unquote(allowed), unquote(path)
    return given.startswith(wanted) if wanted.endswith("/") else given == wanted
