"""Tests of a message's content: what is in it, how much it is, what its digest is.

Content comes in pieces, so a test may be *pending*: a text that was not found may still come.
A rule must not act on what may still change, and one that blocks must not wait for it. So
while the body is not complete a pending test has the value that keeps its rule from applying:
false, or true where it stands under an odd number of `not` (and in an `except`, which turns it
once more). What is unknown for another reason stays unknown, and a rule that blocks counts it
as true at once.

Before there is any content (`Facts.body` is None), and when it cannot be decoded, tests are
unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.patterns import StreamPattern, literal, regex
from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.facts import BodyFacts
from proxy.policy.fields import FIELDS, Kind
from proxy.policy.lists import ListBook
from proxy.policy.operators import Check, compile_check
from proxy.policy.scope import Scope

Predicate = Callable[[Scope], bool | None]
#: The number of a pattern among those of its layer.
Number = Callable[[StreamPattern], int]
#: What a size says while more may come: True and False for good, None: not yet.
_Soon = Callable[[int], bool | None]

#: Of one layer, all rules together: what is searched for costs memory and time per byte.
MAX_PATTERNS = 4096
#: Fields that are answered here.
BODY_FIELDS = frozenset({"body", "body.size", "body.sha256"})


def compile_body_test(
    test: ast.Test, lists: ListBook, number: Number, *, positive: bool
) -> Predicate:
    """The predicate of a test; `positive`: it speaks for its rule, not under a `not`.

    Raises ValueError, in words for the policy's author.
    """
    pending = not positive
    if test.field == "body":
        found = [patterns_of(compare, lists) for compare in test.compares]
        return _contains([frozenset(map(number, patterns)) for patterns in found], pending)
    if test.field == "body.size":
        return _size([_bounded(compare, lists) for compare in test.compares], pending)
    kind = FIELDS[test.field].kind
    return _digest([compile_check(compare, kind, lists) for compare in test.compares], pending)


def patterns_of(compare: ast.Compare, lists: ListBook) -> list[StreamPattern]:
    """What is searched for; one of them will do. Raises ValueError for what cannot be."""
    match compare.op:
        case Op.REGEX:
            return [regex(str(compare.value))]
        case Op.IS:
            values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
        case Op.IN:
            name = str(compare.value)
            if lists.type_of(name) is not ast.ListType.STRING:
                raise ValueError(f"list {name!r} is not a string list")
            values = lists.entries(name)
        case _:
            raise ValueError(f"{compare.op} cannot be used with body")
    if len(values) > MAX_PATTERNS:
        raise ValueError(f"{len(values)} texts to be searched for, at most {MAX_PATTERNS}")
    return [literal(str(value)) for value in values]


def _body(scope: Scope, field: str) -> BodyFacts | None:
    """None: unknown."""
    unknown = scope.facts.unknown
    return None if "body" in unknown or field in unknown else scope.facts.body


def _contains(checks: list[frozenset[int]], pending: bool) -> Predicate:
    def test(scope: Scope) -> bool | None:
        body = _body(scope, "body")
        if body is None:
            return None
        matched = body.matched
        if not any(map(matched.isdisjoint, checks)):
            return True
        return False if body.complete else pending

    return test


def _digest(checks: list[Check], pending: bool) -> Predicate:
    def test(scope: Scope) -> bool | None:
        body = _body(scope, "body.sha256")
        if body is None:
            return None
        if not body.complete:
            return pending
        digest = body.sha256
        return None if digest is None else all(check(digest) for check in checks)

    return test


def _size(bounds: list[tuple[Check, _Soon]], pending: bool) -> Predicate:
    def test(scope: Scope) -> bool | None:
        body = _body(scope, "body.size")
        if body is None:
            return None
        if body.complete:
            return all(check(body.size) for check, _ in bounds)
        soon = [of(body.size) for _, of in bounds]
        if False in soon:
            return False
        return pending if None in soon else True

    return test


def _bounded(compare: ast.Compare, lists: ListBook) -> tuple[Check, _Soon]:
    """A comparison of the size, and what can be said of it before the end: it only grows."""
    if compare.op is Op.EXISTS:
        there = bool(compare.value)
        return lambda size: there, lambda size: there
    check = compile_check(compare, Kind.NUMBER, lists)
    if compare.op in (Op.GT, Op.GE):
        return check, lambda size: True if check(size) else None
    if compare.op in (Op.LT, Op.LE):
        return check, lambda size: None if check(size) else False
    largest = max(_upper(value) for value in compare.value)
    return check, lambda size: False if size > largest else None


def _upper(value: Any) -> int:
    return int(value[1]) if isinstance(value, tuple) else int(value)
