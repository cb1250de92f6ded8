"""Edits that fight: of two rules that may both act, one undoes what the other does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import TypeVar

from proxy.policy import ast
from proxy.policy.fields import FIELDS
from proxy.policy.lint.book import Book, Entry
from proxy.policy.lint.facets import Choice, Conjunct, Negation
from proxy.policy.lint.finding import Finding, Level
from proxy.policy.lint.logic import contradiction

#: Here it is enough that values usually exclude each other: a header that has two values, or a
#: path with several readings, is no reason to warn.
_USUALLY_SINGLE = frozenset(FIELDS) - {"tag", "alpn", "body"}
_MOST = 200  #: rules that edit the same thing: more of them are made by a program


def fights(book: Book) -> Iterator[Finding]:
    for entries in book.layers.values():
        editing = [entry for entry in entries if edits_count(entry)]
        yield from _over_headers(editing)
        yield from _over(editing, _banners, _two_banners)
        yield from _over(editing, _rewrites, _two_rewrites)
        yield from _over_bodies(editing)


def edits_count(entry: Entry) -> bool:
    """Edits of a rule that keeps the message from passing are dropped; shadow edits nothing."""
    passing = entry.terminal is None or isinstance(entry.terminal, ast.Permit)
    return passing and not entry.rule.shadow


def both_may_act(first: Entry, second: Entry) -> bool:
    """Whether `second` may act behind `first` on the same message."""
    if first.terminal is not None:
        return False
    together: list[Conjunct] = [*first.when, *second.when]
    together += [_not(entry.unless) for entry in (first, second) if entry.rule.unless is not None]
    return not contradiction(together, _USUALLY_SINGLE)


def _not(conjuncts: Sequence[Conjunct]) -> Conjunct:
    if len(conjuncts) == 1:
        only = conjuncts[0]
        return only.part if isinstance(only, Negation) else Negation(only)
    return Negation(Choice(frozenset({frozenset(conjuncts)})))


_E = TypeVar("_E", bound=ast.Action)
_Parts = Callable[[Entry], list[tuple[str, str]]]
_Make = Callable[[Entry, Entry, str], Finding]


def _of(entry: Entry, *kinds: type[_E]) -> list[_E]:
    """The edits of these kinds that a rule makes."""
    return [action for action in entry.rule.then if isinstance(action, kinds)]


# --- headers -------------------------------------------------------------------------------


def _over_headers(entries: Iterable[Entry]) -> Iterator[Finding]:
    setting: dict[str, list[tuple[Entry, str]]] = defaultdict(list)
    for entry in entries:
        for edit in _of(entry, ast.Headers):
            for name in edit.remove:
                yield from _removes(entry, name, setting)
            for name, value in edit.set:
                yield from _sets(entry, name, value, setting[name.lower()])
                setting[name.lower()].append((entry, value))
            for name, value in edit.add:
                setting[name.lower()].append((entry, value))


def _sets(
    entry: Entry, name: str, value: str, before: Sequence[tuple[Entry, str]]
) -> Iterator[Finding]:
    for first, earlier in before[:_MOST]:
        if first is not entry and earlier != value and both_may_act(first, entry):
            message = f"{entry.id} sets {name} again, to another value than {_at(first)}"
            yield _warning(entry, message, f"the later one stands: {value!r}")
            return


def _removes(
    entry: Entry, name: str, setting: dict[str, list[tuple[Entry, str]]]
) -> Iterator[Finding]:
    wanted = name.lower()
    names = [n for n in setting if n.startswith(wanted[:-1])] if wanted[-1:] == "*" else [wanted]
    for first, _ in [pair for n in names for pair in setting.get(n, ())][:_MOST]:
        if first is not entry and both_may_act(first, entry):
            message = f"{entry.id} removes {name}, which {_at(first)} puts there before"
            yield _warning(entry, message, "give the one that puts it less weight, or drop one")
            return


# --- one thing, two rules ------------------------------------------------------------------


def _banners(entry: Entry) -> list[tuple[str, str]]:
    return [(edit.at, edit.at) for edit in _of(entry, ast.InjectBanner)]


def _two_banners(first: Entry, second: Entry, place: str) -> Finding:
    message = f"{second.id} puts a second banner at {place}, beside that of {_at(first)}"
    return _warning(second, message, "a document that both match gets both")


def _rewrites(entry: Entry) -> list[tuple[str, str]]:
    found = []
    for edit in _of(entry, ast.RewriteUrl):
        found += [("path", "path")] if edit.path is not None else []
        found += [("query", "query")] if edit.query is not None else []
    return found


def _two_rewrites(first: Entry, second: Entry, part: str) -> Finding:
    message = f"{second.id} rewrites the {part} again, which {_at(first)} has rewritten"
    return _warning(second, message, "the later one stands")


def _over(
    entries: Sequence[Entry],
    parts: _Parts,
    finding: _Make,
) -> Iterator[Finding]:
    having: dict[str, list[tuple[Entry, str]]] = defaultdict(list)
    for entry in entries:
        for key, what in parts(entry):
            having[key].append((entry, what))
    for pairs in having.values():
        told = set()
        for (first, what), (second, _) in combinations(pairs[:_MOST], 2):
            if second.id not in told and first is not second and both_may_act(first, second):
                told.add(second.id)
                yield finding(first, second, what)


# --- bodies --------------------------------------------------------------------------------

_WHOLE = (ast.SetBody, ast.RemoveBody)
_PART = (ast.Replace, ast.InjectBanner)
_NAMES: dict[type, str] = {
    ast.SetBody: "set_body",
    ast.RemoveBody: "remove_body",
    ast.Replace: "replace_body",
    ast.InjectBanner: "inject_banner",
}


def _over_bodies(entries: Sequence[Entry]) -> Iterator[Finding]:
    """What takes the place of a whole body leaves nothing to edit; the last one stands."""
    whole = [(entry, edit) for entry in entries for edit in _of(entry, *_WHOLE)][:_MOST]
    part = [(entry, edit) for entry in entries for edit in _of(entry, *_PART)][:_MOST]
    position = {entry.id: number for number, entry in enumerate(entries)}
    for entry, edit in part:
        for other, taking in whole:
            early, late = sorted((entry, other), key=lambda e: position[e.id])
            if entry is not other and both_may_act(early, late):
                message = (
                    f"{entry.id}: {_NAMES[type(edit)]} has no effect where {_at(other)} applies"
                )
                yield _warning(entry, message, f"its {_NAMES[type(taking)]} takes the whole body")
                break
    told = set()
    for (first, _), (second, taking) in combinations(whole, 2):
        if first is not second and second.id not in told and both_may_act(first, second):
            told.add(second.id)
            message = f"{second.id}: {_NAMES[type(taking)]} undoes that of {_at(first)}"
            yield _warning(second, message, "the later one stands")


# --- shared --------------------------------------------------------------------------------


def _at(entry: Entry) -> str:
    return f"{entry.id} ({entry.rule.mark.file}:{entry.rule.mark.line})"


def _warning(entry: Entry, message: str, advice: str) -> Finding:
    return Finding("lint.fight", Level.WARNING, entry.rule.mark, message, advice, entry.id)
