"""The bottom of the waterfall: effects in order, and what has been said to the shell so far."""

from __future__ import annotations

from proxy.contract import How
from proxy.engine import effects as fx
from proxy.model import Direction
from proxy.records import Record

_JOIN_MAX = 64 * 1024  #: adjacent writes are joined up to this: one send() for head and body


class Sink:
    """Collects effects; after `end` it takes records only."""

    __slots__ = (
        "effects",
        "ended",
        "finished",
        "owes_finish",
        "paused",
        "source_ended",
        "upstream_lost",
    )

    def __init__(self) -> None:
        self.effects: list[fx.Effect] = []
        self.ended = False
        self.finished = [False, False]  #: FIN went out, or (outbound) the upstream is lost
        self.source_ended = [False, False]
        self.paused = [False, False]
        self.upstream_lost = False
        self.owes_finish = False  #: the upstream is lost and Finish(OUTBOUND) was not said

    def write(self, direction: Direction, data: bytes) -> None:
        """Bytes for the peer; discarded when that output has ended."""
        if not self.ended and not self.finished[direction]:
            self.effects.append(fx.Write(direction, data))

    def finish(self, direction: Direction) -> None:
        if not self.ended and not self.finished[direction]:
            self.finished[direction] = True
            self.effects.append(fx.Finish(direction))

    def emit(self, record: Record) -> None:
        self.effects.append(fx.Emit(record))

    def end(self, how: How, reason: str) -> None:
        """End the flow; the first call counts."""
        if not self.ended:
            self.ended = True
            self.effects.append(fx.End(how, reason))

    def pause(self, direction: Direction, wanted: bool) -> None:
        """Say Pause or Resume if that is news."""
        if wanted is not self.paused[direction]:
            self.paused[direction] = wanted
            self.effects.append((fx.Pause if wanted else fx.Resume)(direction))

    def lose_upstream(self) -> None:
        """Nothing goes out or comes in on that side until another one is dialled."""
        self.upstream_lost = True
        self.owes_finish = self.owes_finish or not self.finished[Direction.OUTBOUND]
        self.finished[Direction.OUTBOUND] = True
        self.source_ended[Direction.INBOUND] = True

    def settle_lost_upstream(self) -> None:
        """The loss was claimed: tell the shell that no outbound byte will follow."""
        if self.owes_finish:
            self.owes_finish = False
            self.effects.append(fx.Finish(Direction.OUTBOUND))

    def regain_upstream(self) -> None:
        """Another upstream is being dialled."""
        self.upstream_lost = self.owes_finish = False
        self.finished[Direction.OUTBOUND] = False
        self.source_ended[Direction.INBOUND] = False

    @property
    def complete(self) -> bool:
        """Nothing can come and nothing more may be sent."""
        return self.finished == self.source_ended == [True, True]

    def take(self) -> list[fx.Effect]:
        """The effects since the last time, adjacent small writes joined."""
        effects, self.effects = self.effects, []
        return effects if len(effects) < 2 else _joined(effects)


def _joined(effects: list[fx.Effect]) -> list[fx.Effect]:
    result: list[fx.Effect] = []
    run: list[fx.Write] = []
    size = 0
    for effect in effects:
        if type(effect) is fx.Write:
            if run and (
                effect.direction is not run[0].direction or size + len(effect.data) > _JOIN_MAX
            ):
                result.append(_join(run))
                run, size = [], 0
            run.append(effect)
            size += len(effect.data)
            continue
        if run:
            result.append(_join(run))
            run, size = [], 0
        result.append(effect)
    if run:
        result.append(_join(run))
    return result


def _join(run: list[fx.Write]) -> fx.Write:
    return run[0] if len(run) == 1 else fx.Write(run[0].direction, b"".join(w.data for w in run))
