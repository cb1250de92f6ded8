"""What a flow has to account for: held bytes with the budget, and records of what passed."""

from __future__ import annotations

from proxy.engine.budget import Budget
from proxy.engine.lane import Lane
from proxy.engine.sink import Sink
from proxy.engine.stage import Stage
from proxy.records import Discarded, Uninspected


class Books:
    """Kept in whole runs, never per chunk, so that the cut of the input does not show."""

    def __init__(self, sink: Sink, budget: Budget) -> None:
        self._sink = sink
        self._budget = budget

    def settle(self, lane: Lane) -> bool:
        """Take or give back what the lane's held bytes changed by. False: no room for them."""
        grown = len(lane.held) - lane.taken
        if grown <= 0:
            self._budget.give(-grown)
        elif not self._budget.take(grown):
            return False
        lane.taken = len(lane.held)
        return True

    def release(self, lane: Lane) -> None:
        """Give back everything that the lane has taken, and forget its bytes."""
        lane.held, lane.passed = b"", 0
        self._budget.give(lane.taken)
        lane.taken = 0

    def drop_held(self, lane: Lane) -> int:
        """Move past what the lane holds; returns how much of it has never gone down."""
        dropped = len(lane.held) - lane.passed
        lane.drop_held()
        self.release(lane)
        return dropped

    def spend(self, lane: Lane, n: int) -> None:
        """n bytes pass on credit."""
        lane.spend(n)
        if not lane.credit:
            self.end_credit(lane)

    def end_credit(self, lane: Lane) -> None:
        """Record what passed on a credit that is used up or lost."""
        lane.credit = 0
        if lane.ahead:
            self._sink.emit(Uninspected(lane.direction, lane.ahead, "permit_ahead"))
            lane.ahead = 0

    def end_block_run(self, stage: Stage, lane: Lane) -> None:
        """Record the contiguous blocked bytes that end here."""
        if lane.blocked:
            self._sink.emit(Discarded(lane.direction, lane.blocked, stage.name))
            lane.blocked = 0

    def close(self, stage: Stage) -> None:
        """The last records of a stage."""
        for lane in stage.lanes:
            self.end_block_run(stage, lane)
            self.end_credit(lane)
            if lane.unseen:
                self._sink.emit(Uninspected(lane.direction, lane.unseen, stage.transparent))
