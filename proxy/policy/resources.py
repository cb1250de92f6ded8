"""What a policy file brings along: lists, page templates, content, folders of local files.

Files come through `ReadFile` and `ListFolder`; what cannot be read or is wrong inside is
complained of. Everything has a maximum.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
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

#: The files of a folder and of those below it: (path from that folder, size in bytes), sorted;
#: at most so many of them and one. Raises OSError.
ListFolder = Callable[[str, int], Sequence[tuple[str, int]]]

_MAX_PAGE = Limits().page_bytes
MAX_CONTENT = 1024 * 1024  #: bytes of one file
#: What the folders of one policy file may hold together.
MAX_FOLDER_FILES = 1000
MAX_FOLDER_BYTES = 16 * 1024 * 1024


def no_folders(path: str, most: int) -> Sequence[tuple[str, int]]:
    """A ListFolder where there is no directory."""
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


class Resources:
    """`types` has the type of every list by name, None where the type is wrong."""

    def __init__(
        self,
        document: Document,
        complaints: Complaints,
        read_file: ReadFile,
        list_folder: ListFolder = no_folders,
    ) -> None:
        lists = document.data.get("lists")
        self._data: Mapping[str, Any] = lists if isinstance(lists, dict) else {}
        self._root = document.root
        self._complaints = complaints
        self._read_file = read_file
        self._list_folder = list_folder
        self._folders: dict[str, Mapping[str, bytes]] = {}
        self.types = {name: _type_of(body) for name, body in self._data.items()}

    def lists(self) -> tuple[ast.ListDef, ...]:
        """The lists that are well-formed; the shape of the others is complained of elsewhere."""
        return tuple(self._lists())

    def complain(self, node: Node, message: str, hint: str = "") -> None:
        """For those who check what was read."""
        self._complaints.at(node, message, hint)

    def page(self, path: str, node: Node) -> str | None:
        """The text of a page template, None after a complaint at `node`."""
        return self.text(path, node, "page", _MAX_PAGE)

    def text(self, path: str, node: Node, what: str, limit: int) -> str | None:
        """A file of UTF-8 text, None after a complaint at `node`."""
        data = self._fetch(path, node)
        if data is None:
            return None
        if len(data) > limit:
            self._complaints.at(node, f"{what} {path} has {len(data)} bytes", f"at most {limit}")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self._complaints.at(node, f"{what} {path} is not UTF-8", "save the file as UTF-8 text")
            return None

    def content(self, path: str, node: Node) -> bytes | None:
        """A file as it is, None after a complaint at `node`."""
        data = self._fetch(path, node)
        if data is not None and len(data) > MAX_CONTENT:
            self._complaints.at(node, f"{path} is too large", f"at most {MAX_CONTENT} bytes")
            return None
        return data

    def folder(self, path: str, node: Node) -> Mapping[str, bytes] | None:
        """The files of a folder by their paths from there, None after a complaint at `node`."""
        if path not in self._folders:
            read = self._read_folder(path, node)
            if read is None:
                return None
            self._folders[path] = read
        return self._folders[path]

    def _read_folder(self, path: str, node: Node) -> Mapping[str, bytes] | None:
        held = [data for folder in self._folders.values() for data in folder.values()]
        try:
            found = self._list_folder(path, MAX_FOLDER_FILES)
        except OSError as error:
            self._complain_of(path, node, error)
            return None
        if not found:
            self._complaints.at(node, f"{path} has no files", "hidden ones do not count")
        elif len(held) + len(found) > MAX_FOLDER_FILES:
            self._complaints.at(node, f"{path} has too many files", f"at most {MAX_FOLDER_FILES}")
        elif sum(map(len, held)) + sum(size for _, size in found) > MAX_FOLDER_BYTES:
            self._complaints.at(node, f"{path} is too large", f"at most {MAX_FOLDER_BYTES} bytes")
        else:
            read = [(name, self.content(posixpath.join(path, name), node)) for name, _ in found]
            good = {name: data for name, data in read if data is not None}
            return good if len(good) == len(read) else None
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
            self._complain_of(path, node, error)
            return None

    def _complain_of(self, path: str, node: Node, error: OSError) -> None:
        why = error.strerror or str(error)
        self._complaints.at(
            node, f"cannot read {path}: {why}", "paths begin at the policy directory"
        )


def _type_of(body: Any) -> ast.ListType | None:
    kind = body.get("type") if isinstance(body, dict) else None
    return ast.ListType(kind) if kind in list(ast.ListType) else None
