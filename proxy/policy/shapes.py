"""What the models of the policy language are made of: names, choices, paths, the base model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from proxy.policy.scalars import kind_of
from proxy.policy.suggest import hint
from proxy.policy.values import Unfit


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


def read_path(path: str) -> str:
    """A file below the policy directory, as `lists/ads.txt`. Raises Unfit."""
    parts = path.split("/")
    outside = path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path) is not None
    if outside or "\\" in path or "\0" in path:
        raise Unfit(f"path {path!r} leaves the policy directory", "as lists/ads.txt")
    if not path or parts[-1] in ("", "."):
        raise Unfit(f"{path!r} is not the path of a file", "as lists/ads.txt")
    return path


FilePath = Annotated[str, AfterValidator(read_path)]
