"""What a callout's answer may change in a message: checked and reduced to what can be written.

INVARIANT: framing, hop-by-hop fields, method, version and authority stay the proxy's own, and
nothing written can hold a line end. What makes no sense raises ContractError.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeVar

from proxy.api import BlockMessage, RespondWith
from proxy.callouts.http import edits
from proxy.callouts.http.framing import FRAMING_FIELDS
from proxy.errors import ContractError
from proxy.heads import Field, Head, RequestHead, ResponseHead
from proxy.policy import ast

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9110 5.5
_BODILESS = frozenset({204, 304})
_OURS = edits.PROTECTED | FRAMING_FIELDS
H = TypeVar("H", bound=Head)


def forwarded(head: H, given: object) -> H:
    """`head` with what `given` changes. The same object where it changes nothing."""
    if given is head:
        return head
    if type(given) is not type(head) or not isinstance(given, Head):
        raise ContractError(f"Forward({type(given).__name__}) for a {type(head).__name__}")
    changed = replace(head, fields=_fields(head, given))
    if isinstance(changed, RequestHead) and isinstance(given, RequestHead):
        return _aimed(changed, given)  # type: ignore[return-value]
    if isinstance(changed, ResponseHead) and isinstance(given, ResponseHead):
        return _with_status(changed, given)  # type: ignore[return-value]
    return changed


def page(answer: BlockMessage) -> BlockMessage:
    """A refusal that can be written."""
    if not isinstance(answer.status, int) or not 400 <= answer.status <= 599:
        raise ContractError(f"BlockMessage with status {answer.status!r}; expected 400 to 599")
    return answer


def own(answer: RespondWith) -> tuple[list[tuple[str, str]], bytes]:
    """Header fields and body of an answer of the callout's own."""
    status, body = answer.status, answer.body
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ContractError(f"RespondWith with status {status!r}; expected 200 to 599")
    if not isinstance(body, bytes | bytearray):
        raise ContractError(f"RespondWith with a body of {type(body).__name__}; expected bytes")
    fields = []
    given = [*answer.headers, *([("Content-Type", answer.content_type)] * bool(body))]
    for name, value in given:
        field = _checked(_bytes(name), _bytes(value))
        if field.key not in _OURS and (field.key != b"content-type" or body):
            fields.append((field.name.decode("ascii"), field.value.decode("utf-8", "replace")))
    return fields, bytes(body)


def _fields(head: Head, given: Head) -> tuple[Field, ...]:
    """The given fields in their order, ours as they are, and never without a Host."""
    if given.fields == head.fields:
        return head.fields
    ours = [field for field in head.fields if field.key in _OURS]
    hosts = [field for field in head.fields if field.key == b"host"]
    theirs = [_checked(field[0], field[2]) for field in given.fields]
    if hosts and sum(field.key == b"host" for field in theirs) != 1:
        theirs = [*hosts, *(field for field in theirs if field.key != b"host")]
    kept: list[Field] = []
    for field in theirs:
        if field.key not in _OURS:
            kept.append(field)
        elif field in ours:
            kept.append(field)
            ours.remove(field)
    return (*kept, *ours)


def _checked(name: object, value: object) -> Field:
    if not isinstance(name, bytes) or not _TOKEN.fullmatch(name):
        raise ContractError(f"{name!r} is not the name of a header field")
    if not isinstance(value, bytes) or not _VALUE.fullmatch(value):
        raise ContractError(f"{name!r} with a value that cannot be sent")
    return Field(name, name.lower(), value.strip(b" \t"))


def _aimed(head: RequestHead, given: RequestHead) -> RequestHead:
    """Path and query of the given target."""
    if given.target == head.target:
        return head
    if not isinstance(given.target, bytes) or not given.path:
        raise ContractError(f"{given.target!r} is not a request target with a path")
    return edits.rewrite_url(head, ast.RewriteUrl(path=given.path, query=given.query))


def _with_status(head: ResponseHead, given: ResponseHead) -> ResponseHead:
    status = given.status
    if status == head.status and given.reason == head.reason:
        return head
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ContractError(f"a response with status {status!r}; expected 200 to 599")
    if (status in _BODILESS) is not (head.status in _BODILESS):
        raise ContractError(f"status {head.status} to {status}: one of them has no body")
    if not isinstance(given.reason, bytes) or not _VALUE.fullmatch(given.reason):
        raise ContractError(f"{given.reason!r} is not a reason phrase")
    return replace(head, status=status, reason=given.reason)


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ContractError(f"{text!r} in a header field of RespondWith; expected text")
    return text.encode("utf-8", "replace")
