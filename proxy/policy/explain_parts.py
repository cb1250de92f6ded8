"""A condition taken apart: how each part came out, and which parts were decisive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.policy import ast
from proxy.policy.explain_words import name_of, wanted


@dataclass(frozen=True, slots=True)
class Part:
    """A condition and how it came out; of a test also what its field was, in words."""

    condition: ast.Condition
    value: bool | None  #: None: unknown
    saw: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence, and the place in the policy that it is about."""

    words: str
    mark: ast.Mark


def unknown_tests(*parts: Part | None) -> Iterator[ast.Test]:
    """The tests that left these parts unknown."""
    for part in parts:
        if part is None or part.value is not None:
            continue
        if isinstance(part.condition, ast.Test):
            yield part.condition
        yield from unknown_tests(*part.parts)


def unknown_names(*parts: Part | None) -> frozenset[str]:
    """The fields of `unknown_tests`, as policies write them."""
    return frozenset(map(name_of, unknown_tests(*parts)))


def rests_on(fields: frozenset[str], *parts: Part | None) -> bool:
    """Whether one of these fields, as Facts.unknown names them, left the parts unknown."""
    return any(
        test.field in fields or name_of(test).lower() in fields for test in unknown_tests(*parts)
    )


def value_of(when: Part | None, unless: Part | None) -> bool | None:
    """`when` and not `unless`, as `CompiledRule.applies` has it."""
    value = True if when is None else when.value
    excepted = False if unless is None else unless.value
    if value is False or excepted is True:
        return False
    return None if value is None or excepted is None else True


def reasons_of(
    rule: ast.Rule, when: Part | None, unless: Part | None, value: bool | None
) -> tuple[Reason, ...]:
    """The decisive parts; for a rule that holds all that it rests on."""
    if value is False and unless is not None and unless.value and not _is_false(when):
        return tuple(_prefixed("except: ", _decisive(unless)))
    if value is False and when is not None:
        return tuple(_decisive(when))
    found: list[Reason] = []
    if when is not None and when.value is value:
        found += _decisive(when)
    if unless is not None and (unless.value is None if value is None else True):
        found += _prefixed("except: ", _decisive(unless, negated=value is not None))
    if not found:
        found.append(Reason("it has no condition", rule.mark))
    return tuple(found)


def no_local_file(rule: ast.Rule) -> Reason:
    """Why a rule with map_local does not apply although its conditions hold."""
    prefix = next(a.prefix for a in rule.then if isinstance(a, ast.MapLocal))
    return Reason(f"map_local of {prefix} has no answer to this path", rule.mark)


def _is_false(part: Part | None) -> bool:
    return part is not None and part.value is False


def _prefixed(prefix: str, reasons: Iterator[Reason]) -> Iterator[Reason]:
    return (Reason(prefix + reason.words, reason.mark) for reason in reasons)


def _decisive(part: Part, *, negated: bool = False) -> Iterator[Reason]:
    """The tests without which the condition would have come out otherwise."""
    match part.condition:
        case ast.Test():
            yield Reason(_sentence(part, part.condition, negated), part.condition.mark)
        case ast.Not():
            yield from _decisive(part.parts[0], negated=not negated)
        case _:
            same = [inner for inner in part.parts if inner.value is part.value]
            one_will_do = part.value is isinstance(part.condition, ast.AnyOf)
            for inner in same[:1] if one_will_do else same:
                yield from _decisive(inner, negated=negated)


def _sentence(part: Part, test: ast.Test, negated: bool) -> str:
    name, asked = name_of(test), wanted(test)
    if test.field == "body" and part.value is not None:
        return f"body {'holds' if part.value else 'does not hold'} {asked}"
    if part.value is None:
        return f"{name} is unknown, wanted {'not ' if negated else ''}{asked}"
    if part.value is negated:
        return f"{name} is {part.saw}, wanted {'not ' if negated else ''}{asked}"
    if negated:
        return f"{name} is {part.saw}, not {asked}"
    return f"{name} is {part.saw}" + ("" if _same(part.saw, asked) else f" ({asked})")


def _same(saw: str, asked: str) -> bool:
    return saw in (asked, f"'{asked}'")
