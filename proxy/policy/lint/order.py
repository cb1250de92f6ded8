"""Rules that are never asked, because one before them ends the layer wherever they would apply."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator

from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.generation import ARBITRATED
from proxy.policy.lint.book import Book, Entry
from proxy.policy.lint.facets import Atom, Conjunct, Negation
from proxy.policy.lint.finding import Finding, Level
from proxy.policy.lint.logic import follows, known

_NAMED = 5  #: rules named in one message


def unreachable(book: Book) -> Iterator[Finding]:
    for entries in book.layers.values():
        yield from _Layer().look(entries)


class _Layer:
    """Goes through the rules of a layer and keeps those that end it, filed by what they need."""

    def __init__(self) -> None:
        self._filed: dict[Hashable, list[Entry]] = defaultdict(list)
        self._hidden: dict[str, list[Entry]] = defaultdict(list)  # by rules about everything

    def look(self, entries: tuple[Entry, ...]) -> Iterator[Finding]:
        everything = []
        for entry in entries:
            before = self._before(entry)
            if before is not None and not before.when and before.rule.unless is None:
                everything.append(before)
                self._hidden[before.id].append(entry)
            elif before is not None:
                yield _finding(entry, before)
            if ends(entry):
                self._file(entry)
        for before in dict.fromkeys(everything):
            yield _of_everything(before, self._hidden[before.id])

    def _before(self, entry: Entry) -> Entry | None:
        premises = frozenset(entry.when)
        for key in _looked_up(entry.when):
            for before in self._filed.get((entry.group, key), ()):
                if hides(before, entry, premises):
                    return before
        return None

    def _file(self, entry: Entry) -> None:
        for key in _filed_under(entry.when):
            self._filed[(entry.group, key)].append(entry)


def ends(entry: Entry) -> bool:
    """A shadow rule ends nothing, and map_local may have no answer."""
    terminal = entry.terminal
    return terminal is not None and not isinstance(terminal, ast.MapLocal) and not entry.rule.shadow


def hides(before: Entry, entry: Entry, premises: frozenset[Conjunct]) -> bool:
    """Whether `before` applies wherever `entry` does.

    A rule that denies applies to the unknown as well, others do not: so a permit hides it only
    if what the permit asks is never unknown.
    """
    if not follows(before.when, premises):
        return False
    if before.rule.unless is not None and (before.unless != entry.unless or "tag" in before.fields):
        return False
    return before.denies or not entry.denies or known((*before.when, *before.unless))


_ALWAYS = "always"


def _filed_under(when: tuple[Conjunct, ...]) -> list[Hashable]:
    """Keys of one conjunct that a rule must have, or that follow from one that it has."""
    match when[:1]:
        case (Negation() as negation,):
            return [negation]  # follows from nothing but itself
        case (Atom() as atom,) if atom.op is Op.IS and _are_single(atom.values):
            return [(atom.name, value) for value in atom.values]
        case (Atom() as atom,):
            return [atom.name]
    return [_ALWAYS]


def _are_single(values: tuple[object, ...]) -> bool:
    return not any(isinstance(value, tuple) for value in values)


def _looked_up(when: tuple[Conjunct, ...]) -> list[Hashable]:
    keys: list[Hashable] = [_ALWAYS]
    for conjunct in when:
        keys.append(conjunct)
        if isinstance(conjunct, Atom):
            keys.append(conjunct.name)
            keys += [(conjunct.name, value) for value in conjunct.values[:1]]
    return list(dict.fromkeys(keys))


def _finding(entry: Entry, before: Entry) -> Finding:
    where = f"{before.rule.mark.file}:{before.rule.mark.line}"
    return Finding(
        "lint.unreachable",
        Level.WARNING,
        entry.rule.mark,
        f"{entry.id} is never asked: {before.id} ({where}) applies wherever it would, and ends"
        f" {'its sublayer' if entry.rule.layer in ARBITRATED else 'the layer'} before it",
        f"give it more weight than {before.rule.weight}, or remove it",
        entry.id,
    )


def _of_everything(before: Entry, hidden: list[Entry]) -> Finding:
    named = ", ".join(entry.id for entry in hidden[:_NAMED])
    more = f" and {len(hidden) - _NAMED} more" if len(hidden) > _NAMED else ""
    return Finding(
        "lint.unreachable",
        Level.WARNING,
        before.rule.mark,
        f"{before.id} has no condition, so what stands behind it is never asked: {named}{more}",
        "give it a condition, or less weight than those",
        before.id,
    )
