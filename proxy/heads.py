"""HTTP message heads as data: what the parser made of them, in the spelling of the wire.

Header names keep their spelling for writing and carry a lower-case twin for matching.
Derived values (host, path) are computed once, on first use. RFC 9110 and 9112.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Field:
    """One header field line: `name` as sent, `key` lower-case, `value` without outer blanks."""

    name: bytes
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Head:
    """Common part: version as b'1.1' or b'1.0', fields in the order of the wire."""

    version: bytes
    fields: tuple[Field, ...]

    def all(self, key: bytes) -> Iterator[bytes]:
        """Values of every field of that lower-case name, in order."""
        return (f.value for f in self.fields if f.key == key)

    def get(self, key: bytes) -> bytes | None:
        """Values of that lower-case name joined by a comma (RFC 9110 5.3), None if absent."""
        values = list(self.all(key))
        return b", ".join(values) if values else None

    def tokens(self, key: bytes) -> tuple[bytes, ...]:
        """Lower-case comma-separated members of a list field such as Connection."""
        joined = self.get(key)
        if joined is None:
            return ()
        return tuple(t for t in (part.strip(b" \t").lower() for part in joined.split(b",")) if t)

    @cached_property
    def content_type(self) -> str:
        """Declared media type, lower-case, without parameters; '' if absent."""
        value = next(self.all(b"content-type"), b"")
        return value.partition(b";")[0].strip().lower().decode("latin-1")


@dataclass(frozen=True)
class RequestHead(Head):
    method: bytes = b""
    target: bytes = b""
    authority: bytes = field(default=b"")  #: of an absolute-form target; else empty

    @cached_property
    def host(self) -> str:
        """Host the request names, lower-case, without port, brackets or trailing dot."""
        value = self.authority or next(self.all(b"host"), b"")
        text = value.decode("latin-1").lower()
        if text.startswith("["):
            return text[1:].partition("]")[0]
        return text.partition(":")[0].rstrip(".")

    @cached_property
    def path(self) -> str:
        """Path of the target as sent (not percent-decoded); '' for authority- and asterisk-form."""
        return self._split[0]

    @cached_property
    def query(self) -> str:
        """Query without the question mark; '' if there is none."""
        return self._split[1]

    @cached_property
    def url(self) -> str:
        """`host/path?query` with scheme http, for matching and records."""
        query = f"?{self.query}" if self.query else ""
        return f"http://{self.host}{self.path}{query}"

    @cached_property
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
