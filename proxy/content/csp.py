"""Whether a page's Content-Security-Policy lets a piece of HTML do what it does, and how to
extend the policy so that it does. W3C CSP3 (www.w3.org/TR/CSP3).

An extension permits this piece and nothing else, as far as the language has a way to say so:
hashes for what is inline, origins for what is fetched. It never takes away what was allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from proxy.content.csp_needs import SCRIPT, SCRIPT_ATTRIBUTE, STYLE, STYLE_ATTRIBUTE, Need
from proxy.content.csp_source import (
    Url,
    hash_of,
    is_hash,
    is_nonce,
    matches,
    permits_text,
    resolve,
)

Policy = Mapping[str, tuple[str, ...]]  #: directive -> sources; the first of a name counts (2.2.1)

# 6.8.3: what governs in the place of a directive that is not there.
_FALLBACK = {
    SCRIPT: ("script-src", "default-src"),
    SCRIPT_ATTRIBUTE: ("script-src", "default-src"),
    STYLE: ("style-src", "default-src"),
    STYLE_ATTRIBUTE: ("style-src", "default-src"),
    "frame-src": ("child-src", "default-src"),
    "base-uri": (),
    "form-action": (),
}
# Where a new directive is made: as wide as browsers without -elem directives need it.
_MADE = {SCRIPT: "script-src", STYLE: "style-src"}
_SCRIPTS = frozenset({SCRIPT, SCRIPT_ATTRIBUTE})
_SHARED = frozenset({"default-src", "child-src"})  # also govern what has nothing to do with it
_NOT_BY_SCHEME = frozenset({SCRIPT, "object-src", "frame-src", "base-uri"})  # data: is anything


@dataclass(frozen=True, slots=True)
class Wish:
    """What a piece of HTML needs on a page; `page` is the page's URL."""

    needs: tuple[Need, ...]
    page: str

    def forbidden(self, policies: Iterable[str]) -> bool:
        """Whether any of the policies forbids any of it. `policies`: header or meta values."""
        if not self.needs:
            return False
        page = _page(self.page)
        return any(
            not _allows(policy, need, page)
            for value in policies
            for policy in map(parse, value.split(","))
            for need in self.needs
        )

    def extend(self, values: Sequence[bytes]) -> tuple[bytes, ...] | None:
        """The header's values with all of it allowed; None if that cannot be said in them."""
        page = _page(self.page)
        extended = []
        for value in values:
            policies = [parse(text) for text in value.decode("latin-1").split(",")]
            changed = [self._extended(policy, page) for policy in policies]
            if None in changed:
                return None
            texts = [_text(policy) for policy in changed if policy]
            extended.append(value if changed == policies else ", ".join(texts).encode("latin-1"))
        return tuple(extended)

    def _extended(self, policy: Policy, page: Url) -> Policy | None:
        for need in self.needs:
            if not _allows(policy, need, page):
                added = _addition(policy, need, page)
                if added is None:
                    return None
                policy = added
        return policy


def parse(text: str) -> Policy:
    """A serialized policy. Pure, never fails."""
    policy: dict[str, tuple[str, ...]] = {}
    for directive in text.split(";"):
        name, *sources = directive.split() or [""]
        if name:
            policy.setdefault(name.lower(), tuple(sources))
    return policy


def _text(policy: Policy) -> str:
    return "; ".join(" ".join((name, *sources)) for name, sources in policy.items())


def _page(url: str) -> Url:
    return resolve(url) or Url("", "", None, "")


def _governing(policy: Policy, need: Need) -> str | None:
    fallback = _FALLBACK.get(need.directive, ("default-src",))
    return next((name for name in (need.directive, *fallback) if name in policy), None)


# --- what is allowed


def _allows(policy: Policy, need: Need, page: Url) -> bool:
    if need.directive in _SCRIPTS and _sandboxed(policy):
        return False
    name = _governing(policy, need)
    if name is None:
        return True
    if need.url is not None:
        return _allows_url(policy[name], need, page)
    return need.inline is not None and _allows_inline(policy[name], need, need.inline)


def _sandboxed(policy: Policy) -> bool:
    sandbox = policy.get("sandbox")
    return sandbox is not None and "allow-scripts" not in map(str.lower, sandbox)


def _allows_inline(sources: Sequence[str], need: Need, text: bytes) -> bool:
    """6.7.3.2, 6.7.3.3. The page's nonces are not known to what is put in."""
    words = {source.lower() for source in sources}
    strict = any(is_hash(source) or is_nonce(source) for source in sources)
    strict = strict or ("'strict-dynamic'" in words and need.directive in _SCRIPTS)
    if "'unsafe-inline'" in words and not strict:
        return True
    return (need.element or "'unsafe-hashes'" in words) and permits_text(sources, text)


def _allows_url(sources: Sequence[str], need: Need, page: Url) -> bool:
    """6.7.1.1 for scripts, 6.7.2.5 for the rest."""
    if need.directive == SCRIPT:
        if need.integrity and all(f"'{digest}'" in sources for digest in need.integrity):
            return True
        if "'strict-dynamic'" in map(str.lower, sources):
            return False
    url = resolve(need.url or "", page.origin + page.path)
    return url is not None and any(matches(source, url, page) for source in sources)


# --- what is added


def _addition(policy: Policy, need: Need, page: Url) -> Policy | None:
    """The policy with this one thing allowed; None if nothing in it could say so."""
    name = _governing(policy, need)
    if name is None or (need.directive in _SCRIPTS and _sandboxed(policy)):
        return None
    sources = policy[name]
    if need.url is None:
        added = _for_text(need)
    else:
        added = _for_url(sources, need, page)
    if added is None:
        return None
    if not need.element:
        name = need.directive  # of its own, so that nothing else gets 'unsafe-hashes'
    elif name in _SHARED:
        name = _MADE.get(need.directive, need.directive)
    kept = (source for source in sources if source.lower() != "'none'")
    return {**policy, name: tuple(dict.fromkeys((*kept, *added)))}


def _for_text(need: Need) -> tuple[str, ...] | None:
    if need.inline is None:
        return None
    digest = hash_of(need.inline)
    return (digest,) if need.element else ("'unsafe-hashes'", digest)


def _for_url(sources: Sequence[str], need: Need, page: Url) -> tuple[str, ...] | None:
    """An origin; with 'strict-dynamic' scripts go by their hash alone."""
    if need.directive == SCRIPT and "'strict-dynamic'" in map(str.lower, sources):
        return tuple(f"'{digest}'" for digest in need.integrity) or None
    url = resolve(need.url or "", page.origin + page.path)
    if url is None or (not url.host and need.directive in _NOT_BY_SCHEME):
        return None
    if (url.scheme, url.host, url.port) == (page.scheme, page.host, page.port):
        return ("'self'",)
    return (url.origin,)
