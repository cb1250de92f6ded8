"""Blank out named fields in JSON that goes through, whatever they hold.

An out-of-band HTTP callout on complete small bodies (`body_bytes`): the message waits while a
coroutine works on it, other flows go on. Everything but the values of those fields stays byte
for byte. What says that it is JSON and is not becomes `null`: a document that this program
reads differently from its recipient must not slip through.

    [[callouts]]
    name = "redactor"
    type = "http"
    path = "json_redactor.py:JsonRedactor"
    mode = "out_of_band"
    interest = ["request", "request_body", "response", "response_body"]
    body_bytes = "256KiB"
    options = { fields = ["password", "token"], mask = "***" }
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.api import FlowInfo, Forward, Message

_SMALL = 16 * 1024  # bytes; more is worked on in a thread
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_OPEN, _CLOSE = frozenset("{["), frozenset("}]")


class JsonRedactor:
    """One per flow; it keeps nothing between messages."""

    def __init__(self, flow: FlowInfo, options: Mapping[str, Any]) -> None:
        names = options.get("fields", ())
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError("options.fields must be a list of field names")
        self._names = frozenset(name.casefold() for name in names)
        self._mask = json.dumps(str(options.get("mask", "***")))

    async def request(self, message: Message) -> Forward:
        return Forward(skip_body=not _is_json(message.request.content_type))

    async def response(self, message: Message) -> Forward:
        response = message.response
        return Forward(skip_body=response is None or not _is_json(response.content_type))

    async def body(self, message: Message, content: bytes) -> bytes:
        if len(content) <= _SMALL:
            return self.redacted(content)
        return await asyncio.to_thread(self.redacted, content)

    def redacted(self, content: bytes) -> bytes:
        """The same document with the values of the fields masked."""
        try:
            encoding = json.detect_encoding(content)
            text = content.decode(encoding)
            json.loads(text)
        except (ValueError, RecursionError):
            return b"null" if content.strip() else content
        out, at = [], 0
        for start, end in self._values(text):
            out += [text[at:start], self._mask]
            at = end
        return "".join([*out, text[at:]]).encode(encoding) if at else content

    def _values(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the values of the named fields stand. `text` is valid JSON."""
        tokens = _TOKEN.finditer(text)
        name = ""
        for token in tokens:
            if token[0] == ":" and name.casefold() in self._names:
                yield _value(tokens)
            name = json.loads(token[0]) if token[0][0] == '"' else ""


def _value(tokens: Iterator[re.Match[str]]) -> tuple[int, int]:
    """Where the next value begins and ends."""
    first = last = next(tokens)
    depth = int(first[0] in _OPEN)
    while depth:
        last = next(tokens)
        depth += (last[0] in _OPEN) - (last[0] in _CLOSE)
    return first.start(), last.end()


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")
