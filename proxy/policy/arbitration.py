"""Arbitration at the connection layers, as the Windows Filtering Platform does it.

learn.microsoft.com, "Filter Arbitration" and FWPS_CLASSIFY_OUT0. Sublayers are evaluated from
the highest weight to the lowest, all of them. Within a sublayer the first matching rule that
permits or blocks gives the sublayer's action; what follows it there is skipped. The action
that stands is kept with one right, FWPS_RIGHT_ACTION_WRITE: a soft action leaves it set and
may be overridden by a lower sublayer, a hard one clears it.

    stands         | the next sublayer says
                   | soft permit   hard permit   soft block    hard block
    ---------------+-----------------------------------------------------
    nothing        | taken         taken         taken         taken
    soft permit    | stays         taken         taken         taken
    hard permit    | stays         stays         stays         VETO
    soft block     | taken         taken         stays         taken
    hard block     | stays         stays         stays         stays

- Block overrides permit: a soft permit gives way to any block.
- A soft block may be turned into a permit by a lower sublayer; a hard block is final.
- A hard permit gives way only to a veto: a block returned although the right was cleared. To
  insist without the right is what a hard block does; a soft block by its nature yields to an
  action that may not be overridden, and is not returned. A veto is final, and is flagged,
  because it means that two parts of the configuration contradict each other.
- Where both say the same, the higher sublayer keeps the decision.
"""

from __future__ import annotations

import enum


class Action(enum.Enum):
    """A sublayer's action together with the right that it leaves."""

    SOFT_PERMIT = "soft permit"
    HARD_PERMIT = "hard permit"
    SOFT_BLOCK = "soft block"
    HARD_BLOCK = "hard block"

    @classmethod
    def of(cls, *, blocks: bool, hard: bool) -> Action:
        if blocks:
            return cls.HARD_BLOCK if hard else cls.SOFT_BLOCK
        return cls.HARD_PERMIT if hard else cls.SOFT_PERMIT


class Outcome(enum.Enum):
    STAYS = "stays"  #: what stood before still stands
    TAKEN = "taken"  #: the new action stands
    VETO = "veto"  #: the new action stands, against a cleared right


_SP, _HP, _SB, _HB = Action
_TABLE: dict[Action | None, dict[Action, Outcome]] = {
    None: dict.fromkeys(Action, Outcome.TAKEN),
    _SP: {
        _SP: Outcome.STAYS,
        _HP: Outcome.TAKEN,
        _SB: Outcome.TAKEN,
        _HB: Outcome.TAKEN,
    },
    _HP: {
        _SP: Outcome.STAYS,
        _HP: Outcome.STAYS,
        _SB: Outcome.STAYS,
        _HB: Outcome.VETO,
    },
    _SB: {
        _SP: Outcome.TAKEN,
        _HP: Outcome.TAKEN,
        _SB: Outcome.STAYS,
        _HB: Outcome.TAKEN,
    },
    _HB: dict.fromkeys(Action, Outcome.STAYS),
}


def arbitrate(stands: Action | None, says: Action) -> Outcome:
    """What becomes of the action that stands when the next sublayer says `says`."""
    return _TABLE[stands][says]
