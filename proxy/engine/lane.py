"""One direction of one stage: what it holds, what it waits for, what it has let pass.

Arithmetic only; who is called and where bytes go is the waterfall's affair. All positions
are in the stage's own input coordinates of this direction.
"""

from __future__ import annotations

from proxy.contract import StreamData
from proxy.model import Direction

ASK_WINDOW = 64 * 1024  #: bytes held behind an open question before the source is paused


class Lane:
    """The cut position of a stage in one direction and everything around it.

    `held` is the undecided input. It is the very object that arrived while nothing has been
    joined or cut, so that a chunk which passes whole is never copied; a bytearray otherwise,
    which appends and drops its front in amortised constant time.
    """

    __slots__ = (
        "ahead",
        "asks",
        "blocked",
        "credit",
        "deferred",
        "direction",
        "fin_decided",
        "held",
        "input_ended",
        "inserted",
        "limit",
        "missed",
        "need",
        "offset",
        "output_ended",
        "passed",
        "pressed",
        "running",
        "taken",
        "turns",
        "turns_in",
        "unseen",
    )

    def __init__(self, direction: Direction, limit: int) -> None:
        self.direction = direction
        self.limit = limit
        self.held: bytes | bytearray = b""
        self.taken = 0  #: bytes taken from the process-wide budget for `held`
        self.passed = 0  #: leading bytes of `held` that went down already (inspection only)
        self.need = 0  #: len(held) at which the callout wants to be called again
        self.pressed = False  #: the budget is exhausted: it must decide now
        self.credit = 0  #: input bytes that pass unseen from here on
        self.ahead = 0  #: bytes that passed on the present credit
        self.unseen = 0  #: bytes that passed since the stage became transparent
        self.offset = 0  #: absolute offset of held[0]
        self.missed = 0
        self.blocked = 0  #: length of the run of blocked bytes that ends at `offset`
        self.deferred = False
        self.asks = 0  #: open questions behind which this direction waits
        self.inserted = False  #: something was inserted at `offset`
        self.input_ended = False  #: FIN (or the end by RST) has come in
        self.fin_decided = False  #: nothing is left to decide in this direction
        self.output_ended = False  #: FIN has gone down
        self.running = False
        self.turns = 0  #: verdicts without progress during indication number `turns_in`
        self.turns_in = 0

    @property
    def waiting(self) -> bool:
        """The callout does not want to be called, whatever arrives."""
        return self.deferred or self.asks > 0

    @property
    def ready(self) -> bool:
        """There is something that the callout has to decide now."""
        if self.fin_decided or self.deferred or self.asks:
            return False
        if self.held:
            return len(self.held) >= self.need or self.input_ended or self.pressed
        return self.input_ended

    @property
    def idle(self) -> bool:
        """Nothing is held or waited for, so that what comes next may be offloaded."""
        return not (self.held or self.waiting or self.input_ended)

    def indication(self, now: float) -> StreamData:
        """What the callout is shown."""
        held, ended = self.held, self.input_ended
        return StreamData(
            self.direction,
            held,
            self.offset,
            self.missed,
            ended,
            ended and not held,
            self.pressed or len(held) >= self.limit,
            now,
        )

    def append(self, data: bytes) -> None:
        """Hold more input. The caller has checked that it fits the limit."""
        if not self.held:
            self.held = data
            return
        if isinstance(self.held, bytes):
            self.held = bytearray(self.held)
        try:
            self.held += data
        except BufferError:  # a callout kept a view beyond its call: leave it the old buffer
            self.held = bytearray(self.held) + data

    def wait_for(self, n: int) -> None:
        """Not before n more bytes, the end or the limit."""
        self.need = min(len(self.held) + n, self.limit)

    def take(self, n: int) -> bytes:
        """Advance the cut by n <= len(held) bytes; returns those that have not passed yet."""
        held, passed = self.held, min(self.passed, n)
        if n == len(held) and not passed:
            piece = bytes(held)  # the same object if it is bytes
            self.held = b""
        else:
            piece = bytes(memoryview(held)[passed:n])
            self._drop_front(n)
        self.passed -= passed
        self._advance(n)
        return piece

    def cut(self, n: int) -> None:
        """Advance by n <= len(held) bytes that do not pass."""
        if n == len(self.held):
            self.held = b""
        else:
            self._drop_front(n)
        self._advance(n)

    def drop_held(self) -> None:
        """Give up what is held."""
        n, self.held, self.passed = len(self.held), b"", 0
        self._advance(n)

    def unpassed(self) -> bytes:
        """What is held and has not gone down; counts as passed from now on."""
        piece = bytes(memoryview(self.held)[self.passed :])
        self.passed = len(self.held)
        return piece

    def spend(self, n: int) -> None:
        """n <= credit bytes pass unseen."""
        self.credit -= n
        self.ahead += n
        self.offset += n

    def skip(self, n: int) -> None:
        """n bytes pass a transparent stage."""
        self.unseen += n
        self.offset += n

    def turn(self, indication: int) -> int:
        """Count a verdict without progress; returns how many there were in this indication."""
        if self.turns_in != indication:
            self.turns_in, self.turns = indication, 0
        self.turns += 1
        return self.turns

    def reopen(self) -> None:
        """Another upstream follows in the place of the one that ended."""
        self.input_ended = self.fin_decided = False
        self.deferred = False
        self.need = self.credit = 0

    def _drop_front(self, n: int) -> None:
        if isinstance(self.held, bytes):
            self.held = bytearray(memoryview(self.held)[n:])
            return
        try:
            del self.held[:n]
        except BufferError:  # as in append()
            self.held = bytearray(memoryview(self.held)[n:])

    def _advance(self, n: int) -> None:
        self.offset += n
        self.need = 0
        self.pressed = self.inserted = False
        self.turns = 0
