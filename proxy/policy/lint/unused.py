"""What is declared and never used, and rules that are written twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.policy import ast
from proxy.policy.ast import Op
from proxy.policy.document import read_document
from proxy.policy.lint.book import Book, Entry, tests_in
from proxy.policy.lint.finding import Finding, Level
from proxy.policy.positions import Complaints, entries, value_of
from proxy.policy.together import DEFAULT_SUBLAYER, Claims


def unused_lists(book: Book) -> Iterator[Finding]:
    for file in book.files:
        used = {
            str(compare.value)
            for rule in file.rules
            for condition in (rule.when, rule.unless)
            for test in tests_in(condition)
            for compare in test.compares
            if compare.op is Op.IN
        }
        for found in file.lists:
            if found.name not in used:
                yield _unused(f"no rule uses the list {found.name}", found.mark)


def unused_sublayers(claims: Sequence[Claims]) -> Iterator[Finding]:
    used = {name for file in claims for name, _ in file.sublayers_used}
    for file in claims:
        for name, _, mark in file.sublayers:
            if name not in used and name != DEFAULT_SUBLAYER:
                yield _unused(f"no rule is in the sublayer {name}", mark)


def unused_macros(name: str, text: bytes) -> Iterator[Finding]:
    """Macros are gone once a file is loaded, so the file is read again."""
    complaints = Complaints(name)
    document = read_document(text, complaints)
    macros = value_of(document.root, "macros") if document is not None else None
    if document is None or macros is None:
        return
    used = set(_macros_used(document.root))
    for macro, key, _ in entries(macros):
        if macro not in used:
            yield _unused(f"no condition uses the macro {macro}", complaints.mark(key))


def _macros_used(node: Node) -> Iterator[str]:
    waiting = [node]
    seen = set()
    while waiting:
        here = waiting.pop()
        if id(here) in seen:
            continue  # an alias
        seen.add(id(here))
        if isinstance(here, SequenceNode):
            waiting += here.value
        elif isinstance(here, MappingNode):
            for key, value in here.value:
                waiting.append(value)
                if isinstance(key, ScalarNode) and key.value == "macro":
                    yield from _names(value)


def _names(node: Node) -> Iterator[str]:
    for scalar in node.value if isinstance(node, SequenceNode) else [node]:
        if isinstance(scalar, ScalarNode):
            yield scalar.value


def _unused(message: str, mark: ast.Mark) -> Finding:
    return Finding("lint.unused", Level.WARNING, mark, message, "remove it, or use it")


# --- twice ---------------------------------------------------------------------------------


def duplicates(book: Book) -> Iterator[Finding]:
    """Rules of one layer that ask and do the same. What ends the layer is unreachable instead."""
    for layer_entries in book.layers.values():
        first: dict[object, Entry] = {}
        for entry in layer_entries:
            if entry.terminal is not None:
                continue
            key = (frozenset(entry.when), frozenset(entry.unless), entry.rule.unless is None)
            whole = (*key, _done(entry), entry.rule.shadow)
            before = first.setdefault(whole, entry)
            if before is not entry:
                where = f"{before.id} ({before.rule.mark.file}:{before.rule.mark.line})"
                yield Finding(
                    "lint.duplicate",
                    Level.WARNING,
                    entry.rule.mark,
                    f"{entry.id} asks and does the same as {where}",
                    "one of them will do",
                    entry.id,
                )


def _done(entry: Entry) -> str:
    return repr(entry.rule.then)
