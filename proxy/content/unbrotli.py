"""br: RFC 7932, by brotli.

The library drops what it has decoded in a call that meets an error, and cannot be set back: so
of an invalid stream the content just before the fault (up to one call's) may be missing, more
of it when the stream comes in larger chunks. The fault is the same for any cut. The window is
what the stream asks for, 16 MiB at most; the larger windows of later drafts are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import brotli

from proxy.content.stages import Broken, Fault

# The library gives out whole buffers: the largest below PIECE. Any limit up to it means this.
_BUFFER = 32752


class Brotli:
    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()

    @property
    def whole(self) -> bool:
        return bool(self._brotli.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        if not data:
            return
        if self._brotli.is_finished():
            raise Broken(Fault.INVALID, _DETAIL)
        while True:
            try:
                content: bytes = self._brotli.process(data, output_buffer_limit=_BUFFER)
            except brotli.error as error:
                raise Broken(Fault.INVALID, _DETAIL) from error
            if content:
                yield content
            if self._brotli.is_finished():
                return
            if not content and self._brotli.can_accept_more_data():
                return
            data = b""


_DETAIL = "br: invalid data, or bytes behind the end"  # the library tells no more
