"""What stands behind a condition's field: a value, a list of values, or operators."""

from __future__ import annotations

from collections.abc import Mapping

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.policy import ast
from proxy.policy.ast import ListType, Op
from proxy.policy.document import scalar_of
from proxy.policy.fields import FieldSpec, Kind
from proxy.policy.patterns import read_pattern, read_stream_pattern
from proxy.policy.positions import Complaints
from proxy.policy.scalars import kind_of, shortened
from proxy.policy.suggest import hint, one_of
from proxy.policy.values import Unfit, Value, read_bound, read_value

_TEXT_LISTS = (ListType.STRING, ListType.HASH)
#: Which lists a kind of field can be looked up in.
LISTS_OF: dict[Kind, tuple[ListType, ...]] = {
    Kind.IP: (ListType.CIDR,),
    Kind.DOMAIN: (ListType.DOMAIN, ListType.STRING),
    Kind.TEXT: _TEXT_LISTS,
    Kind.TEXT_CI: _TEXT_LISTS,
    Kind.PATH: _TEXT_LISTS,
    Kind.CONTENT: (ListType.STRING,),
    Kind.HASH: (ListType.HASH,),
}
_TEXTUAL = (Op.IS, Op.IN, Op.REGEX, Op.EXISTS)
#: Which operators a kind of field has.
OPERATORS: dict[Kind, tuple[Op, ...]] = {
    Kind.IP: (Op.IS, Op.IN, Op.EXISTS),
    Kind.NUMBER: (Op.IS, Op.GT, Op.GE, Op.LT, Op.LE, Op.EXISTS),
    Kind.DOMAIN: _TEXTUAL,
    Kind.TEXT: _TEXTUAL,
    Kind.TEXT_CI: _TEXTUAL,
    Kind.PATH: _TEXTUAL,
    Kind.BOOL: (Op.IS, Op.EXISTS),
    Kind.ENUM: (Op.IS, Op.EXISTS),
    Kind.TIME: (Op.IS,),
    Kind.CONTENT: (Op.IS, Op.IN, Op.REGEX),
    Kind.HASH: (Op.IS, Op.IN),
}


class Operands:
    """Reads operands for one file. `lists`: type by name, None for a list that is broken."""

    def __init__(self, complaints: Complaints, lists: Mapping[str, ListType | None]) -> None:
        self._complaints = complaints
        self._lists = lists

    def read(self, field: str, spec: FieldSpec, node: Node) -> tuple[ast.Compare, ...]:
        """The comparisons of a test; empty after a complaint."""
        if not isinstance(node, MappingNode):
            values = self._values(field, spec, node)
            return (ast.Compare(Op.IS, values),) if values else ()
        if not node.value:
            self._complaints.at(node, f"{field} is compared with nothing")
            return ()
        found = [self._operator(field, spec, key, value) for key, value in node.value]
        good = tuple(compare for compare in found if compare is not None)
        return good if len(good) == len(found) else ()

    def _operator(self, field: str, spec: FieldSpec, key: Node, node: Node) -> ast.Compare | None:
        name = key.value if isinstance(key, ScalarNode) else ""
        allowed = OPERATORS[spec.kind]
        if name not in allowed:
            known = [op.value for op in allowed]
            what = f"{field} has no operator {shortened(name)!r}"
            advice = f"it has {one_of(known)}" if name in list(Op) else hint(name, known)
            self._complaints.at(key, what, advice)
            return None
        op = Op(name)
        if op is Op.IS:
            values = self._values(field, spec, node)
            return ast.Compare(op, values) if values else None
        return self._one(field, spec, op, node)

    def _one(self, field: str, spec: FieldSpec, op: Op, node: Node) -> ast.Compare | None:
        """An operator that takes one scalar."""
        if not isinstance(node, ScalarNode):
            advice = f"values go directly behind it: {field}: [...]" if op is Op.IN else ""
            what = "the name of a list" if op is Op.IN else "one value"
            self._complaints.at(node, f"`{op}` needs {what}", advice)
            return None
        try:
            match op:
                case Op.IN:
                    return ast.Compare(op, self._list(field, spec, node.value))
                case Op.REGEX:
                    in_content = spec.kind is Kind.CONTENT
                    read = read_stream_pattern if in_content else read_pattern
                    return ast.Compare(op, read(node.value))
                case Op.EXISTS:
                    return ast.Compare(op, _truth(node))
                case _:
                    return ast.Compare(op, read_bound(field, scalar_of(node)))
        except Unfit as error:
            self._complaints.at(node, str(error), error.hint)
            return None

    def _list(self, field: str, spec: FieldSpec, name: str) -> str:
        if name not in self._lists:
            raise Unfit(f"there is no list named {shortened(name)!r}", hint(name, self._lists))
        found, wanted = self._lists[name], LISTS_OF[spec.kind]
        if found is not None and found not in wanted:
            fit = one_of(f"a {kind} list" for kind in wanted)
            raise Unfit(f"list {name!r} is a {found} list", f"{field} needs {fit}")
        return name

    def _values(self, field: str, spec: FieldSpec, node: Node) -> tuple[Value, ...]:
        """The values behind a field; empty after a complaint."""
        items = node.value if isinstance(node, SequenceNode) else [node]
        if not items:
            self._complaints.at(node, f"an empty list for {field}", "it would never match")
        found = [self._value(field, spec, item) for item in items]
        good = tuple(value for value in found if value is not None)
        return good if len(good) == len(found) else ()

    def _value(self, field: str, spec: FieldSpec, node: Node) -> Value | None:
        if not isinstance(node, ScalarNode):
            self._complaints.at(node, f"one value of {field} must be a text or a number")
            return None
        try:
            return read_value(field, spec, scalar_of(node), node.value)
        except Unfit as error:
            self._complaints.at(node, str(error), error.hint or self._maybe_list(node.value))
            return None

    def _maybe_list(self, text: str) -> str:
        return f"for the list write {{in: {text}}}" if text in self._lists else ""


def _truth(node: ScalarNode) -> bool:
    value = scalar_of(node)
    if not isinstance(value, bool):
        raise Unfit(f"{kind_of(value)} behind exists, expected true or false")
    return value
