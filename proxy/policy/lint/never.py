"""Conditions that never hold, and parts of conditions that change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from proxy.policy.ast import Op
from proxy.policy.lint.book import Book, Entry
from proxy.policy.lint.facets import Atom, Choice, Conjunct, Negation, atoms_of
from proxy.policy.lint.finding import Finding, Level
from proxy.policy.lint.logic import contradiction, follows, known

#: Redirect providers that tell who made a connection. The others learn only where it was going.
TELL_PRINCIPAL: frozenset[str] = frozenset({"ebpf", "wfp", "wfp-driver", "wfp-hns"})
_LARGE = 1 << 40  #: bytes of content that no message has


def never(book: Book) -> Iterator[Finding]:
    for entry in book.entries:
        yield from _contradictions(entry)
        yield from _exceptions(entry)
        yield from _repeated(entry)
        yield from _too_large(entry)
        yield from _principal(entry)


def _contradictions(entry: Entry) -> Iterator[Finding]:
    found = contradiction(entry.when)
    if found:
        told = " and ".join(map(words, found))
        again = "cannot be" if len(found) == 1 else "cannot both be"
        yield _warning("lint.never", entry, f"{entry.id} never applies: {told} {again}")
    elif entry.rule.unless is not None and contradiction(entry.unless):
        told = " and ".join(map(words, contradiction(entry.unless)))
        yield _warning("lint.never_excepted", entry, f"{entry.id}: {told}: never an exception")


def _exceptions(entry: Entry) -> Iterator[Finding]:
    """`except` that holds wherever `when` does. The unknown is left to rules that deny."""
    if entry.rule.unless is None or (entry.denies and not known((*entry.when, *entry.unless))):
        return
    if follows(entry.unless, frozenset(entry.when)):
        message = f"{entry.id} never applies: its exception holds wherever its condition does"
        yield _warning("lint.never", entry, message)


def _repeated(entry: Entry) -> Iterator[Finding]:
    for conjunct, times in Counter(entry.when).items():
        if times > 1:
            message = f"{entry.id} asks {times} times whether {words(conjunct)}"
            yield _warning("lint.repeated", entry, message, "once will do")


def _too_large(entry: Entry) -> Iterator[Finding]:
    for conjunct in entry.when:
        if not isinstance(conjunct, Atom) or conjunct.field not in ("body.size", "content_length"):
            continue
        bound = conjunct.values[0]
        if conjunct.op in (Op.GT, Op.GE) and isinstance(bound, int) and bound >= _LARGE:
            message = f"{entry.id} waits for {words(conjunct)}: no message is that long"
            yield _warning("lint.never", entry, message)


def _principal(entry: Entry) -> Iterator[Finding]:
    """What a provider does not tell is unknown: never true, but matched by a rule that denies."""
    needed = [atom for conjunct in entry.when for atom in _needed(conjunct)]
    names = sorted({atom.field for atom in needed if _may_be_untold(atom.field)})
    silent = _silent_providers(entry)
    if not names or not silent:
        return
    what = f"provider {' or '.join(silent)} does not tell {', '.join(names)}, so it is unknown"
    if entry.denies:
        message = f"{entry.id} blocks whatever else its condition leaves: {what}"
        advice = "a rule that denies counts the unknown as matched; start in mode: shadow"
    else:
        message = f"{entry.id} does not apply: {what}"
        advice = f"of the providers, {', '.join(sorted(TELL_PRINCIPAL))} tell the principal"
    yield _warning("lint.principal", entry, message, advice)


def _may_be_untold(field: str) -> bool:
    return field.startswith("principal.") and field != "principal.confidence"  # `none` is told


def _silent_providers(entry: Entry) -> list[str]:
    """The providers that the rule is for, if none of them tells a principal."""
    for conjunct in entry.when:
        if isinstance(conjunct, Atom) and conjunct.field == "provider" and conjunct.op is Op.IS:
            named = [str(value) for value in conjunct.values]
            if not any(name in TELL_PRINCIPAL or set(name) & set("*?[") for name in named):
                return sorted(named)
    return []


def _needed(conjunct: Conjunct) -> Iterator[Atom]:
    """Atoms that decide the conjunct by themselves: alternatives may do without."""
    if isinstance(conjunct, Choice):
        return iter(())
    return atoms_of(conjunct)


def _warning(name: str, entry: Entry, message: str, advice: str = "") -> Finding:
    return Finding(name, Level.WARNING, entry.rule.mark, message, advice, entry.id)


# --- in words ------------------------------------------------------------------------------

_SIGNS = {Op.GT: ">", Op.GE: ">=", Op.LT: "<", Op.LE: "<="}


def words(conjunct: Conjunct) -> str:
    """A conjunct as its author would say it."""
    match conjunct:
        case Atom():
            return _atom(conjunct)
        case Negation():
            return f"not ({words(conjunct.part)})"
        case Choice():
            parts = sorted(" and ".join(sorted(map(words, part))) for part in conjunct.parts)
            return f"({' or '.join(parts)})"


def _atom(atom: Atom) -> str:
    name = atom.field if atom.arg is None else f"{atom.field}.{atom.arg}"
    match atom.op:
        case Op.EXISTS:
            return f"{name} is {'present' if atom.values[0] else 'absent'}"
        case Op.IN:
            return f"{name} is in list {atom.values[1]}"
        case Op.REGEX:
            return f"{name} matches /{atom.values[0]}/"
        case Op.IS:
            return f"{name} is {' or '.join(map(_value, atom.values[:4]))}"
        case _:
            return f"{name} is {_SIGNS[atom.op]} {atom.values[0]}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
