"""A body whose content the users' own callouts see and change piece by piece, as it goes by.

Unframe, decode, ask, then the rules of policy, then chunks. The codings stay off: what goes on
is plain. While an answer is awaited the direction waits, its source paused by the engine.

Pieces are as the reads fell: what a callout makes of them must not depend on that. (Its own
output follows `filtered`'s relaxation of the invariance law: chunk boundaries.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.api import Message
from proxy.callouts.http.chain import Chain
from proxy.callouts.http.consulting import on_content
from proxy.callouts.http.filtered import FilteredBody, Frame
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.panel import Member, Panel, Round
from proxy.callouts.http.unframe import Unframer
from proxy.content.codings import CodingLimits, Decoder
from proxy.contract import Defer, DropConnection, How, StreamData, Verdict
from proxy.policy.ruling import Ruling


class AskedBody(FilteredBody):
    """`chain` is that of policy, for content without codings."""

    def __init__(self, unframer: Unframer, chain: Chain | None, frame: Frame, asking: Asking):
        self._answered = _Answered(unframer)
        self._faults = _Faults(chain)
        super().__init__(self._answered, self._faults, frame)
        self._asking = asking

    def step(self, data: StreamData) -> Verdict | None:
        answered, asking = self._answered, self._asking
        if not asking.busy:
            consumed, content = answered.real.decode(data.data)
            if consumed:
                asking.begin(consumed, content, last=answered.real.done)
        verdict = self._turn()
        if verdict is not None:
            return verdict
        return None if self.stopped else super().step(data)

    @property
    def done(self) -> bool:
        return self._unframer.done and not self._asking.busy

    def size(self, offset: int) -> int:
        return self._asking.size

    def ending(self) -> Verdict | None:
        """The stream ends, and with it this body. The verdict on that; None: `flush` has it all."""
        if not self._asking.busy and not self._asking.ended:
            self._asking.begin(0, b"", last=True)
        return self._turn()

    def flush(self) -> bytes:
        rest, self._answered.content = self._answered.content, b""
        if rest:
            fed = self._faults.feed(rest)
            return b"" if self.stopped else self._write(fed) + super().flush()
        return super().flush()

    def _turn(self) -> Verdict | None:
        """Have the open piece answered. None: it is, or there is none."""
        asking, answered = self._asking, self._answered
        if not asking.busy:
            return None
        if not asking.turn():
            return Defer()
        if asking.refused:
            return DropConnection(How.RESET)
        answered.consumed, answered.content = asking.take()
        self._faults.fault = self._faults.fault or asking.fault
        return None


class Asking:
    """Puts one piece at a time to the callouts that want it."""

    def __init__(
        self,
        panel: Panel,
        members: Sequence[Member],
        message: Message,
        codings: tuple[str, ...],
        limits: CodingLimits,
    ) -> None:
        self.fault: Finding | None = None
        self.ended = False
        self.size = 0  #: bytes of content as they came
        self._panel = panel
        self._members = list(members)
        self._message = message
        self._decoder = Decoder(codings, limits)
        self._round: Round[Any] | None = None
        self._consumed = 0

    @property
    def busy(self) -> bool:
        return self._round is not None

    @property
    def refused(self) -> bool:
        """An exception policy says closed."""
        return self._round is not None and self._round.refused is not None

    def begin(self, consumed: int, content: bytes, *, last: bool) -> None:
        """Ask about the next piece. Nobody is asked about nothing, but at the end."""
        self.size += len(content)
        decoded = b"".join(self._decoder.feed(content))
        if last:
            self.ended = True
            decoded += b"".join(self._decoder.finish())
        if self._decoder.fault is not None:
            self.fault = Finding(self._decoder.fault.value, self._decoder.detail)
        asked = self._members if (decoded or last) and self.fault is None else []
        message = self._message

        def arguments(value: bytes) -> tuple[Any, ...]:
            return message, value, last

        self._consumed = consumed
        self._round = Round(self._panel, asked, decoded, "data", arguments, on_content)

    def turn(self) -> bool:
        assert self._round is not None
        return self._round.turn()

    def take(self) -> tuple[int, bytes]:
        """(bytes of the stream, what goes on for them) of the piece that is answered."""
        assert self._round is not None
        content, self._round = self._round.value, None
        return self._consumed, content


class _Answered:
    """An unframer that gives what the callouts made of the content (unframe.Unframer)."""

    def __init__(self, real: Unframer) -> None:
        self.real = real
        self.consumed = 0
        self.content = b""
        self.trailer = b""

    @property
    def done(self) -> bool:
        return self.real.done

    @property
    def fault(self) -> Finding | None:
        return self.real.fault

    def decode(self, data: bytes | bytearray) -> tuple[int, bytes]:
        answer = self.consumed, self.content
        self.consumed, self.content, self.trailer = 0, b"", self.real.trailer
        return answer


class _Faults:
    """Policy's chain, if there is one, with the fault of what lies before it (chain.Chain)."""

    def __init__(self, inner: Chain | None) -> None:
        self.fault: Finding | None = None
        self._inner = inner

    @property
    def ruling(self) -> Ruling | None:
        return self._inner.ruling if self._inner is not None else None

    def feed(self, data: bytes) -> bytes:
        if self.fault is not None or self._inner is None:
            return b"" if self.fault is not None else data
        out = self._inner.feed(data)
        self.fault = self._inner.fault
        return out

    def finish(self) -> bytes:
        if self.fault is not None or self._inner is None:
            return b""
        out = self._inner.finish()
        self.fault = self._inner.fault
        return out

    def open_up(self) -> bytes | None:
        return None  # what was sent already is of another stream
