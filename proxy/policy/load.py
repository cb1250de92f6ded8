"""One policy file from its bytes: checked in full, every problem placed, nothing compiled.

Pure: other files (lists, pages, local files) come through `read_file` and `list_folder`, which
are handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, SequenceNode

from proxy.anomalies import ANOMALIES
from proxy.errors import PolicyError, Problem
from proxy.model import Layer
from proxy.policy import ast, schema
from proxy.policy.actions import build_actions, check_actions
from proxy.policy.complain import complain
from proxy.policy.document import Document, is_nothing, read_document
from proxy.policy.globs import compile_globs, is_glob
from proxy.policy.positions import Complaints, entries, value_of
from proxy.policy.resources import ListFolder, ReadFile, Resources, no_folders
from proxy.policy.scalars import kind_of
from proxy.policy.suggest import hint
from proxy.policy.together import Claims, check_together, claims_of
from proxy.policy.when import ConditionReader, Macro

_NO_MACRO = Macro(None, frozenset(), 0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as far as it could be read. `policy` is whole where `problems` is empty."""

    policy: ast.PolicyFile | None
    problems: tuple[Problem, ...]
    claims: Claims


def parse_policy(
    name: str, text: bytes, read_file: ReadFile, list_folder: ListFolder = no_folders
) -> ast.PolicyFile:
    """The policy of one file. Raises PolicyError with all its problems.

    `name` is how messages call the file. Sublayers may be declared in another file, so whether
    they exist is not checked here.
    """
    loaded = load_policy(name, text, read_file, list_folder)
    problems = [*loaded.problems, *check_together([loaded.claims], sublayers=False)]
    if problems or loaded.policy is None:
        raise PolicyError(problems)
    return loaded.policy


def load_policy(
    name: str, text: bytes, read_file: ReadFile, list_folder: ListFolder = no_folders
) -> Loaded:
    """Read what can be read of a file and collect what is wrong with it."""
    complaints = Complaints(name)
    document = read_document(text, complaints)
    if document is None:
        return Loaded(None, tuple(complaints.all), Claims(name))
    if not isinstance(document.root, MappingNode):
        complaints.at(document.root, f"{kind_of(document.data)}, expected a mapping of keys")
        return Loaded(None, tuple(complaints.all), Claims(name))
    resources = Resources(document, complaints, read_file, list_folder)
    policy = _FileReader(document, complaints, resources).read()
    return Loaded(policy, tuple(complaints.all), claims_of(name, document))


class _FileReader:
    def __init__(self, document: Document, complaints: Complaints, resources: Resources) -> None:
        self._data: dict[str, Any] = document.data
        self._root = document.root
        self._complaints = complaints
        self._resources = resources
        self._macros: dict[str, Macro] = {}
        self._open_macros: list[str] = []
        macros = value_of(self._root, "macros")
        self._macro_nodes = {n: node for n, _, node in entries(macros)} if macros else {}

    def read(self) -> ast.PolicyFile | None:
        model = self._head()
        defaults = model.defaults if model is not None else schema.Defaults()
        for name, node in self._macro_nodes.items():
            self._macro(name, node)
        rules, lists = self._rules(defaults), self._resources.lists()
        self._check_anomalies()
        if model is None:
            return None
        return ast.PolicyFile(
            file=self._complaints.file,
            policy=model.policy,
            description=model.description,
            rules=rules,
            lists=lists,
            sublayers=tuple(model.sublayers.items()),
            anomalies=tuple(model.anomalies.items()),
            on_reload=ast.OnReload(model.defaults.on_reload),
        )

    def _head(self) -> schema.PolicyModel | None:
        """Everything but the rules."""
        try:
            return schema.PolicyModel.model_validate(self._data)
        except ValidationError as error:
            complain(self._complaints, self._root, schema.PolicyModel, error)
            return None

    # --- rules

    def _rules(self, defaults: schema.Defaults) -> tuple[ast.Rule, ...]:
        node = value_of(self._root, "rules")
        if node is None or "rules" not in self._data:
            return ()
        if not isinstance(node, SequenceNode):
            found = kind_of(self._data["rules"])
            self._complaints.at(node, f"{found} as rules, expected a list of rules")
            return ()
        pairs = zip(node.value, self._data["rules"], strict=True)
        rules = [self._rule(rule, data, defaults) for rule, data in pairs]
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, node: Node, data: Any, defaults: schema.Defaults) -> ast.Rule | None:
        if not isinstance(node, MappingNode):
            self._complaints.at(node, f"{kind_of(data)} as a rule, expected a mapping")
            return None
        layer = _layer_of(data)
        when, unless = (self._condition(node, key, layer) for key in ("when", "except"))
        then = value_of(node, "then")
        if isinstance(then, MappingNode):
            check_actions(self._complaints, then, layer)
        try:
            model = schema.RuleModel.model_validate(data)
        except ValidationError as error:
            complain(self._complaints, node, schema.RuleModel, error)
            return None
        if layer is None or then is None:
            return None
        actions = build_actions(model.then, then, layer, self._resources)
        return _build_rule(model, layer, (when, unless), actions, defaults, self._mark(node))

    def _mark(self, node: Node) -> ast.Mark:
        return self._complaints.mark(node)

    def _condition(self, rule: Node, key: str, layer: Layer | None) -> ast.Condition | None:
        node = value_of(rule, key)
        if node is None or is_nothing(node):
            return None
        return self._reader().read(node, layer)

    def _reader(self) -> ConditionReader:
        names = tuple(self._macro_nodes)
        return ConditionReader(self._complaints, self._resources.types, names, self._macro)

    # --- macros

    def _macro(self, name: str, used: Node) -> Macro | None:
        """A macro by name, read on first use; None (after a complaint, but for unknown names)."""
        if name in self._open_macros:
            circle = " > ".join((*self._open_macros, name))
            self._complaints.at(used, f"macro {name} uses itself: {circle}")
            return _NO_MACRO
        node = self._macro_nodes.get(name)
        if node is None:
            return None
        if name not in self._macros:
            self._open_macros.append(name)
            self._macros[name] = self._reader().read_macro(node)
            self._open_macros.pop()
        return self._macros[name]

    # --- anomalies

    def _check_anomalies(self) -> None:
        node = value_of(self._root, "anomalies")
        for pattern, key, value in entries(node) if node is not None else ():
            matches = compile_globs((pattern,))
            meant = [anomaly for name, anomaly in ANOMALIES.items() if matches(name)]
            if not meant:
                what = "no anomaly matches" if is_glob(pattern) else "unknown anomaly"
                self._complaints.at(key, f"{what} {pattern!r}", hint(pattern, ANOMALIES))
            elif value.value == "repair" and not any(anomaly.repairable for anomaly in meant):
                self._complaints.at(
                    value, f"{pattern} cannot be repaired", "no RFC says how to read it: refuse it"
                )


def _layer_of(data: Any) -> Layer | None:
    """The layer of a rule that may be wrong in other ways."""
    name = data.get("layer") if isinstance(data, dict) else None
    return Layer(name) if name in list(Layer) else None


def _build_rule(
    model: schema.RuleModel,
    layer: Layer,
    conditions: tuple[ast.Condition | None, ast.Condition | None],
    actions: tuple[ast.Action, ...],
    defaults: schema.Defaults,
    mark: ast.Mark,
) -> ast.Rule:
    return ast.Rule(
        id=model.id,
        layer=layer,
        when=conditions[0],
        unless=conditions[1],
        then=actions,
        mark=mark,
        description=model.description,
        sublayer=model.sublayer or defaults.sublayer,
        weight=defaults.weight if model.weight is None else model.weight,
        shadow=(model.mode or defaults.mode) == "shadow",
        severity=model.severity or defaults.severity,
        tags=tuple(model.tags),
    )
