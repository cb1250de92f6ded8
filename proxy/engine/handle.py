"""The FlowHandle that a callout gets: it only takes notes.

INVARIANT: nothing happens during a call. What a callout asks for is queued here and carried
out by the waterfall when the call has returned, so classify is never re-entered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.contract import How
from proxy.engine import effects as fx
from proxy.errors import ContractError
from proxy.model import Direction, Endpoint, FlowInfo
from proxy.records import Record


@dataclass(frozen=True, slots=True)
class Inject:
    direction: Direction
    data: bytes


@dataclass(frozen=True, slots=True)
class Proceed:
    direction: Direction


@dataclass(frozen=True, slots=True)
class FinishOutput:
    direction: Direction


@dataclass(frozen=True, slots=True)
class Drop:
    how: How


Action = Inject | Proceed | FinishOutput | Drop | fx.SetTimer | fx.Ask | fx.Dial | fx.Emit


class Handle:
    """`proxy.contract.FlowHandle` for one stage. Methods raise ContractError on misuse."""

    def __init__(
        self,
        info: FlowInfo,
        now: float,
        stage: int,
        ask_ids: Iterator[int],
        *,
        may_change: bool,
        may_ask: bool,
    ) -> None:
        self.info = info
        self.now = now
        self.active = True  #: a call of the callout is under way
        self.queue: list[Action] = []
        self.ended_outputs: set[Direction] = set()  #: kept by the waterfall, and by finish()
        self._stage = stage
        self._ask_ids = ask_ids
        self._may_change = may_change
        self._may_ask = may_ask

    def inject(self, direction: Direction, data: bytes) -> None:
        """Add bytes at this stage's output; ContractError after its FIN."""
        self._check_changing("inject")
        if direction in self.ended_outputs:
            raise ContractError(f"inject after the end of this stage's {direction.label} output")
        if data:
            self._note(Inject(direction, bytes(data)))

    def proceed(self, direction: Direction) -> None:
        """Undo Defer."""
        self._note(Proceed(direction))

    def finish(self, direction: Direction) -> None:
        """End this stage's output; a second time is as once."""
        self._check_changing("finish")
        if direction not in self.ended_outputs:
            self._note(FinishOutput(direction))
            self.ended_outputs.add(direction)

    def drop(self, how: How = How.RESET) -> None:
        """End the flow; without effect from an inspection-only callout."""
        if self._may_change:
            self._note(Drop(how))

    def set_timer(self, name: str, delay: float | None) -> None:
        """(Re)start or stop a timer of this stage."""
        self._note(fx.SetTimer(self._stage, name, delay))

    def ask(self, question: object, timeout: float) -> int:
        """Put a question to the outside; ContractError for a callout registered inline."""
        if not self._may_ask:
            raise ContractError("ask from a callout that is registered inline, not out_of_band")
        number = next(self._ask_ids)
        self._note(fx.Ask(number, question, timeout))
        return number

    def dial(self, endpoint: Endpoint) -> None:
        """Leave the upstream for another one; its outbound stream begins anew."""
        self._check_changing("dial")
        fin = FinishOutput(Direction.OUTBOUND)  # of this same call: the old upstream goes anyway
        self.queue = [action for action in self.queue if action != fin]
        self._note(fx.Dial(endpoint))
        self.ended_outputs.discard(Direction.OUTBOUND)

    def emit(self, record: Record) -> None:
        """Hand a record to the accounts."""
        self._note(fx.Emit(record))

    def take(self) -> list[Action]:
        """What was asked for since the last call, in order."""
        queue, self.queue = self.queue, []
        return queue

    def take_emits(self) -> list[Action]:
        """The same when the call failed: records only, for they are facts."""
        return [action for action in self.take() if isinstance(action, fx.Emit)]

    def _check_changing(self, what: str) -> None:
        if not self._may_change:
            raise ContractError(f"{what} from an inspection-only callout")

    def _note(self, action: Action) -> None:
        if not self.active:
            raise ContractError("a flow handle is for use during classify() and signal() only")
        self.queue.append(action)
