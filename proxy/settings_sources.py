"""Where settings come from: a TOML file, SLUICEGATE_… variables, flags; merged, with places.

SLUICEGATE_LISTEN sets `listen`, SLUICEGATE_REDIRECT__PROVIDER sets `redirect.provider`. A
variable's value is read as TOML where that works (numbers, true, lists), else as text.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from proxy.errors import Problem, SettingsError

PREFIX = "SLUICEGATE_"
_Model = TypeVar("_Model", bound=BaseModel)


def explain(key: str, message: str) -> Problem:
    """A problem with a setting whose place is only its name."""
    return Problem("settings", 0, 0, f"{key}: {message}")


def collect(
    model: type[_Model],
    path: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
) -> _Model:
    """The validated model. Raises SettingsError with every problem, each with its place."""
    merged: dict[str, Any] = {}
    text = _read(path) if path is not None else ""
    origin: dict[str, str] = {}
    if path is not None:
        _merge(merged, _parse(path, text))
    for name in sorted(environment):
        if name.startswith(PREFIX):
            key = name.removeprefix(PREFIX).lower().replace("__", ".")
            _put(merged, key, _value(environment[name]))
            origin[key] = name
    for key, value in flags.items():
        _put(merged, key, _value(value) if isinstance(value, str) else value)
        origin[key] = f"--set {key}"
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(
            [_problem(item, model, path, text, origin) for item in error.errors()]
        ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SettingsError([Problem(str(path), 0, 0, f"cannot be read: {error}")]) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+), column (\d+)", str(error))
        line, column = (int(place[1]), int(place[2])) if place else (0, 0)
        raise SettingsError([Problem(str(path), line, column, f"not TOML: {error}")]) from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(into: dict[str, Any], what: Mapping[str, Any]) -> None:
    for key, value in what.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _put(into: dict[str, Any], dotted: str, value: object) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        inner = into.setdefault(section, {})
        if not isinstance(inner, dict):
            into[section] = inner = {}
        into = inner
    into[last] = value


def _problem(
    item: Any, model: type[BaseModel], path: Path | None, text: str, origin: dict[str, str]
) -> Problem:
    location = [str(part) for part in item["loc"] if not isinstance(part, int)]
    key = ".".join(location)
    hint = ""
    if item["type"] == "extra_forbidden":
        message = f"{key}: there is no such setting"
        near = difflib.get_close_matches(location[-1], _names(model, location[:-1]), 1)
        hint = f"did you mean {near[0]}?" if near else "see deploy/README.md for all settings"
    else:
        message = f"{key}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})"
    if key in origin:
        return Problem(origin[key], 0, 0, message, hint)
    return Problem(str(path or "settings"), *_place(text, location), message, hint)


def _names(model: type[BaseModel], sections: list[str]) -> list[str]:
    for section in sections:
        inner = model.model_fields.get(section)
        kind = inner.annotation if inner is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        model = kind
    return list(model.model_fields)


def _place(text: str, location: list[str]) -> tuple[int, int]:
    """Line and column of a key in TOML text; (0, 0) where it cannot be told."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([A-Za-z0-9_.-]+)\]", line)
        if header:
            section = header[1]
            if section.split(".") == location:
                return number, line.index("[") + 1
            continue
        found = re.match(r"\s*([A-Za-z0-9_.-]+)\s*=", line)
        if found and [*filter(None, section.split(".")), *found[1].split(".")] == location:
            return number, found.start(1) + 1
    return 0, 0
