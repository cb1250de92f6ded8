"""Which rules a test showed: to act, and not to act where they were asked.

A rule is shown not to act when it was evaluated in a test and acted nowhere in it. A rule
behind the one that decided was not evaluated, and so nothing is shown of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

from proxy.model import Layer
from proxy.policy.facts import Facts
from proxy.policy.generation import ARBITRATED, Generation, LayerRules
from proxy.policy.ruling import Policy, Ruling


class Watched:
    """A generation that remembers, for one run of one test, which rules it evaluated."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.acted: set[str] = set()
        self.asked: set[str] = set()

    @property
    def policy(self) -> Policy:
        """As the engine takes it; whatever is not `decide` is the generation's own."""
        return cast(Policy, self)

    def __getattr__(self, name: str) -> object:
        return getattr(self._generation, name)

    def decide(self, layer: Layer, facts: Facts) -> Ruling:
        ruling = self._generation.decide(layer, facts)
        rules = self._generation.layers.get(layer)
        if rules is not None:
            hits = {hit.rule for hit in ruling.hits}
            self.acted |= hits
            self.asked |= set(_evaluated(layer, rules, hits))
        return ruling

    @property
    def idle(self) -> set[str]:
        """Rules that were evaluated and never acted."""
        return self.asked - self.acted


def _evaluated(layer: Layer, rules: LayerRules, hits: Collection[str]) -> Iterable[str]:
    """Rules up to the one that decided; at the arbitrated layers of every sublayer."""
    settled: set[int] = set()
    for rule in rules.rules:
        group = rule.group if layer in ARBITRATED else 0
        if group in settled:
            continue
        yield rule.id
        if rule.id in hits and rule.verdict is not None and not rule.shadow:
            settled.add(group)
