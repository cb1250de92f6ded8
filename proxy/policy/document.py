"""From the bytes of a policy file to plain data and the YAML nodes that it came from.

PyYAML's composer makes the nodes (in C where that is built in); what they mean is decided
here: YAML 1.2 scalars, no duplicate keys, no tags, no merge keys, no key without a value, aliases
within bounds.
Hostile text costs memory and time in proportion to its size at most.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.policy.positions import Complaints
from proxy.policy.scalars import Scalar, kind_of, read_plain

MAX_BYTES = 10 * 1024 * 1024
#: libyaml's composer recurses on the C stack: without a limit a file of brackets ends the process.
MAX_DEPTH = 64
#: Nodes that aliases may add by repeating what an anchor holds.
MAX_REPEATED = 50_000

_PLAIN, _QUOTED, _COLLECTION = "plain", "quoted", "collection"
_TAG = "tag:yaml.org,2002:"
_CORE = {
    ScalarNode: {_PLAIN, _QUOTED, _TAG + "str"},
    SequenceNode: {_COLLECTION, _TAG + "seq"},
    MappingNode: {_COLLECTION, _TAG + "map"},
}
#: What YAML does not allow in a stream (spec 5.1).
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class TooDeep(yaml.YAMLError):
    """Raised out of the composer; never leaves this module."""


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """A composer that resolves no tags by itself and has a bottom."""

    depth = 0

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is not ScalarNode:
            return _COLLECTION
        return _PLAIN if implicit[0] else _QUOTED

    def descend_resolver(self, parent: Node | None, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooDeep(parent)

    def ascend_resolver(self) -> None:
        self.depth -= 1


@dataclass(frozen=True, slots=True)
class Document:
    """`data`: dicts with text keys, lists, scalars. `root`: the node of all of it."""

    data: Any
    root: Node


def read_document(text: bytes, complaints: Complaints) -> Document | None:
    """The one document of a file; None when there is nothing to go on with."""
    source = decode(text, complaints)
    if source is None:
        return None
    root = _compose(source, complaints)
    if root is None:
        return None
    reader = _Reader(complaints)
    data = reader.read(root)
    return None if reader.endless else Document(data, root)


def scalar_of(node: ScalarNode) -> Scalar:
    """The value of a scalar's node."""
    return read_plain(node.value) if node.tag == _PLAIN else str(node.value)


def is_nothing(node: Node) -> bool:
    """Whether there is no value; complained of already where it stands behind a key."""
    return isinstance(node, ScalarNode) and scalar_of(node) is None


def decode(text: bytes, complaints: Complaints) -> str | None:
    """UTF-8 text of a file without its byte order mark; None after a complaint."""
    if len(text) > MAX_BYTES:
        complaints.place(
            0, 0, f"the file has {len(text)} bytes", f"a policy file has at most {MAX_BYTES}"
        )
        return None
    try:
        source = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8", "replace")
        _complain_of_char(complaints, before, f"byte 0x{text[error.start]:02x} is not UTF-8")
        return None
    bad = _CONTROL.search(source)
    if bad is not None:
        what = f"character U+{ord(bad[0]):04X} is not allowed in YAML"
        _complain_of_char(complaints, source[: bad.start()], what)
        return None
    return source


def _complain_of_char(complaints: Complaints, before: str, what: str) -> None:
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    complaints.place(line, column, what, "save the file as UTF-8 text")


def _compose(source: str, complaints: Complaints) -> Node | None:
    try:
        root: Node | None = yaml.compose(source, Loader=_Loader)
    except TooDeep as error:
        node = error.args[0]
        complaints.at(node, f"nested more than {MAX_DEPTH} deep")
        return None
    except yaml.MarkedYAMLError as error:
        _complain_of_yaml(complaints, error)
        return None
    if root is None or is_nothing(root):
        complaints.place(1, 1, "the file is empty", "a policy begins with `version: 1`")
        return None
    return root


def _complain_of_yaml(complaints: Complaints, error: yaml.MarkedYAMLError) -> None:
    """The composer's own words and place; its context is where the broken thing began."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    problem = error.problem or "not YAML"
    if "another document" in problem:
        complaints.place(line, column, "a second document in the file", "use a second file")
        return
    began = error.context_mark
    since = f" that begins at line {began.line + 1}" if began is not None else ""
    context = f"{error.context}{since}: " if error.context else ""
    complaints.place(line, column, f"not YAML: {context}{problem}")


class _Reader:
    """Nodes to data. Aliases share nodes: each repeat is counted, a circle is refused."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._repeated = 0
        self.endless = False  #: the nodes must not be walked

    def read(self, node: Node) -> Any:
        self._check_tag(node)
        if isinstance(node, ScalarNode):
            return scalar_of(node)
        if not self._enter(node):
            return None
        data = self._mapping(node) if isinstance(node, MappingNode) else self._list(node)
        self._open.discard(id(node))
        return data

    def _enter(self, node: Node) -> bool:
        """Count a collection; False when it must not be gone into."""
        key = id(node)
        if key in self._open:
            return self._refuse(node, "an alias inside what its own anchor holds")
        if key in self._seen:
            self._repeated += 1 + len(node.value)
            if self._repeated > MAX_REPEATED:
                return self._refuse(node, f"aliases repeat more than {MAX_REPEATED} values")
        self._seen.add(key)
        self._open.add(key)
        return True

    def _refuse(self, node: Node, message: str) -> bool:
        if not self.endless:
            self._complaints.at(node, message, "use macros and lists for what repeats")
        self.endless = True
        return False

    def _check_tag(self, node: Node) -> None:
        if node.tag not in _CORE[type(node)]:
            tag = node.tag.replace(_TAG, "!!")
            self._complaints.at(node, f"tag {tag} is not allowed", "write the value without it")

    def _list(self, node: Node) -> list[Any]:
        return [self.read(item) for item in node.value]

    def _mapping(self, node: Node) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, Node] = {}
        for key, value in node.value:
            name = self._key(key)
            if name is None:
                continue
            if name in first:
                line = first[name].start_mark.line + 1
                self._complaints.at(key, f"key {name!r} again", f"it is there since line {line}")
                continue
            first[name] = key
            read = self.read(value)
            if read is None and isinstance(value, ScalarNode):
                self._complaints.at(key, f"{name} has no value", "write one, or leave the key out")
                continue
            data[name] = read
        return data

    def _key(self, node: Node) -> str | None:
        self._check_tag(node)
        if not isinstance(node, ScalarNode):
            self._complaints.at(node, "a key that is not text", "expected a name")
            return None
        name = scalar_of(node)
        if name == "<<" and node.tag == _PLAIN:
            self._complaints.at(node, "merge keys (<<) are not part of YAML 1.2", "use macros")
            return None
        if not isinstance(name, str):
            message = f"{kind_of(name)} as a key, expected text"
            self._complaints.at(node, message, f'quote it: "{node.value}"')
            return None
        return name
