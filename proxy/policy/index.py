"""Which rules can apply at all: found by the values that a rule's condition cannot do without.

When a rule's condition cannot be true unless, say, the host is one of a few names, the rule is
filed under those names and looked at only when the host is one of them. So the cost of a
decision does not grow with the number of rules about other hosts. Rules without such a test
are always looked at.

INVARIANT: leaving a rule out must not change the outcome. A condition is false, never
unknown, when one of its mandatory tests is false; and where the indexed field is unknown, all
rules filed under it are looked at, since a denying rule would match.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from proxy.policy import ast
from proxy.policy.extract import reader
from proxy.policy.fields import FIELDS, Kind
from proxy.policy.globs import is_glob
from proxy.policy.lists import Ancestors, ListBook, domain, octets
from proxy.policy.scope import Read, Scope

#: Indexed fields, the most telling first. The kinds are DOMAIN, or compared literally.
FIELDS_INDEXED = ("host", "sni", "dst.host", "dst.port", "method", "status")
#: A rule with more keys than this (a large list) is cheaper to test than to file.
MAX_KEYS = 1024

Keys = frozenset[object]


class Index:
    """Positions of rules, filed under the values of one field."""

    __slots__ = ("_above", "_ancestors", "_everyone", "_exact", "_read")

    def __init__(self, field: str, filed: Iterable[tuple[int, Keys]]) -> None:
        exact: dict[object, list[int]] = {}
        above: dict[str, list[int]] = {}
        everyone = []
        for position, keys in filed:
            everyone.append(position)
            for key in keys:
                if isinstance(key, str) and key.startswith("*."):
                    above.setdefault(key[2:], []).append(position)
                else:
                    exact.setdefault(key, []).append(position)
        self._read: Read = reader(field, None)
        self._exact = exact
        self._above = above
        self._ancestors = Ancestors(max(map(len, above), default=0))
        self._everyone = everyone

    def positions(self, scope: Scope) -> list[int]:
        """Rules that may apply, in no order, perhaps repeated. Not to be changed."""
        values = self._read(scope)
        if values is None:
            return self._everyone
        found: list[int] = []
        for value in values:
            here = self._exact.get(value)
            if here:
                found = found + here if found else here
            if self._above:
                for name in self._ancestors.of(value):
                    here = self._above.get(name)
                    if here:
                        found = found + here
        return found


class Candidates:
    """The rules of a layer (by position) that a decision has to look at."""

    __slots__ = ("_always", "_indexes")

    def __init__(self, conditions: Iterable[tuple[ast.Condition | None, ListBook]]) -> None:
        always: list[int] = []
        filed: dict[str, list[tuple[int, Keys]]] = {}
        for position, (condition, lists) in enumerate(conditions):
            field, keys = _best(condition, lists)
            if field is None:
                always.append(position)
            else:
                filed.setdefault(field, []).append((position, keys))
        self._always = always
        self._indexes = tuple(Index(field, filed[field]) for field in filed)

    def positions(self, scope: Scope) -> list[int]:
        """In the order of evaluation, each once."""
        found = [index.positions(scope) for index in self._indexes]
        named = [positions for positions in found if positions]
        if not named:
            return self._always
        return sorted({*self._always, *chain.from_iterable(named)})


def _best(condition: ast.Condition | None, lists: ListBook) -> tuple[str | None, Keys]:
    if condition is not None:
        for field in FIELDS_INDEXED:
            keys = mandatory(condition, field, lists)
            if keys is not None and len(keys) <= MAX_KEYS:
                return field, keys
    return None, frozenset()


def mandatory(condition: ast.Condition, field: str, lists: ListBook) -> Keys | None:
    """Values of `field` without one of which the condition is false; None: there are none.

    `*.x` stands for the subdomains of x.
    """
    match condition:
        case ast.Test():
            return _keys(condition, lists) if condition.field == field else None
        case ast.All():
            found = [mandatory(part, field, lists) for part in condition.parts]
            usable = [keys for keys in found if keys is not None]
            return min(usable, key=len) if usable else None
        case ast.AnyOf():
            found = [mandatory(part, field, lists) for part in condition.parts]
            usable = [keys for keys in found if keys is not None]
            complete = bool(found) and len(usable) == len(found)
            return frozenset().union(*usable) if complete else None
        case ast.Not():
            return None


def _keys(test: ast.Test, lists: ListBook) -> Keys | None:
    """Any one operator's values will do: all operators of a test must hold."""
    by_name = FIELDS[test.field].kind is Kind.DOMAIN
    for compare in test.compares:
        if compare.op is ast.Op.IS:
            values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
            keys = _literal_keys(values, by_name)
        elif compare.op is ast.Op.IN and by_name:
            keys = _list_keys(str(compare.value), lists)
        else:
            keys = None
        if keys is not None:
            return keys
    return None


def _literal_keys(values: tuple[object, ...], by_name: bool) -> Keys | None:
    keys: set[object] = set()
    for value in values:
        if isinstance(value, int):
            keys.add(value)
            continue
        if not isinstance(value, str):
            return None  # a range of numbers
        key = domain(value) if by_name else octets(value)
        if is_glob(key.removeprefix("*.") if by_name else key):
            return None
        keys.add(key)
    return frozenset(keys)


def _list_keys(name: str, lists: ListBook) -> Keys | None:
    entries = lists.entries(name)
    if len(entries) > MAX_KEYS:
        return None
    names = frozenset(map(domain, entries))
    if lists.type_of(name) is ast.ListType.STRING:
        return names
    return names | {f"*.{entry}" for entry in names if not entry.startswith("*.")}
