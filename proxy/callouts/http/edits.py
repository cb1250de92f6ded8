"""What policy changes in a head: header edits and URL rewriting, on the parsed form.

INVARIANT: framing and hop-by-hop fields are never touched here, whatever a rule says
(`PROTECTED`; the policy checker refuses them as well), and nothing written can hold a line
end: values are reduced to what a field value may hold, targets to URL characters.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import re2

from proxy.callouts.http.writer import make_field
from proxy.heads import Field, Head, RequestHead
from proxy.policy import ast

H = TypeVar("H", bound=Head)

PROTECTED = frozenset(
    b"connection content-length keep-alive proxy-connection te trailer transfer-encoding"
    b" upgrade".split()
)
_KEPT = PROTECTED | {b"host"}  # a request cannot do without it: set or replaced, never removed
_NOT_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_URL = re.compile(rb"[^!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~\\^`{|}]")


def edit_headers(head: H, edit: ast.Headers) -> H:
    """remove, rename, replace, set, add: in this order."""
    fields: Iterable[Field] = head.fields
    if edit.remove:
        fields = _remove(fields, edit.remove)
    for old, new in edit.rename:
        fields = _rename(fields, old, new)
    for change in edit.replace:
        fields = _replace(fields, change)
    for name, value in edit.set:
        fields = _set(fields, name, value)
    added = tuple(_field(name, value) for name, value in edit.add)
    fields = (*fields, *(field for field in added if field.key not in PROTECTED))
    return replace(head, fields=fields)


def rewrite_url(head: RequestHead, edit: ast.RewriteUrl) -> RequestHead:
    """Change path and query; scheme and authority of an absolute-form target stay."""
    if not head.path:
        return head  # authority- or asterisk-form
    path = head.path if edit.path is None else edit.path
    query = head.query if edit.query is None else edit.query
    raw = (f"{path}?{query}" if query else path).encode("utf-8")
    if edit.regex is not None:
        raw = substitute(edit.regex, edit.by, raw)
    if not raw.startswith(b"/"):
        raw = b"/" + raw
    target = _NOT_URL.sub(
        lambda match: urllib.parse.quote_from_bytes(match[0]).encode("ascii"), raw
    )
    if head.target.startswith(b"http://"):
        target = b"http://" + head.authority + target
    return replace(head, target=target)


def without(head: H, keys: frozenset[bytes]) -> H:
    """The head without the fields of these lower-case names."""
    return replace(head, fields=tuple(f for f in head.fields if f.key not in keys))


def _remove(fields: Iterable[Field], names: tuple[str, ...]) -> list[Field]:
    exact = {name.lower().encode("latin-1") for name in names if not name.endswith("*")}
    starts = tuple(name[:-1].lower().encode("latin-1") for name in names if name.endswith("*"))
    return [
        f
        for f in fields
        if f.key in _KEPT or not (f.key in exact or (starts and f.key.startswith(starts)))
    ]


def _rename(fields: Iterable[Field], old: str, new: str) -> list[Field]:
    key, field = old.lower().encode("latin-1"), _field(new, "")
    if key in _KEPT or field.key in PROTECTED:
        return list(fields)
    return [f._replace(name=field.name, key=field.key) if f.key == key else f for f in fields]


def _replace(fields: Iterable[Field], change: ast.HeaderReplace) -> list[Field]:
    key = change.name.lower().encode("latin-1")
    if key in PROTECTED:
        return list(fields)
    return [
        f._replace(value=_value(substitute(change.regex, change.by, f.value)))
        if f.key == key
        else f
        for f in fields
    ]


def _set(fields: Iterable[Field], name: str, value: str) -> list[Field]:
    """The first field of that name takes the value and its place, the others go."""
    field = _field(name, value)
    out: list[Field] = []
    placed = field.key in PROTECTED
    for old in fields:
        if old.key != field.key or field.key in PROTECTED:
            out.append(old)
        elif not placed:
            out.append(old._replace(value=field.value))
            placed = True
    if not placed:
        out.append(field)
    return out


def _field(name: str, value: str) -> Field:
    return make_field(name.encode("latin-1", "replace"), _value(value.encode("utf-8", "replace")))


def _value(raw: bytes) -> bytes:
    return _NOT_VALUE.sub(b" ", raw).strip(b" \t")


def substitute(regex: str, by: str, subject: bytes) -> bytes:
    """RE2: linear in the subject, whatever the pattern. Octets, as in the conditions.

    A `by` that names a group which the pattern does not have changes nothing.
    """
    try:
        changed: bytes = _pattern(regex).sub(by.encode("utf-8"), subject)
    except (IndexError, ValueError):
        return subject
    return changed


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Any:
    """Compiled once; it was validated when the policy was loaded."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.log_errors = False
    return re2.compile(text.encode("utf-8"), options)
