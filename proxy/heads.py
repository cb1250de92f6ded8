"""HTTP message heads as data: what the parser made of them, in the spelling of the wire.

Header names keep their spelling for writing and carry a lower-case twin for matching.
Derived values (host, path) are computed once, on first use. RFC 9110 and 9112.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _once(Generic[T]):
    """Computed on first use and kept: functools.cached_property without its lock."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._name = function.__name__

    def __get__(self, instance: Any, owner: type) -> T:
        value = self._function(instance)
        instance.__dict__[self._name] = value  # found before the descriptor from now on
        return value


class Field(NamedTuple):
    """One header field line: `name` as sent, `key` lower-case, `value` without outer blanks."""

    name: bytes
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Head:
    """Common part: version as b'1.1' or b'1.0', fields in the order of the wire."""

    version: bytes
    fields: tuple[Field, ...]

    def all(self, key: bytes) -> tuple[bytes, ...]:
        """Values of every field of that lower-case name, in order."""
        return self._by_key.get(key, ())

    def get(self, key: bytes) -> bytes | None:
        """Values of that lower-case name joined by a comma (RFC 9110 5.3), None if absent."""
        values = self._by_key.get(key)
        return None if values is None else b", ".join(values)

    def tokens(self, key: bytes) -> tuple[bytes, ...]:
        """Lower-case comma-separated members of a list field such as Connection."""
        joined = self.get(key)
        if joined is None:
            return ()
        return tuple(t for t in (part.strip(b" \t").lower() for part in joined.split(b",")) if t)

    @_once
    def content_type(self) -> str:
        """Declared media type, lower-case, without parameters; '' if absent."""
        value = (self.all(b"content-type") or (b"",))[0]
        return value.partition(b";")[0].strip().lower().decode("latin-1")

    @_once
    def _by_key(self) -> dict[bytes, tuple[bytes, ...]]:
        index: dict[bytes, tuple[bytes, ...]] = {}
        for _, key, value in self.fields:
            index[key] = (*index[key], value) if key in index else (value,)
        return index


@dataclass(frozen=True)
class RequestHead(Head):
    method: bytes = b""
    target: bytes = b""
    authority: bytes = field(default=b"")  #: of an absolute-form target; else empty

    @_once
    def host(self) -> str:
        """Host the request names, lower-case, without port, brackets or trailing dot."""
        value = self.authority or (self.all(b"host") or (b"",))[0]
        text = value.decode("latin-1").lower()
        if text.startswith("["):
            return text[1:].partition("]")[0]
        return text.partition(":")[0].rstrip(".")

    @_once
    def path(self) -> str:
        """Path of the target as sent (not percent-decoded); '' for authority- and asterisk-form."""
        return self._split[0]

    @_once
    def query(self) -> str:
        """Query without the question mark; '' if there is none."""
        return self._split[1]

    @_once
    def url(self) -> str:
        """`host/path?query` with scheme http, for matching and records."""
        query = f"?{self.query}" if self.query else ""
        return f"http://{self.host}{self.path}{query}"

    @_once
    def _split(self) -> tuple[str, str]:
        target = self.target.decode("latin-1")
        if target.startswith(("http://", "https://")):
            rest = target.split("://", 1)[1]
            cut = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
            target = rest[cut:] or "/"
            if target.startswith("?"):
                target = "/" + target
        if not target.startswith("/"):
            return "", ""
        path, _, query = target.partition("?")
        return path, query


@dataclass(frozen=True)
class ResponseHead(Head):
    status: int = 0
    reason: bytes = b""
