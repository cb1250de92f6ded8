"""Which bytes of a flow the kernel moves by itself, and when that begins and ends.

The engine offers what no callout wants to see (`Splice`); it is taken up when the offer is
large, the source delivers in bulk and everything written before has left. It ends with the
offer, with the stream, when the engine has something to say to that direction, or when nothing
moved for a second: the bytes that are in the pipe then go the ordinary way, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.flow.pipes import Pipe, PipePool, Splicing
from proxy.flow.side import Hold, Side
from proxy.model import Direction

if TYPE_CHECKING:
    from proxy.flow.shell import FlowShell

#: An offer below this is not worth a pipe: what it saves, setting up costs.
WORTH_IT = 1 << 20
_BULK = 32 * 1024  #: a read of this size: the source has more


class Offload:
    """One direction of one flow. `offered` when the engine has said that much may follow."""

    __slots__ = (
        "_at_tick",
        "_direction",
        "_moved",
        "_pipe",
        "_shell",
        "_since",
        "_splicing",
        "offered",
    )

    def __init__(self, shell: FlowShell, direction: Direction) -> None:
        self.offered = False
        self._shell = shell
        self._direction = direction
        self._splicing: Splicing | None = None
        self._pipe: Pipe | None = None
        self._moved = 0
        self._at_tick = -1
        self._since = 0.0

    @property
    def active(self) -> bool:
        return self._splicing is not None

    @property
    def unsent(self) -> int:
        """Bytes in the pipe."""
        return self._splicing.waiting if self._splicing is not None else 0

    @property
    def blocked(self) -> bool:
        """The sink takes nothing at present."""
        return self._splicing is not None and self._splicing.blocked

    def consider(self, size: int) -> None:
        """`size` bytes of this direction were read and applied: begin now?"""
        ends = self._shell.ends(self._direction)
        pool = self._shell.services.pipes
        if ends is None or pool is None or size < _BULK or self.active:
            return
        source, sink = ends
        left = self._shell.offloadable(self._direction)
        self.offered = left is None or left >= WORTH_IT
        if self.offered and not sink.unsent and source.free:
            self._begin(pool, source, sink, left)

    def _begin(self, pool: PipePool, source: Side, sink: Side, left: int | None) -> None:
        pipe = pool.borrow()
        if pipe is None:
            return
        source.hold(Hold.OFFLOAD)
        loop = self._shell.services.loop
        self._pipe = pipe
        self._splicing = Splicing(
            loop, pipe, source.fileno, sink.fileno, left, self._on_moved, self._on_over
        )

    def stop(self) -> None:
        """Go on the ordinary way; harmless when nothing was begun."""
        splicing, self._splicing = self._splicing, None
        if splicing is None:
            return
        rest = splicing.stop()
        pool = self._shell.services.pipes
        if pool is not None and self._pipe is not None:
            pool.give_back(self._pipe)
        self._pipe = None
        ends = self._shell.ends(self._direction)
        if ends is not None:
            source, sink = ends
            sink.write(rest)
            source.release(Hold.OFFLOAD)

    def tick(self, now: float, limit: float) -> bool:
        """Once a second: a pipe that nothing goes through is for others. True: the sink has
        taken nothing for `limit` seconds."""
        if not self.active or self._moved != self._at_tick:
            self._at_tick, self._since = self._moved, now
        elif not self.blocked:
            self.stop()
        return self.blocked and now - self._since > limit

    def _on_moved(self, n: int) -> None:
        self._moved += n
        self._shell.on_offloaded(self._direction, n)

    def _on_over(self, error: int, at_sink: bool) -> None:
        """The offer is used up, the stream has ended (its transport will meet that again), or
        one of the sockets has failed."""
        ends = self._shell.ends(self._direction)
        self.stop()
        if error and ends is not None:
            ends[at_sink].hang_up(error)
