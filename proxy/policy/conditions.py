"""Conditions compiled with sharing: equal parts of different rules become one node.

Two passes: `add` interns every condition of a layer's rules and counts its uses, `predicate`
then makes the closures, with a memo where a node is used more than once. A node that reads
tags has no memo, because rules of the same decision put tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import Problem
from proxy.model import Layer
from proxy.patterns import StreamPattern
from proxy.policy import ast
from proxy.policy.extract import READINGS
from proxy.policy.fields import FIELDS, FieldSpec
from proxy.policy.lists import ListBook
from proxy.policy.match import (
    Predicate,
    all_of,
    any_of,
    compile_test,
    negation,
    shared,
)
from proxy.policy.match_body import BODY_FIELDS, compile_body_test

Key = tuple[object, ...]


@dataclass(slots=True)
class Node:
    """An interned condition. `cost` orders the parts of a conjunction, cheapest first."""

    slot: int
    condition: ast.Condition
    parts: tuple[Node, ...] = ()
    test: Predicate | None = None
    cost: int = 1
    volatile: bool = False
    uses: int = 0
    made: Predicate | None = None


class Conditions:
    """The conditions of one layer. Problems are collected in `problems`, never raised.

    `numbers` numbers the patterns that are searched for in content; given one, its numbers are
    used and new patterns come behind them.
    """

    def __init__(
        self,
        layer: Layer,
        problems: list[Problem],
        numbers: Mapping[StreamPattern, int] | None = None,
    ) -> None:
        self.numbers: dict[StreamPattern, int] = dict(numbers or {})
        self.fields: set[str] = set()
        self._layer = layer
        self._problems = problems
        self._nodes: dict[Key, Node] = {}

    def add(
        self, condition: ast.Condition, lists: ListBook, *, every: bool, positive: bool = True
    ) -> Node:
        """Intern a condition; `every` as in `proxy.policy.match`.

        `positive`: its truth makes the rule apply (`when`), not the contrary (`except`).
        """
        match condition:
            case ast.Test():
                node = self._test(condition, lists, every, positive)
            case ast.Not(inner):
                part = self.add(inner, lists, every=not every, positive=not positive)
                node = self._compound("not", condition, (part,))
            case ast.All() | ast.AnyOf():
                parts = [
                    self.add(part, lists, every=every, positive=positive)
                    for part in condition.parts
                ]
                kind = "any"
                if isinstance(condition, ast.All):
                    kind = "all"
                    parts.sort(key=lambda part: part.cost)
                node = self._compound(kind, condition, tuple(parts))
        node.uses += 1
        return node

    def predicate(self, node: Node) -> Predicate:
        """The closure of a node, after every condition was added."""
        if node.made is None:
            made = self._make(node)
            share = node.uses > 1 and not node.volatile
            node.made = shared(made, node.slot) if share else made
        return node.made

    def _make(self, node: Node) -> Predicate:
        if node.test is not None:
            return node.test
        parts = tuple(self.predicate(part) for part in node.parts)
        match node.condition:
            case ast.Not():
                return negation(parts[0])
            case ast.AnyOf():
                return any_of(parts)
            case _:
                return parts[0] if len(parts) == 1 else all_of(parts)

    def _compound(self, kind: str, condition: ast.Condition, parts: tuple[Node, ...]) -> Node:
        key = (kind, *(part.slot for part in parts))
        if key not in self._nodes:
            self._nodes[key] = Node(
                slot=len(self._nodes),
                condition=condition,
                parts=parts,
                cost=sum(part.cost for part in parts) + 1,
                volatile=any(part.volatile for part in parts),
            )
        return self._nodes[key]

    def _test(self, test: ast.Test, lists: ListBook, every: bool, positive: bool) -> Node:
        quantifier = every and test.field in READINGS
        polarity = positive or test.field not in BODY_FIELDS
        # Lists are named per file: the book's identity keeps namesakes apart.
        book = id(lists) if any(c.op is ast.Op.IN for c in test.compares) else 0
        compares = tuple((c.op, _hashable(c.value)) for c in test.compares)
        key = ("test", test.field, test.arg, compares, quantifier, polarity, book)
        if key not in self._nodes:
            self.fields.add(test.field)
            self._nodes[key] = Node(
                slot=len(self._nodes),
                condition=test,
                test=self._compiled(test, lists, quantifier, polarity),
                cost=4 if any(c.op is ast.Op.REGEX for c in test.compares) else 1,
                volatile=test.field == "tag",
            )
        return self._nodes[key]

    def _compiled(self, test: ast.Test, lists: ListBook, every: bool, positive: bool) -> Predicate:
        try:
            spec = self._spec(test)
            if test.field in BODY_FIELDS:
                return compile_body_test(test, lists, self._number, positive=positive)
            return compile_test(test, spec, lists, every=every)
        except ValueError as error:
            mark = test.mark
            self._problems.append(Problem(mark.file, mark.line, mark.column, str(error)))
            return lambda scope: None  # never asked: a problem ends the compilation

    def _number(self, pattern: StreamPattern) -> int:
        return self.numbers.setdefault(pattern, len(self.numbers))

    def _spec(self, test: ast.Test) -> FieldSpec:
        spec = FIELDS.get(test.field)
        if spec is None:
            raise ValueError(f"there is no condition named {test.field!r}")
        if self._layer not in spec.layers:
            raise ValueError(f"{test.field} is not known at {self._layer.value}")
        if spec.takes_arg is not bool(test.arg):
            needs = "needs a name: " if spec.takes_arg else "takes no name: "
            raise ValueError(f"{test.field} {needs}{test.field}.NAME")
        return spec


def _hashable(value: object) -> object:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else (type(value), value)
