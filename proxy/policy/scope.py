"""One decision in work: its facts, and what was already found out about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.model import Layer
from proxy.policy.facts import Facts

#: The values of a field: any of them may satisfy a condition; () absent, None unknown.
Values = tuple[Any, ...] | None
Read = Callable[["Scope"], Values]


class Scope:
    """Made for one decision and thrown away with it."""

    __slots__ = ("facts", "layer", "memo", "tags", "values")

    def __init__(self, layer: Layer, facts: Facts) -> None:
        self.layer = layer
        self.facts = facts
        self.tags: list[str] = []  #: put by rules of this decision
        self.values: dict[str, Any] = {}  #: field as written -> Values
        self.memo: dict[int, bool | None] = {}  #: shared condition -> its value
