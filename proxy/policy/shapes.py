"""What the models of the policy language are made of: names, choices, paths, the base model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from proxy.policy.scalars import kind_of
from proxy.policy.suggest import hint
from proxy.policy.values import Unfit
from proxy.units import to_bytes


class Model(BaseModel):
    """Unknown keys are mistakes, and no value is taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def choice(what: str, names: Iterable[str]) -> Any:
    """One of a closed set of names; for others the nearest is named."""
    known: list[Any] = [str(name) for name in names]

    def check(value: str) -> str:
        if value not in known:
            raise Unfit(f"unknown {what} {kind_of(value)}", hint(value, known))
        return value

    return AfterValidator(check), Field(json_schema_extra={"enum": known})


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]


def listed(value: Any) -> Any:
    """One value stands for a list of one."""
    return [value] if isinstance(value, str | dict) else value


def switch(what: str) -> Any:
    """`true` stands for the action without settings; nothing else but a mapping does."""

    def read(value: Any) -> Any:
        if value is True:
            return {}
        if value is False or value is None:
            raise Unfit(f"{what}: {str(value).lower()}", "leave the action out, or write true")
        return value

    return read


def short(key: str) -> Callable[[Any], Any]:
    """A text stands for the mapping with that one key."""
    return lambda value: {key: value} if isinstance(value, str) else value


def read_size(value: Any) -> int:
    """A number of bytes, or a size as 64KiB. Raises Unfit."""
    try:
        return to_bytes(value)
    except ValueError as error:
        raise Unfit(f"{kind_of(value)} as a size, {error}") from None


def read_path(path: str) -> str:
    """A file below the policy directory, as `lists/ads.txt`. Raises Unfit."""
    parts = path.split("/")
    outside = path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path) is not None
    if outside or "\\" in path or "\0" in path:
        raise Unfit(f"path {path!r} leaves the policy directory", "as lists/ads.txt")
    if not path or parts[-1] in ("", "."):
        raise Unfit(f"{path!r} is not the path of a file", "as lists/ads.txt")
    return path


def _read_folder(path: str) -> str:
    """A folder below the policy directory, with or without a final slash."""
    return read_path(path.removesuffix("/"))


FilePath = Annotated[str, AfterValidator(read_path)]
FolderPath = Annotated[str, AfterValidator(_read_folder)]
