"""`[[callouts]]` in the settings file: which callouts of the user's own there are, and how.

Only the shape is judged here; `proxy.service.callouts` loads them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from proxy.api import Interest
from proxy.contract import Kind, Mode
from proxy.errors import Problem
from proxy.limits import OnException
from proxy.units import to_bytes, to_seconds

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_RESERVED = frozenset({"protocol", "http"})  #: what records call our own
_DEFAULT_FACTORY = "make"
_INTERESTS = {one.name.lower(): one for one in Interest if one.name}


def _or_none(value: object) -> object:
    """TOML has no null: empty text is none."""
    return None if value == "" else value


def _seconds(value: object) -> float:
    seconds = to_seconds(value)
    if not seconds:
        raise ValueError("must be greater than 0")
    return seconds


def _size(value: object) -> int:
    size = to_bytes(value)
    if not size:
        raise ValueError("must be greater than 0")
    return size


class CalloutSection(BaseModel):
    """One callout. `module` or `path` name its factory, with `:name` where it is not `make`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    name: str
    type: Literal["stream", "http", "connection"]
    module: str = ""
    path: str = ""
    weight: int = Field(default=100, ge=-30000, le=30000)
    mode: Mode = Mode.INLINE
    kind: Kind = Kind.TERMINATING
    interest: tuple[str, ...] = ()
    timeout: Annotated[float, BeforeValidator(_seconds)] = 2.0
    on_error: Annotated[OnException | None, BeforeValidator(_or_none)] = None
    body_bytes: Annotated[int, BeforeValidator(_size)] = 64 * 1024
    options: dict[str, Any] = Field(default_factory=dict, repr=False)  # may hold keys

    _place: Problem | None = PrivateAttr(None)

    @field_validator("name")
    @classmethod
    def _label(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("expected a short name of a-z, 0-9, '_', '.', '-'")
        if value in _RESERVED:
            raise ValueError("that is what records call a stage of the proxy's own")
        return value

    @field_validator("interest")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            if one not in _INTERESTS:
                raise ValueError(f"{one!r} is not one of {', '.join(_INTERESTS)}")
        return value

    @model_validator(mode="after")
    def _together(self) -> CalloutSection:
        if bool(self.module) is bool(self.path):
            raise ValueError("needs either module = 'package.module:factory' or path = 'file.py'")
        if self.type == "http" and not self.interest:
            raise ValueError(f"an http callout needs interest = [...]: {', '.join(_INTERESTS)}")
        if self.type != "http" and self.interest:
            raise ValueError("interest is for http callouts")
        if self.type == "stream" and not self.weight:
            raise ValueError("weight 0 is the protocol's own: above it sees raw bytes first")
        if self.type == "connection" and self.kind is Kind.INSPECTION:
            raise ValueError("a connection callout decides: kind is terminating")
        if self.kind is Kind.INSPECTION and self.mode is Mode.OUT_OF_BAND:
            raise ValueError("an inspection never delays what it sees: its mode is inline")
        if self.kind is Kind.INSPECTION and any(one.endswith("_data") for one in self.interest):
            raise ValueError("pieces of a body are for terminating callouts; take its whole")
        return self

    @property
    def interests(self) -> Interest:
        """`interest` as flags."""
        wanted = Interest(0)
        for one in self.interest:
            wanted |= _INTERESTS[one]
        return wanted

    @property
    def factory(self) -> tuple[str, str]:
        """(module or path, name in it)."""
        where, colon, name = (self.module or self.path).rpartition(":")
        if colon and name.isidentifier():
            return where, name
        return self.module or self.path, _DEFAULT_FACTORY

    def stand(self, place: Problem) -> None:
        """Remember where in the settings this is; a relative path counts from that file."""
        self._place = place

    @property
    def base(self) -> Path:
        """The directory that a relative `path` counts from: the settings file's, or the cwd."""
        return Path(self._place.file).parent if self._place and self._place.line else Path()

    def problem(self, message: str, hint: str = "") -> Problem:
        """A complaint about this callout, at its place."""
        text = f"callout {self.name!r}: {message}"
        place = self._place or Problem("settings", 0, 0, "")
        return Problem(place.file, place.line, place.column, text, hint)
