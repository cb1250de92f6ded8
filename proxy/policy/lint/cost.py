"""Rules that forbid offload, with what they cost: the traffic that must pass through Python."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.lint.book import Book, Entry
from proxy.policy.lint.facets import Conjunct, atoms_of
from proxy.policy.lint.finding import Finding, Level
from proxy.policy.lint.never import words
from proxy.policy.match_body import BODY_FIELDS

#: What is known only when the body has been looked into.
_OF_CONTENT = BODY_FIELDS | {"content_type.sniffed"}
_DONE = {"body": "searched", "body.sha256": "hashed"}
_BODY_OF = {Layer.HTTP_REQUEST_BODY: "request", Layer.HTTP_RESPONSE_BODY: "response"}


def cost(book: Book) -> Iterator[Finding]:
    for entry in book.entries:
        told = _told(entry)
        if told is not None:
            what, done = told
            yield _finding(entry, what, done)


def _told(entry: Entry) -> tuple[str, str] | None:
    """What must be looked through, and what is done to it; None for a rule that costs nothing."""
    rule = entry.rule
    if rule.layer in _BODY_OF:
        done = [word for field, word in _DONE.items() if field in entry.fields]
        return f"{_BODY_OF[rule.layer]} body", f"{', '.join(['decoded', *done])}, never offloaded"
    if any(isinstance(action, ast.Replace) for action in rule.then):
        if rule.layer is Layer.STREAM:
            return "byte of every flow", "searched, never offloaded"
        return f"{_message(rule)} body", "decoded, searched and coded again, never offloaded"
    if any(isinstance(action, ast.InjectBanner) for action in rule.then):
        return "HTML response", "decoded and coded again, never offloaded"
    if "content_type.sniffed" in entry.fields:
        return "response", "held until the first bytes of its body are here"
    return None


def _message(rule: ast.Rule) -> str:
    return "request" if rule.layer is Layer.HTTP_REQUEST else "response"


def _finding(entry: Entry, what: str, done: str) -> Finding:
    narrowed = [c for c in entry.when if _narrows(c)]
    if narrowed:
        which = " and ".join(words(conjunct) for conjunct in narrowed[:4])
        message = f"{entry.id}: every {what} where {which} is {done}"
        advice = ""
    else:
        message = f"{entry.id}: every {what} of every host is {done}"
        advice = "add host or content_type to leave the others alone"
    if what.startswith("byte"):
        advice = "" if narrowed else "add dst.port, dst.ip or protocol to leave the others alone"
        message = message.replace(" of every flow of every host", " of every flow")
    return Finding("lint.cost", Level.INFO, entry.rule.mark, message, advice, entry.id)


def _narrows(conjunct: Conjunct) -> bool:
    """Whether it is decided before the body is looked into."""
    return _OF_CONTENT.isdisjoint(atom.field for atom in atoms_of(conjunct))
