"""Where settings come from: a TOML file, SLUICEGATE_… variables, flags; merged, with places.

SLUICEGATE_LISTEN sets `listen`, SLUICEGATE_REDIRECT__PROVIDER sets `redirect.provider`. The
text of a variable or flag becomes a number, a truth value or an enum when the model reads it; for
a list it is TOML's (`["a", "b"]`) or names with commas between.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from proxy.errors import Problem, SettingsError

PREFIX = "SLUICEGATE_"
CONFIG_VARIABLE = PREFIX + "CONFIG"  #: path of the settings file, where no flag names one

# Kubernetes puts these into every container of a namespace that has a Service `sluicegate`:
# kubernetes.io/docs/concepts/services-networking/service (environment variables).
_SERVICE_LINK = re.compile(r"SLUICEGATE_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
_SECRET = {"admin.token"}
_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]")
_Model = TypeVar("_Model", bound=BaseModel)


class Sources:
    """What was found where. `validate` makes the model of it; `problem` places a complaint."""

    def __init__(
        self, model: type[BaseModel], path: Path | None, environment: Mapping[str, str]
    ) -> None:
        self._model = model
        self._path = path
        self._text = _read(path) if path is not None else ""
        self._values: dict[str, Any] = _parse(path, self._text) if path is not None else {}
        self._origin: dict[str, str] = {}
        self._refused: list[Problem] = []
        for name in sorted(environment):
            if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
                continue
            if not _SERVICE_LINK.fullmatch(name):
                key = name.removeprefix(PREFIX).lower().replace("__", ".")
                self.put(key, environment[name], name)

    def put(self, key: str, value: object, origin: str) -> None:
        """Set `section.key`; `origin` is the name to complain about."""
        into = self._values
        *sections, last = key.split(".")
        if _is_array(self._model, key.partition(".")[0]):
            message = f"{key}: an array of tables is written in the settings file only"
            self._refused.append(Problem(origin, 0, 0, message, f"[[{key.partition('.')[0]}]]"))
            return
        for section in sections:
            inner = into.get(section)
            if not isinstance(inner, dict):
                into[section] = inner = {}
            into = inner
        is_list = isinstance(value, str) and get_origin(_annotation(self._model, key)) is tuple
        into[last] = _listed(str(value)) if is_list else value
        self._origin[key] = origin

    def validate(self, model: type[_Model]) -> _Model:
        """Raises SettingsError with every problem."""
        problems = list(self._refused)
        try:
            validated = model.model_validate(self._values)
        except ValidationError as error:
            problems += [self._complaint(item) for item in error.errors()]
        if problems:
            raise SettingsError(problems) from None
        return validated

    def problem(self, key: str, message: str, hint: str = "") -> Problem:
        """A complaint about a key, at its place in the file or with its variable's name.

        The number of a table in an array of tables is a part of the key: `callouts.0.name`.
        """
        text = f"{_without_numbers(key)}: {message}"
        for set_key, name in self._origin.items():
            if set_key == key or set_key.startswith(f"{key}."):  # or a whole section that is not
                return Problem(name, 0, 0, text, hint)
        if self._path is None:
            return Problem("settings", 0, 0, text, hint)
        return Problem(str(self._path), *_place(self._text, key.split(".")), text, hint)

    def _complaint(self, item: Any) -> Problem:
        location = [str(part) for part in item["loc"] if not isinstance(part, int)]
        key = ".".join(location)
        if item["type"] == "extra_forbidden":
            message = "there is no such setting"
            return self.problem(self._numbered(item["loc"]), message, self._nearest(location))
        if item["type"] in ("model_type", "model_attributes_type"):
            header = f"[[{key}]]" if _is_array(self._model, key) else f"[{key}]"
            return self.problem(key, f"this is a section; write {header} and its keys below it")
        message = item["msg"].removeprefix("Value error, ")
        found = repr(item["input"])
        numbered = self._numbered(item["loc"])
        whole = numbered.count(".") < 2 and _is_array(self._model, location[0])  # a whole table
        if key not in _SECRET and not whole and found not in message:
            message += f" (found {found})"
        return self.problem(numbered, message)

    def _numbered(self, location: tuple[int | str, ...]) -> str:
        """The key with the number of its table, where it stands in an array of tables."""
        numbers = 2 if _is_array(self._model, str(location[0])) else 0
        kept = (part for n, part in enumerate(location) if n < numbers or isinstance(part, str))
        return ".".join(map(str, kept))

    def _nearest(self, location: list[str]) -> str:
        """The best guess at what was meant, in its own section or in another."""
        names = _names(self._model, location[:-1])
        if near := difflib.get_close_matches(location[-1], names, 1):
            return f"did you mean {'.'.join([*location[:-1], near[0]])}?"
        for section in self._model.model_fields:
            if location[-1] in _names(self._model, [section]):
                return f"it belongs to [{section}]"
        return "deploy/README.md lists all settings"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
    except UnicodeError as error:
        message = f"is not UTF-8: {error}"
    raise SettingsError([Problem(str(path), 0, 0, message)])


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")  # its only way to say where, up to 3.13
        found = re.match(r"line (\d+), column (\d+)", place)
        line, column = (int(found[1]), int(found[2])) if found else (len(text.splitlines()), 0)
        raise SettingsError([Problem(str(path), line, column, f"not TOML: {message}")]) from None


def _listed(text: str) -> Any:
    """The list that a variable or flag means."""
    if text.lstrip().startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text  # the model complains about it, and knows what to call it
    return [part.strip() for part in text.split(",") if part.strip()]


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a section, or of the tables of an array."""
    found = model.model_fields.get(name)
    kind = found.annotation if found is not None else None
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_array(model: type[BaseModel], name: str) -> bool:
    """Whether a setting is an array of tables."""
    found = model.model_fields.get(name)
    is_list = found is not None and get_origin(found.annotation) is tuple
    return is_list and _section(model, name) is not None


def _without_numbers(key: str) -> str:
    return ".".join(part for part in key.split(".") if not part.isdigit())


def _names(model: type[BaseModel], sections: list[str]) -> list[str]:
    """The keys of a section; empty where there is no such section."""
    inner: type[BaseModel] | None = model
    for section in sections:
        inner = _section(inner, section) if inner is not None else None
    return list(inner.model_fields) if inner is not None else []


def _annotation(model: type[BaseModel], key: str) -> Any:
    """The type of a setting without its `| None`; None where there is no such setting."""
    *sections, last = key.split(".")
    inner: type[BaseModel] | None = model
    for section in sections:
        inner = _section(inner, section) if inner is not None else None
    found = inner.model_fields.get(last) if inner is not None else None
    if found is None:
        return None
    kinds = [kind for kind in get_args(found.annotation) if kind is not NoneType]
    optional = NoneType in get_args(found.annotation)
    return kinds[0] if optional and len(kinds) == 1 else found.annotation


def _place(text: str, location: list[str]) -> tuple[int, int]:
    """Line and column of a key or section in TOML text; (0, 0) where it cannot be told.

    A key that is missing in a table of an array is placed at the table's header.
    """
    section: list[str] = []
    tables: dict[str, int] = {}  # of every array of tables, the number of the latest
    header_place = (0, 0)
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            section = _opened(header, tables)
            place = number, header.start(2) + 1
            array = section[0] in tables
            if section == location or (array and location == section[:1]):
                return place
            if array and section == location[:2]:
                header_place = place
        elif found := re.match(r"\s*([A-Za-z0-9_.-]+)\s*=", line):
            key = [*section, *found[1].split(".")]
            if key == location[: len(key)]:  # shorter: an inline table
                return number, found.start(1) + 1
    return header_place


def _opened(header: re.Match[str], tables: dict[str, int]) -> list[str]:
    """The section that a header opens, with the table's number in an array; counts it."""
    if header[1] == "[[":
        tables[header[2]] = tables.get(header[2], -1) + 1
    first, *rest = header[2].split(".")
    return [first, str(tables[first]), *rest] if first in tables else [first, *rest]
