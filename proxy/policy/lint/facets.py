"""Conditions as sets of conjuncts, so that two rules can be compared.

Each operator of a test is a conjunct by itself: all operators of a test must hold, each for
some value of its field. A test of a field with readings is another one under `every`
(`proxy.policy.match`); tags change between rules, so a test of them says nothing of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.extract import READINGS
from proxy.policy.fields import FIELDS, Kind
from proxy.policy.lists import domain, fold

_FOLDED = frozenset({Kind.TEXT_CI, Kind.ENUM, Kind.HASH})


@dataclass(frozen=True, slots=True)
class Atom:
    """One operator of one test. `values` of `is`: brought to the form that is compared."""

    field: str
    arg: str | None
    op: Op
    values: tuple[object, ...]
    every: bool

    @property
    def name(self) -> tuple[str, str | None]:
        return self.field, self.arg


@dataclass(frozen=True, slots=True)
class Negation:
    part: Conjunct


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of these; each one a conjunction."""

    parts: frozenset[frozenset[Conjunct]]


Conjunct = Atom | Negation | Choice


def conjuncts(condition: ast.Condition | None, file: str, *, every: bool) -> tuple[Conjunct, ...]:
    """What must hold, in the order in which it is written. Lists are told apart by file."""
    return tuple(_conjuncts(condition, file, every)) if condition is not None else ()


def _conjuncts(condition: ast.Condition, file: str, every: bool) -> Iterator[Conjunct]:
    match condition:
        case ast.Test():
            yield from _atoms(condition, file, every)
        case ast.All():
            for part in condition.parts:
                yield from _conjuncts(part, file, every)
        case ast.AnyOf() if len(condition.parts) == 1:
            yield from _conjuncts(condition.parts[0], file, every)
        case ast.AnyOf():
            yield Choice(frozenset(frozenset(_conjuncts(p, file, every)) for p in condition.parts))
        case ast.Not():
            inner = list(_conjuncts(condition.part, file, not every))
            if len(inner) == 1:
                yield _negated(inner[0])
            else:
                yield Negation(Choice(frozenset({frozenset(inner)})))


def _negated(conjunct: Conjunct) -> Conjunct:
    return conjunct.part if isinstance(conjunct, Negation) else Negation(conjunct)


def _atoms(test: ast.Test, file: str, every: bool) -> Iterator[Atom]:
    arg = test.arg if test.arg is None or test.field == "cookie" else test.arg.lower()
    quantified = every and test.field in READINGS
    for compare in test.compares:
        yield Atom(test.field, arg, compare.op, _values(test.field, compare, file), quantified)


def _values(field: str, compare: ast.Compare, file: str) -> tuple[object, ...]:
    match compare.op:
        case Op.IS:
            values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
            return tuple(dict.fromkeys(_normal(field, value) for value in values))
        case Op.IN:
            return (file, str(compare.value))
        case _:
            return (compare.value,)


def _normal(field: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    kind = FIELDS[field].kind
    if kind is Kind.DOMAIN:
        return domain(value)
    return fold(value) if kind in _FOLDED else value


def atoms_of(conjunct: Conjunct) -> Iterator[Atom]:
    """Every atom in it, negated ones too."""
    match conjunct:
        case Atom():
            yield conjunct
        case Negation():
            yield from atoms_of(conjunct.part)
        case Choice():
            for part in conjunct.parts:
                for inner in part:
                    yield from atoms_of(inner)
