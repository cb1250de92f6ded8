"""Change the greeting of servers that speak first: SMTP (RFC 5321 4.3.1), FTP (RFC 959 5.4).

Servers like to say what they are and how old (`220 mail ESMTP Exim 4.94.2`). This stream
callout puts a text of its own behind the reply code of the first line and leaves the flow.
What does not begin like a reply, and what comes after a client that spoke first, passes.

    [[callouts]]
    name = "greeting"
    type = "stream"
    path = "greeting.py:Greeting"
    options = { text = "ready" }
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.api import (
    AllowConnection,
    Direction,
    FlowHandle,
    NeedMoreData,
    Permit,
    Replace,
    StreamBase,
    StreamData,
    Verdict,
)

_LINE_BYTES = 2048  # a longer first line is no greeting; RFC 5321 4.5.3.1.5 allows 512
_REPLY = re.compile(rb"[1-5][0-9]{2}[ -]")


class Greeting(StreamBase):
    """One per flow. Holds at most a line, and nothing once the line is through."""

    def __init__(self, flow: FlowHandle, options: Mapping[str, Any]) -> None:
        text = options.get("text", "ready")
        if not isinstance(text, str) or not text.isascii() or not text.isprintable():
            raise ValueError("options.text must be printable ASCII, on one line")
        self._text = text.encode("ascii")
        self._searched = 0  # bytes of the line that hold no line end
        self._done = False

    def classify(self, data: StreamData) -> Verdict:
        if self._done or data.disconnect or data.direction is Direction.OUTBOUND:
            return AllowConnection()  # the client speaks first: what follows is no greeting
        end = data.data.find(b"\n", self._searched, _LINE_BYTES)
        if end < 0:
            self._searched = min(len(data.data), _LINE_BYTES)
            ended = data.no_more_data or data.buffer_limit_reached
            return AllowConnection() if ended or self._searched == _LINE_BYTES else NeedMoreData()
        self._done = True
        line = bytes(data.data[: end + 1])
        if not _REPLY.match(line):
            return Permit(len(line))
        line_end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        return Replace(len(line), line[:4] + self._text + line_end)
