"""One test of one field, compiled to a predicate: True, False, or None for unknown.

Three-valued as Kleene's logic: an absent field fails every comparison but `exists: false`, an
unknown one makes the whole test unknown. Of several values any may satisfy an operator; all
operators must hold.

A field with readings (path, query, url) asks them by `every`: False means one reading is
enough, True means all of them must match. Rules are compiled so that a rule applies if some
reading satisfies it, a permit only if all do; `not` turns the one into the other.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.extract import READINGS, reader
from proxy.policy.fields import FieldSpec
from proxy.policy.lists import ListBook
from proxy.policy.operators import Check, compile_check
from proxy.policy.scope import Read, Scope

Predicate = Callable[[Scope], bool | None]


def compile_test(test: ast.Test, spec: FieldSpec, lists: ListBook, *, every: bool) -> Predicate:
    """The predicate of a test.

    Raises ValueError, in words for the policy's author, for an operator or value that its
    field cannot have.
    """
    read = reader(test.field, test.arg)
    wanted = [bool(c.value) for c in test.compares if c.op is Op.EXISTS]
    checks = [compile_check(c, spec.kind, lists) for c in test.compares if c.op is not Op.EXISTS]
    if not wanted and not checks:
        raise ValueError(f"{test.field} is compared with nothing")
    if False in wanted and (checks or True in wanted):
        return _constant_but_unknown(read)
    if False in wanted:
        return _absent(read)
    if every and test.field in READINGS:
        return _all_readings(read, checks)
    return _any_value(read, checks)


def _constant_but_unknown(read: Read) -> Predicate:
    """Absent and compared at once: nothing satisfies that."""
    return lambda scope: None if read(scope) is None else False


def _absent(read: Read) -> Predicate:
    def test(scope: Scope) -> bool | None:
        values = read(scope)
        return None if values is None else not values

    return test


def _any_value(read: Read, checks: list[Check]) -> Predicate:
    """Each operator holds for some value."""
    if len(checks) == 1:
        return _any_value_of_one(read, checks[0])

    def test(scope: Scope) -> bool | None:
        values = read(scope)
        if values is None:
            return None
        return bool(values) and all(any(map(check, values)) for check in checks)

    return test


def _any_value_of_one(read: Read, check: Check) -> Predicate:
    def test(scope: Scope) -> bool | None:
        values = read(scope)
        if values is None:
            return None
        for value in values:  # noqa: SIM110 (any() costs a generator on the hottest line)
            if check(value):
                return True
        return False

    return test


def _all_readings(read: Read, checks: list[Check]) -> Predicate:
    def test(scope: Scope) -> bool | None:
        values = read(scope)
        if values is None:
            return None
        return bool(values) and all(all(map(check, values)) for check in checks)

    return test


# --- Kleene's connectives ------------------------------------------------------------------


def all_of(parts: tuple[Predicate, ...]) -> Predicate:
    def test(scope: Scope) -> bool | None:
        value: bool | None = True
        for part in parts:
            found = part(scope)
            if not found:
                if found is False:
                    return False
                value = None
        return value

    return test


def any_of(parts: tuple[Predicate, ...]) -> Predicate:
    def test(scope: Scope) -> bool | None:
        value: bool | None = False
        for part in parts:
            found = part(scope)
            if found:
                return True
            if found is None:
                value = None
        return value

    return test


def negation(part: Predicate) -> Predicate:
    def test(scope: Scope) -> bool | None:
        found = part(scope)
        return None if found is None else not found

    return test


def shared(part: Predicate, slot: int) -> Predicate:
    """A condition that several rules have: evaluated at most once per decision."""

    def test(scope: Scope) -> bool | None:
        memo = scope.memo
        if slot in memo:
            return memo[slot]
        value = memo[slot] = part(scope)
        return value

    return test
