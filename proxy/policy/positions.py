"""Problems with their places: what a check says, and where in the file it points.

A place is a YAML node. Paths (`("rules", 3, "then")`, pydantic's `loc`) are resolved to nodes
only when something is wrong, so that a good file pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.errors import Problem
from proxy.policy.ast import Mark

Path = Sequence[str | int]


class Complaints:
    """Collects the problems of one file, each once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: dict[Problem, None] = {}

    def __len__(self) -> int:
        return len(self._problems)

    @property
    def all(self) -> list[Problem]:
        """In the order of places."""
        return sorted(self._problems)

    def mark(self, node: Node) -> Mark:
        """Where a node begins."""
        start = node.start_mark
        return Mark(self.file, start.line + 1, start.column + 1)

    def at(self, node: Node, message: str, hint: str = "") -> None:
        mark = self.mark(node)
        self.place(mark.line, mark.column, message, hint)

    def place(self, line: int, column: int, message: str, hint: str = "") -> None:
        self.add(Problem(self.file, line, column, message, hint))

    def add(self, problem: Problem) -> None:
        """A problem that has its place already, perhaps in another file (a list)."""
        self._problems[problem] = None


def entries(node: Node) -> Iterator[tuple[str, Node, Node]]:
    """(key, key's node, value's node) of a mapping; nothing for any other node."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                yield key.value, key, value


def value_of(node: Node, key: str) -> Node | None:
    """The value under a key of a mapping, or None."""
    return next((value for name, _, value in entries(node) if name == key), None)


def node_at(root: Node, path: Path, *, key: bool = False) -> Node:
    """The node of a path, or the nearest one above it that exists.

    `key`: the key itself rather than its value, where the path ends in one.
    """
    node = root
    for depth, step in enumerate(path):
        last = depth == len(path) - 1
        below = _step(node, step, key and last)
        if below is None:
            return node
        node = below
    return node


def _step(node: Node, step: str | int, key: bool) -> Node | None:
    if isinstance(node, SequenceNode):
        inside = isinstance(step, int) and 0 <= step < len(node.value)
        return node.value[step] if inside else None
    if step == 0:
        return node  # one value stands for a list of one
    for name, key_node, value in entries(node):
        if name == step:
            return key_node if key else value
    return None
