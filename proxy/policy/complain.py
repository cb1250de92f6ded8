"""Pydantic's errors as problems: the place in the file, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.nodes import Node

from proxy.policy.positions import Complaints, node_at
from proxy.policy.scalars import kind_of
from proxy.policy.suggest import hint
from proxy.policy.values import Unfit

_KEY = "[key]"


def complain(
    complaints: Complaints, root: Node, model: type[BaseModel], error: ValidationError
) -> None:
    """Report every error of validating the data of `root` as `model`."""
    for details in error.errors(include_url=False):
        path = details["loc"]
        of_key = bool(path) and path[-1] == _KEY
        if of_key:
            path = path[:-1]
        unknown = details["type"] == "extra_forbidden"
        node = node_at(root, path, key=of_key or unknown)
        message, advice = _words(details, model)
        complaints.at(node, message, advice)


def _words(error: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    path, found = error["loc"], kind_of(error["input"])
    context = error.get("ctx", {})
    match error["type"]:
        case "value_error":
            return _own_words(context["error"])
        case "extra_forbidden":
            keys = keys_of(_model_at(model, path[:-1]))
            return f"unknown key {str(path[-1])!r}{_where(path[:-1])}", hint(path[-1], keys)
        case "missing":
            return f"the key {str(path[-1])!r} is missing{_where(path[:-1])}", ""
    name = next((str(step) for step in reversed(path) if isinstance(step, str)), "")
    expect = _EXPECTED.get(error["type"])
    expected = expect(context) if expect is not None else error["msg"]
    of = f" as {name}" if name and name != _KEY else ""
    return f"{found}{of}, expected {expected}", _advice(error)


def _own_words(error: Exception) -> tuple[str, str]:
    return str(error), error.hint if isinstance(error, Unfit) else ""


def _where(path: tuple[int | str, ...]) -> str:
    names = [step for step in path if isinstance(step, str)]
    return f" in {names[-1]}" if names else ""


def _advice(error: ErrorDetails) -> str:
    """Numbers and booleans where text belongs need quotes."""
    value = error["input"]
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f'quote it: "{text}"'
    return ""


_PATTERNS = "a name: letters, digits, . _ - and at most 64 of them"
_EXPECTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "string_type": lambda c: "text",
    "int_type": lambda c: "a whole number",
    "bool_type": lambda c: "true or false",
    "list_type": lambda c: "a list",
    "dict_type": lambda c: "a mapping",
    "model_type": lambda c: "a mapping",
    "literal_error": lambda c: str(c["expected"]),
    "greater_than_equal": lambda c: f"at least {c['ge']}",
    "less_than_equal": lambda c: f"at most {c['le']}",
    "string_pattern_mismatch": lambda c: _PATTERNS,
    "string_too_short": lambda c: "some text",
    "string_too_long": lambda c: f"at most {c['max_length']} characters",
    "too_short": lambda c: "at least one entry",
}


def keys_of(model: type[BaseModel] | None) -> list[str]:
    """The keys of a model as they are written in a file."""
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that a path below `model` leads to, None if it leads to none."""
    here: type[BaseModel] | None = model
    name_follows = False  # the next step is a key of a dict[str, Model]
    for step in path:
        if isinstance(step, int) or name_follows:
            name_follows = False
            continue
        fields = here.model_fields.items() if here is not None else ()
        annotation = {field.alias or name: field.annotation for name, field in fields}.get(step)
        here = _inner_model(annotation)
        name_follows = get_origin(annotation) is dict
    return here


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The first model inside an annotation such as `list[X]`, `dict[str, X]`, `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_inner_model(arg) for arg in get_args(annotation))
    return next((found for found in inner if found is not None), None)
