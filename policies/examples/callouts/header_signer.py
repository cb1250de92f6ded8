"""Sign requests on their way: an HMAC over method, host, path with query, and date.

The server recomputes it with the shared key, and so knows that the request came through here.
An inline HTTP callout: no waiting, a few microseconds a request.

    [[callouts]]
    name = "signer"
    type = "http"
    path = "header_signer.py:HeaderSigner"
    interest = ["request"]
    options = { key_id = "gate-1", key = "change me" }
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from proxy.api import Field, FlowInfo, Forward, Message


class HeaderSigner:
    """One per flow. `clock` gives seconds since the epoch."""

    def __init__(
        self, flow: FlowInfo, options: Mapping[str, Any], clock: Callable[[], float] = time.time
    ) -> None:
        key = options.get("key")
        if not isinstance(key, str) or not key:
            raise ValueError("options.key must be the shared key, as text")
        self._key = key.encode()
        self._key_id = str(options.get("key_id", "1")).encode("ascii")
        self._header = str(options.get("header", "X-Gate-Signature")).encode("ascii")
        self._clock = clock

    def request(self, message: Message) -> Forward:
        """A signature that the client sent itself is replaced; a Date is kept, or added."""
        head = message.request
        fields = [field for field in head.fields if field.key != self._header.lower()]
        date = head.get(b"date")
        if date is None:
            date = formatdate(self._clock(), usegmt=True).encode("ascii")
            fields.append(_field(b"Date", date))
        path = f"{head.path}?{head.query}" if head.query else head.path
        signed = b"\n".join([head.method, head.host.encode(), path.encode(), date])
        signature = hmac.new(self._key, signed, hashlib.sha256).hexdigest().encode("ascii")
        value = b"keyid=%b, signature=%b" % (self._key_id, signature)
        fields.append(_field(self._header, value))
        return Forward(replace(head, fields=tuple(fields)))


def _field(name: bytes, value: bytes) -> Field:
    return Field(name, name.lower(), value)
