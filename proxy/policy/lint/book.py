"""All rules as lint looks at them: in the order of evaluation, with their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.generation import ARBITRATED, Generation
from proxy.policy.lint.facets import Conjunct, conjuncts


@dataclass(frozen=True)
class Entry:
    """A rule in its place. `group` numbers its sublayer where sublayers are arbitrated, else 0."""

    rule: ast.Rule
    file: ast.PolicyFile
    group: int

    @property
    def id(self) -> str:
        return self.rule.id

    @cached_property
    def permits(self) -> bool:
        return any(isinstance(action, ast.Permit) for action in self.rule.then)

    @cached_property
    def denies(self) -> bool:
        return any(isinstance(action, ast.Block) for action in self.rule.then)

    @cached_property
    def terminal(self) -> ast.Action | None:
        return next((a for a in self.rule.then if isinstance(a, ast.TERMINAL)), None)

    @cached_property
    def when(self) -> tuple[Conjunct, ...]:
        """What must hold, all of it; () for a rule without a condition."""
        return conjuncts(self.rule.when, self.file.file, every=self.permits)

    @cached_property
    def unless(self) -> tuple[Conjunct, ...]:
        """The exception, also as conjuncts: where all hold the rule does not apply."""
        return conjuncts(self.rule.unless, self.file.file, every=not self.permits)

    @cached_property
    def fields(self) -> frozenset[str]:
        """Every field that it tests anywhere."""
        conditions = (self.rule.when, self.rule.unless)
        return frozenset(test.field for part in conditions for test in tests_in(part))


@dataclass(frozen=True)
class Book:
    """`layers` holds the rules of each layer in the order of evaluation."""

    files: tuple[ast.PolicyFile, ...]
    layers: Mapping[Layer, tuple[Entry, ...]]

    @property
    def entries(self) -> Iterator[Entry]:
        for entries in self.layers.values():
            yield from entries


def book_of(files: Sequence[ast.PolicyFile], generation: Generation) -> Book:
    """The order is the generation's own."""
    written = {rule.id: (rule, file) for file in files for rule in file.rules}
    layers = {
        layer: tuple(
            Entry(*written[rule.id], group=rule.group if layer in ARBITRATED else 0)
            for rule in compiled.rules
        )
        for layer, compiled in generation.layers.items()
    }
    return Book(tuple(files), layers)


def tests_in(condition: ast.Condition | None) -> Iterator[ast.Test]:
    """Every test of a condition, as it is written."""
    match condition:
        case ast.Test():
            yield condition
        case ast.Not():
            yield from tests_in(condition.part)
        case ast.All() | ast.AnyOf():
            for part in condition.parts:
                yield from tests_in(part)
