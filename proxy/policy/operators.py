"""The operators of a condition: a comparison compiled to a check of one value.

Values come as `proxy.policy.extract` reads them; literals and globs of the policy are brought
to the same form here. Every function raises ValueError, in words for the policy's author, for
an operator or a value that the field's kind cannot have.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.fields import Kind
from proxy.policy.globs import compile_globs, is_glob
from proxy.policy.lists import CidrSet, DomainSet, ListBook, domain, fold, octets
from proxy.policy.regex import compile_regex

Check = Callable[[Any], bool]

_ORDER = {Op.GT: operator.gt, Op.GE: operator.ge, Op.LT: operator.lt, Op.LE: operator.le}
_TEXTS = frozenset({Kind.TEXT, Kind.TEXT_CI, Kind.PATH, Kind.DOMAIN, Kind.ENUM})
_FOLDED = frozenset({Kind.TEXT_CI, Kind.DOMAIN, Kind.ENUM, Kind.HASH})
_LISTS: dict[Kind, frozenset[ast.ListType]] = {
    Kind.IP: frozenset({ast.ListType.CIDR}),
    Kind.DOMAIN: frozenset({ast.ListType.DOMAIN, ast.ListType.STRING}),
    Kind.TEXT: frozenset({ast.ListType.STRING, ast.ListType.HASH}),
    Kind.TEXT_CI: frozenset({ast.ListType.STRING, ast.ListType.HASH}),
    Kind.HASH: frozenset({ast.ListType.HASH}),
}
_FEW = 8  #: up to this many suffixes one endswith() is quicker than a set


def compile_check(compare: ast.Compare, kind: Kind, lists: ListBook) -> Check:
    if kind is Kind.PATH:
        return _path(compare, lists)
    match compare.op:
        case Op.IS:
            values = compare.value if isinstance(compare.value, tuple) else (compare.value,)
            return _is(values, kind)
        case Op.IN:
            return _in(str(compare.value), kind, lists)
        case Op.REGEX:
            if kind not in _TEXTS:
                raise ValueError(f"regex needs text, this field is {_article(kind)}")
            return compile_regex(str(compare.value), fold=kind in _FOLDED)
        case Op.GT | Op.GE | Op.LT | Op.LE:
            return _ordered(compare, kind)
    raise ValueError(f"{compare.op} cannot be used here")


def _path(compare: ast.Compare, lists: ListBook) -> Check:
    """Windows starts C:\\A.EXE for c:\\a.exe, so its paths (no / in front) compare without case."""
    exact = compile_check(compare, Kind.TEXT, lists)
    folded = compile_check(compare, Kind.TEXT_CI, lists)
    return lambda value: exact(value) if value.startswith("/") else folded(value)


def _ordered(compare: ast.Compare, kind: Kind) -> Check:
    if kind is not Kind.NUMBER:
        raise ValueError(f"{compare.op} needs a number, this field is {_article(kind)}")
    bound, holds = _number(compare.value), _ORDER[compare.op]
    return lambda value: bool(holds(value, bound))


def _in(name: str, kind: Kind, lists: ListBook) -> Check:
    found = lists.type_of(name)
    if found not in _LISTS.get(kind, ()):
        raise ValueError(f"list {name!r} holds {found.value} entries, this field {_article(kind)}")
    return lists.check(name, folded=kind in _FOLDED)


# --- `is` by kind --------------------------------------------------------------------------


def _is(values: tuple[Any, ...], kind: Kind) -> Check:
    if not values:
        raise ValueError("an empty list of values matches nothing")
    match kind:
        case Kind.IP:
            return CidrSet(values).__contains__
        case Kind.NUMBER:
            return _is_number(values)
        case Kind.TIME:
            return _is_time(values)
        case Kind.DOMAIN:
            return _is_domain([domain(str(value)) for value in values])
        case Kind.TEXT | Kind.PATH:
            return compile_globs(octets(str(value)) for value in values)
        case Kind.TEXT_CI | Kind.ENUM:
            return compile_globs(fold(str(value)) for value in values)
        case Kind.BOOL:
            return frozenset(map(_truth, values)).__contains__
        case Kind.HASH:
            return frozenset(fold(str(value)) for value in values).__contains__
        case Kind.CONTENT:
            raise ValueError("content is searched, not compared")


def _is_domain(patterns: list[str]) -> Check:
    """`*.x` and plain names by a set when there are many; the rest as for any text."""
    named = [p for p in patterns if not is_glob(p.removeprefix("*."))]
    if len(named) <= _FEW:
        return compile_globs(patterns)
    among = DomainSet(named, exact=True)
    others = compile_globs(p for p in patterns if is_glob(p.removeprefix("*.")))
    return lambda name: name in among or others(name)


def _is_number(values: tuple[Any, ...]) -> Check:
    ranges = tuple((_number(v[0]), _number(v[1])) for v in values if isinstance(v, tuple))
    literals = frozenset(_number(v) for v in values if not isinstance(v, tuple))
    if not ranges:
        return literals.__contains__
    return lambda value: value in literals or any(low <= value <= high for low, high in ranges)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _is_time(values: tuple[Any, ...]) -> Check:
    spans = tuple(_minutes(str(value)) for value in values)

    def within(now: int) -> bool:
        return any(
            start <= now < end if start < end else now >= start or now < end for start, end in spans
        )

    return within


def _minutes(text: str) -> tuple[int, int]:
    """`HH:MM-HH:MM` as minutes since midnight; the end is exclusive, equal ends: all day."""
    start, dash, end = text.partition("-")
    try:
        (h1, m1), (h2, m2) = (map(int, part.strip().split(":")) for part in (start, end))
    except ValueError:
        dash = ""
        h1 = m1 = h2 = m2 = 0
    if not dash or not (h1 < 24 and m1 < 60 and m2 < 60 and h2 * 60 + m2 <= 24 * 60):
        raise ValueError(f"{text!r} is not HH:MM-HH:MM")
    return h1 * 60 + m1, h2 * 60 + m2


def _article(kind: Kind) -> str:
    return {Kind.IP: "an address", Kind.NUMBER: "a number", Kind.TIME: "a time"}.get(
        kind, f"{kind.value} text"
    )
