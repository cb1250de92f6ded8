"""What policy files must not say against each other: ids, policy names, sublayers.

Works on claims, taken from whatever of a file could be read, so that a file with a mistake
elsewhere still takes part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from yaml.nodes import Node, SequenceNode

from proxy.errors import Problem
from proxy.policy.ast import Mark
from proxy.policy.document import Document
from proxy.policy.positions import Complaints, entries, value_of
from proxy.policy.suggest import hint

Claim = tuple[str, Mark]
DEFAULT_SUBLAYER = "default"


@dataclass(frozen=True, slots=True)
class Claims:
    """Names that a file defines or uses, each with its place."""

    file: str
    policy: tuple[Claim, ...] = ()
    rules: tuple[Claim, ...] = ()
    sublayers: tuple[tuple[str, int, Mark], ...] = ()
    sublayers_used: tuple[Claim, ...] = ()


def claims_of(file: str, document: Document) -> Claims:
    """The claims of a file whose root is a mapping."""
    root, complaints = document.root, Complaints(file)
    rules, defaults = value_of(root, "rules"), value_of(root, "defaults")
    each = list(rules.value) if isinstance(rules, SequenceNode) else []
    users = [*each, defaults] if defaults is not None else each
    weights = document.data.get("sublayers")
    return Claims(
        file=file,
        policy=tuple(_named([root], "policy", complaints)),
        rules=tuple(_named(each, "id", complaints)),
        sublayers=tuple(_weights(root, weights, complaints)),
        sublayers_used=tuple(_named(users, "sublayer", complaints)),
    )


def _named(nodes: Iterable[Node], key: str, complaints: Complaints) -> Iterator[Claim]:
    for node in nodes:
        value = value_of(node, key)
        if value is not None and isinstance(value.value, str):
            yield value.value, complaints.mark(value)


def _weights(root: Node, data: Any, complaints: Complaints) -> Iterator[tuple[str, int, Mark]]:
    node = value_of(root, "sublayers")
    if node is None or not isinstance(data, dict):
        return
    for name, key, _ in entries(node):
        if isinstance(data.get(name), int):
            yield name, data[name], complaints.mark(key)


def check_together(claims: Sequence[Claims], *, sublayers: bool = True) -> list[Problem]:
    """Every contradiction between the files, placed at the later of the two."""
    problems = [
        *_repeated("rule id", (claim for file in claims for claim in file.rules)),
        *_repeated("policy name", (claim for file in claims for claim in file.policy)),
        *_contradicting(claims),
    ]
    return [*problems, *_unknown_sublayers(claims)] if sublayers else problems


def _problem(mark: Mark, message: str, hint: str = "") -> Problem:
    return Problem(mark.file, mark.line, mark.column, message, hint)


def _repeated(what: str, claims: Iterable[Claim]) -> Iterator[Problem]:
    first: dict[str, Mark] = {}
    for name, mark in claims:
        there = first.setdefault(name, mark)
        if there is not mark:
            place = f"{there.file}:{there.line}:{there.column}"
            yield _problem(mark, f"{what} {name!r} is taken", f"by {place}")


def _contradicting(claims: Sequence[Claims]) -> Iterator[Problem]:
    """A sublayer belongs to all files, as WFP's do to all providers: one weight."""
    first: dict[str, tuple[int, Mark]] = {}
    for name, weight, mark in (entry for file in claims for entry in file.sublayers):
        known, there = first.setdefault(name, (weight, mark))
        if known != weight:
            place = f"{there.file}:{there.line}:{there.column}"
            yield _problem(mark, f"sublayer {name!r} weighs {weight}", f"{known} at {place}")


def _unknown_sublayers(claims: Sequence[Claims]) -> Iterator[Problem]:
    known = {DEFAULT_SUBLAYER, *(name for file in claims for name, _, _ in file.sublayers)}
    for name, mark in (use for file in claims for use in file.sublayers_used):
        if name not in known:
            advice = hint(name, sorted(known))
            yield _problem(mark, f"no file declares the sublayer {name!r}", advice)
