"""The JSON Schemas of policy files and their tests: editors complete and check while one types.

Made of the models of `proxy.policy.schema` and the tables of fields, operators and anomalies;
nothing of the language is said twice. It is laxer than `check`: what depends on a rule's layer
or on other names of the file only the loader knows.
"""

from __future__ import annotations

from typing import Any

from proxy.anomalies import ANOMALIES
from proxy.model import Layer
from proxy.policy import schema
from proxy.policy.actions import LAYERS_OF
from proxy.policy.ast import ListType, Op
from proxy.policy.cases import CasesModel
from proxy.policy.fields import FIELDS, FieldSpec, Kind
from proxy.policy.operands import LISTS_OF, OPERATORS

Json = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_CONDITION: Json = {"$ref": "#/$defs/Condition"}
_SCALARS = ["string", "number", "boolean"]
_OPERATOR_DOCS = {
    Op.IS: "One of these values.",
    Op.IN: "Name of a list.",
    Op.REGEX: "RE2 pattern, found anywhere in the value.",
    Op.GT: "Greater than.",
    Op.GE: "Greater or equal.",
    Op.LT: "Less than.",
    Op.LE: "Less or equal.",
    Op.EXISTS: "Whether it is there at all.",
}


def policy_schema() -> Json:
    """The schema as plain data, in a stable order."""
    made = schema.PolicyModel.model_json_schema(by_alias=True)
    made["$defs"] |= {"Condition": _condition(), **_values()}
    made["properties"]["anomalies"]["propertyNames"] = {"anyOf": _anomaly_names()}
    _describe_actions(made["$defs"]["Then"])
    about = "A policy file. The reference is policies/README.md."
    return _whole(made, "Sluicegate policy", about)


def tests_schema() -> Json:
    """The schema of `*_test.yaml` files."""
    about = "Tests of policies. The reference is policies/README.md, Testing policies."
    return _whole(CasesModel.model_json_schema(by_alias=True), "Sluicegate policy tests", about)


def _whole(made: Json, title: str, about: str) -> Json:
    whole = {
        "$schema": _DIALECT,
        "title": title,
        "description": about,
        **{key: made[key] for key in ("type", "properties", "required", "additionalProperties")},
        "$defs": dict(sorted(made["$defs"].items())),
    }
    cleaned: Json = _clean(whole)
    return cleaned


def _clean(node: Any) -> Any:
    """Conditions in the place of their marks; no generated titles, no null that is refused."""
    if isinstance(node, list):
        return [_clean(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("$comment") == schema.CONDITION_MARK:
        return {**_CONDITION, **{k: v for k, v in node.items() if k == "description"}}
    kept = {}
    for key, value in node.items():
        if key == "default" and value in (None, [], {}):
            continue
        if (
            key == "title"
            and isinstance(value, str)
            and node is not value
            and "$schema" not in node
        ):
            continue
        kept[key] = _clean(value)
    if "patternProperties" in kept:
        kept.setdefault("additionalProperties", False)
    return _without_null(kept)


def _without_null(node: Json) -> Json:
    """`X | None` is pydantic's word for optional; in a file a key has a value or is absent."""
    options = node.get("anyOf")
    if not isinstance(options, list) or {"type": "null"} not in options:
        return node
    left = [option for option in options if option != {"type": "null"}]
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    if len(left) == 1:
        return {**left[0], **rest}
    return {"anyOf": left, **rest}


def _anomaly_names() -> list[Json]:
    """Known ids, each with its meaning, and globs."""
    known = [{"const": name, "description": anomaly.doc} for name, anomaly in ANOMALIES.items()]
    return [*known, {"type": "string", "pattern": r"[*?]"}]


def _describe_actions(then: Json) -> None:
    then["minProperties"] = 1
    for name, body in then["properties"].items():
        layers = LAYERS_OF[name]
        if layers != frozenset(Layer):
            where = ", ".join(layer.value for layer in Layer if layer in layers)
            body["description"] = f"{body.get('description', '')} At: {where}.".strip()


# --- conditions ----------------------------------------------------------------------------


def _condition() -> Json:
    several = {"type": "array", "items": _CONDITION, "minItems": 1}
    properties: Json = {
        "all": {**several, "description": "All of these hold."},
        "any": {**several, "description": "At least one of these holds."},
        "not": {**_CONDITION, "description": "This does not hold; unknown stays unknown."},
        "macro": {"type": "string", "description": "Name of a condition of `macros`."},
    }
    patterns: Json = {}
    for name, spec in FIELDS.items():
        described = {**_value_of(name, spec), "description": _doc(spec)}
        if spec.takes_arg:
            patterns[f"^{name.replace('.', chr(92) + '.')}\\.{_NAME}$"] = described
        else:
            properties[name] = described
    return {
        "type": "object",
        "description": "All keys must hold.",
        "properties": properties,
        "patternProperties": patterns,
        "additionalProperties": False,
        "minProperties": 1,
    }


def _doc(spec: FieldSpec) -> str:
    doc = spec.doc[0].upper() + spec.doc[1:] + "."
    if spec.layers == frozenset(Layer):
        return doc
    return f"{doc} At: {', '.join(layer.value for layer in Layer if layer in spec.layers)}."


def _value_of(name: str, spec: FieldSpec) -> Json:
    if spec.kind is not Kind.ENUM:
        return {"$ref": f"#/$defs/{_title(spec.kind)}"}
    return _operand(spec.kind, {"type": "string", "enum": list(spec.values)})


def _title(kind: Kind) -> str:
    return f"{''.join(part.capitalize() for part in kind.value.split('_'))}Test"


def _values() -> Json:
    return {_title(kind): _operand(kind, literal) for kind, literal in _LITERALS.items()}


_LITERALS: dict[Kind, Json] = {
    Kind.IP: {"type": "string", "examples": ["10.20.0.0/16", "192.0.2.7", "2001:db8::/32"]},
    Kind.NUMBER: {
        "anyOf": [
            {"type": "integer"},
            {"type": "string", "pattern": r"^\s*[0-9]+\s*-\s*[0-9]+\s*$"},
        ],
        "examples": [443, "8000-8080"],
    },
    Kind.DOMAIN: {"type": _SCALARS, "examples": ["example.com", "*.example.com"]},
    Kind.TEXT: {"type": _SCALARS, "examples": ["/admin*"]},
    Kind.TEXT_CI: {"type": _SCALARS, "examples": ["text/*"]},
    Kind.PATH: {"type": _SCALARS, "examples": ["/usr/bin/curl", "*\\curl.exe"]},
    Kind.BOOL: {"type": "boolean"},
    Kind.TIME: {"type": "string", "examples": ["22:00-06:00"]},
    Kind.CONTENT: {"type": _SCALARS, "minLength": 1, "examples": ["BEGIN RSA PRIVATE KEY"]},
    Kind.HASH: {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
}


def _operand(kind: Kind, literal: Json) -> Json:
    """One value, a list of values, or operators."""
    values = {"anyOf": [literal, {"type": "array", "items": literal, "minItems": 1}]}
    operators = {
        "type": "object",
        "properties": {op.value: _operator(op, kind, values) for op in OPERATORS[kind]},
        "additionalProperties": False,
        "minProperties": 1,
    }
    return {"anyOf": [*values["anyOf"], operators]}


def _operator(op: Op, kind: Kind, values: Json) -> Json:
    doc = _OPERATOR_DOCS[op]
    match op:
        case Op.IS:
            return {**values, "description": doc}
        case Op.IN:
            types = " or ".join(LISTS_OF.get(kind, tuple(ListType)))
            return {"type": "string", "description": f"{doc} Of type {types}."}
        case Op.REGEX:
            return {"type": "string", "minLength": 1, "description": doc}
        case Op.EXISTS:
            return {"type": "boolean", "description": doc}
        case _:
            return {"type": "integer", "description": doc}
