"""What a policy file brings along: its lists, inline and from files, and its page templates.

Files come through `ReadFile`; what cannot be read or is wrong inside is complained of.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from yaml.nodes import Node

from proxy.limits import Limits
from proxy.policy import ast, schema
from proxy.policy.document import Document
from proxy.policy.listfiles import read_list_file
from proxy.policy.positions import Complaints, node_at, value_of
from proxy.policy.values import READ_ENTRY, Unfit

#: Contents of a file of the policy directory by its relative path. Raises OSError.
ReadFile = Callable[[str], bytes]

_MAX_PAGE = Limits().page_bytes


class Resources:
    """`types` has the type of every list by name, None where the type is wrong."""

    def __init__(self, document: Document, complaints: Complaints, read_file: ReadFile) -> None:
        lists = document.data.get("lists")
        self._data: Mapping[str, Any] = lists if isinstance(lists, dict) else {}
        self._root = document.root
        self._complaints = complaints
        self._read_file = read_file
        self.types = {name: _type_of(body) for name, body in self._data.items()}

    def lists(self) -> tuple[ast.ListDef, ...]:
        """The lists that are well-formed; the shape of the others is complained of elsewhere."""
        return tuple(self._lists())

    def page(self, path: str, node: Node) -> str | None:
        """The text of a page template, None after a complaint at `node`."""
        text = self._fetch(path, node)
        if text is None:
            return None
        if len(text) > _MAX_PAGE:
            self._complaints.at(node, f"page {path} has {len(text)} bytes", f"at most {_MAX_PAGE}")
        try:
            return text.decode("utf-8-sig")
        except UnicodeDecodeError:
            self._complaints.at(node, f"page {path} is not UTF-8", "save the file as UTF-8 text")
            return None

    def _lists(self) -> Iterator[ast.ListDef]:
        for name, body in self._data.items():
            try:
                model = schema.ListModel.model_validate(body)
            except ValidationError:
                continue
            yield self._list(name, model, node_at(self._root, ("lists", name)))

    def _list(self, name: str, model: schema.ListModel, node: Node) -> ast.ListDef:
        kind = ast.ListType(model.type)
        values = self._inline(model, node)
        file = value_of(node, "file")
        if model.file is not None and file is not None:
            found = self._from_file(model.file, file, kind)
            values = tuple(dict.fromkeys((*values, *found))) if values else found
        return ast.ListDef(name, kind, values, self._complaints.mark(node))

    def _inline(self, model: schema.ListModel, node: Node) -> tuple[str, ...]:
        read, values = READ_ENTRY[model.type], dict[str, None]()
        for index, text in enumerate(model.values):
            try:
                values[read(text)] = None
            except Unfit as error:
                self._complaints.at(node_at(node, ("values", index)), str(error), error.hint)
        return tuple(values)

    def _from_file(self, path: str, node: Node, kind: ast.ListType) -> tuple[str, ...]:
        text = self._fetch(path, node)
        if text is None:
            return ()
        where = posixpath.join(posixpath.dirname(self._complaints.file), path)
        found, wrong = read_list_file(where, text, kind)
        for problem in wrong:
            self._complaints.add(problem)
        return found

    def _fetch(self, path: str, node: Node) -> bytes | None:
        try:
            return self._read_file(path)
        except OSError as error:
            why = error.strerror or str(error)
            advice = "paths begin at the policy directory"
            self._complaints.at(node, f"cannot read {path}: {why}", advice)
            return None


def _type_of(body: Any) -> ast.ListType | None:
    kind = body.get("type") if isinstance(body, dict) else None
    return ast.ListType(kind) if kind in list(ast.ListType) else None
