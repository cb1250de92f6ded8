"""Read conditions (`when`, `except`, macros) from their YAML nodes.

A condition is a mapping; all its keys must hold. A key is `all`, `any`, `not`, `macro`, or a
field of `proxy.policy.fields`, with `.NAME` behind it where the field takes a name. Whatever
is wrong is reported at its own place, and reading goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.model import Layer
from proxy.policy import ast
from proxy.policy.document import is_nothing, scalar_of
from proxy.policy.fieldnames import read_name
from proxy.policy.fields import FIELDS, FieldSpec
from proxy.policy.operands import Operands
from proxy.policy.positions import Complaints
from proxy.policy.scalars import kind_of, shortened
from proxy.policy.suggest import hint, nearest, one_of
from proxy.policy.values import Unfit

CONNECTIVES = ("all", "any", "not", "macro")
#: Names that other tools use, and ours for the same thing.
_OTHER_NAMES = {
    "domain": "host",
    "hostname": "host",
    "ip": "dst.ip",
    "port": "dst.port",
    "exe": "principal.exe",
    "process": "principal.exe",
    "user": "principal.user",
    "comm": "principal.name",
    "process.name": "principal.name",
    "package": "principal.package",
    "is_loopback": "loopback",
    "uri": "url",
    "user_agent": "header.User-Agent",
    "referer": "header.Referer",
    "headers": "header.NAME",
    "cookies": "cookie.NAME",
    "tags": "tag",
    "or": "any",
    "and": "all",
}
#: A condition of more tests, macros filled in, is a list that lost its way.
MAX_TESTS = 20_000

Lists = Mapping[str, ast.ListType | None]


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro read once. `fields` are all that it tests, through other macros too."""

    condition: ast.Condition | None
    fields: frozenset[str]
    tests: int


class ConditionReader:
    """Reads the conditions of one file. `macro` gives a macro by name, None if there is none."""

    def __init__(
        self,
        complaints: Complaints,
        lists: Lists,
        macros: tuple[str, ...],
        macro: Callable[[str, Node], Macro | None],
    ) -> None:
        self._complaints = complaints
        self._operands = Operands(complaints, lists)
        self._macro_names = macros
        self._macro = macro
        self._layer: Layer | None = None
        self._fields: set[str] = set()
        self._tests = 0

    def read(self, node: Node, layer: Layer | None) -> ast.Condition | None:
        """The condition of a rule at `layer`; None after a complaint."""
        self._layer, self._fields, self._tests = layer, set(), 0
        condition = self._condition(node)
        if self._tests > MAX_TESTS:
            self._complaints.at(
                node, f"a condition of {self._tests} tests", f"at most {MAX_TESTS}; use lists"
            )
            return None
        return condition

    def read_macro(self, node: Node) -> Macro:
        """A macro's condition; its layers are checked where it is used."""
        condition = self.read(node, None)
        return Macro(condition, frozenset(self._fields), self._tests)

    def _condition(self, node: Node) -> ast.Condition | None:
        if not isinstance(node, MappingNode):
            found = kind_of(scalar_of(node)) if isinstance(node, ScalarNode) else "a list"
            advice = "write all: [...] or any: [...]" if isinstance(node, SequenceNode) else ""
            self._complaints.at(node, f"{found} as a condition, expected a mapping", advice)
            return None
        if not node.value:
            self._complaints.at(node, "an empty condition", "for `always` leave it out")
            return None
        parts = [self._part(key, value) for key, value in node.value]
        good = tuple(part for part in parts if part is not None)
        if len(good) < len(parts):
            return None
        return good[0] if len(good) == 1 else ast.All(good, self._complaints.mark(node))

    def _part(self, key: Node, value: Node) -> ast.Condition | None:
        """One key of a condition. What the document complained of already is passed over."""
        if not isinstance(key, ScalarNode) or is_nothing(value):
            return None
        match key.value:
            case "all" | "any" as name:
                return self._several(name, key, value)
            case "not":
                part = self._condition(value)
                return ast.Not(part, self._complaints.mark(key)) if part is not None else None
            case "macro":
                return self._use(value)
        return self._test(key, value)

    def _several(self, name: str, key: Node, node: Node) -> ast.Condition | None:
        if not isinstance(node, SequenceNode) or not node.value:
            self._complaints.at(node, f"`{name}` needs a list of conditions", "- host: a.example")
            return None
        parts = [self._condition(item) for item in node.value]
        good = tuple(part for part in parts if part is not None)
        if len(good) < len(parts):
            return None
        mark = self._complaints.mark(key)
        return ast.All(good, mark) if name == "all" else ast.AnyOf(good, mark)

    def _use(self, node: Node) -> ast.Condition | None:
        if not isinstance(node, ScalarNode):
            self._complaints.at(node, "`macro` needs the name of one macro")
            return None
        name = node.value
        macro = self._macro(name, node)
        if macro is None:
            if name not in self._macro_names:
                advice = hint(name, self._macro_names)
                self._complaints.at(node, f"there is no macro named {shortened(name)!r}", advice)
            return None
        self._tests += macro.tests
        self._fields |= macro.fields
        for field in sorted(macro.fields):
            self._check_layer(field, FIELDS[field], node, f"macro {name} tests {field}, which")
        return macro.condition

    # --- tests

    def _test(self, key: ScalarNode, value: Node) -> ast.Condition | None:
        split = self._field(key)
        if split is None:
            return None
        field, arg = split
        spec = FIELDS[field]
        self._tests += 1
        self._fields.add(field)
        self._check_layer(field, spec, key, key.value)
        compares = self._operands.read(field, spec, value)
        if not compares:
            return None
        return ast.Test(field, arg, compares, self._complaints.mark(key))

    def _field(self, key: ScalarNode) -> tuple[str, str | None] | None:
        """(field, name behind it) of a key."""
        text = key.value
        if text in FIELDS and not FIELDS[text].takes_arg:
            return text, None
        if text in FIELDS:
            self._complaints.at(key, f"{text} needs a name", f"write {text}.NAME")
            return None
        for field, spec in FIELDS.items():
            if spec.takes_arg and text.startswith(field + "."):
                return self._named(field, text[len(field) + 1 :], key)
        self._complaints.at(key, f"unknown condition {shortened(text)!r}", self._near(text))
        return None

    def _named(self, field: str, arg: str, key: ScalarNode) -> tuple[str, str] | None:
        try:
            return field, read_name(arg)
        except Unfit as error:
            what = f"{error} (in {shortened(key.value)!r})" if field != "cookie" else "bad name"
            self._complaints.at(key, what, error.hint)
            return None

    def _near(self, text: str) -> str:
        meant = _OTHER_NAMES.get(text.lower()) or nearest(text, (*CONNECTIVES, *FIELDS))
        if meant is None:
            return "policies/README.md lists all conditions"
        spec = FIELDS.get(meant)
        return f"did you mean {meant + '.NAME' if spec and spec.takes_arg else meant!r}?"

    def _check_layer(self, field: str, spec: FieldSpec, node: Node, what: str) -> None:
        if self._layer is None or self._layer in spec.layers:
            return
        layers = one_of(layer.value for layer in Layer if layer in spec.layers)
        self._complaints.at(node, f"{what} is not known at {self._layer}", f"it is at {layers}")
