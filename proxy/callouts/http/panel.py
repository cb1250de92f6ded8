"""The users' own HTTP callouts in one flow: who they are, and one question put to each in turn.

Foreign code: what it raises, answers wrongly or takes too long for is an exception of that
callout, under its own policy or the table's, and never leaves here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from proxy.api import HttpCallout, Interest
from proxy.callouts.registration import HttpRegistration
from proxy.contract import Answer, FlowHandle, Kind, Mode
from proxy.errors import ContractError
from proxy.limits import Cause, ExceptionPolicies, OnException
from proxy.records import ExceptionApplied

_DETAIL_CHARS = 200
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A callout of this flow; `problem` says why there is none."""

    registration: HttpRegistration
    callout: HttpCallout | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        return self.registration.name

    @property
    def only_looks(self) -> bool:
        return self.registration.kind is Kind.INSPECTION


class Panel:
    """All of them, from the first asked to the last."""

    def __init__(
        self,
        flow: FlowHandle,
        registrations: Sequence[HttpRegistration],
        exceptions: ExceptionPolicies,
    ) -> None:
        self.flow = flow
        self._exceptions = exceptions
        self._members = tuple(_made(one, flow) for one in registrations)
        self._open: dict[int, Round[Any]] = {}

    def __bool__(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._members)

    def interested(self, interest: Interest) -> list[Member]:
        """Those that want to be asked about any of this."""
        return [one for one in self._members if one.registration.interest & interest]

    def may_change(self, interest: Interest) -> bool:
        """Whether any of them could change what `interest` names."""
        return any(not member.only_looks for member in self.interested(interest))

    def note(self, answer: Answer) -> bool:
        """An answer has come. True: it was ours, whatever it says."""
        waiting = self._open.pop(answer.ask_id, None)
        if waiting is not None:
            waiting.answer = answer
        return waiting is not None

    def put(self, waiting: Round[Any], question: Callable[[], Any], timeout: float) -> None:
        """Ask out of band; the answer goes to the round."""
        self._open[self.flow.ask(question, timeout)] = waiting

    def closes(self, member: Member, cause: Cause, detail: str) -> bool:
        """A callout cannot decide: apply its exception policy. True: refuse the message."""
        action = member.registration.on_error or self._exceptions.action(cause)
        self.flow.emit(ExceptionApplied(cause, action, member.name, detail[:_DETAIL_CHARS]))
        return action is OnException.CLOSED


def _made(registration: HttpRegistration, flow: FlowHandle) -> Member:
    try:
        return Member(registration, registration.make(flow.info))
    except Exception as error:  # noqa: BLE001 - foreign code; told when it is first asked
        return Member(registration, problem=f"{type(error).__name__}: {error}")


class _Failed(Exception):
    def __init__(self, cause: Cause, detail: str) -> None:
        self.cause = cause
        super().__init__(detail)


class Round(Generic[V]):
    """One question for each of some callouts; what one makes of `value` is shown to the next.

    `method` is what is called on them, with `arguments(value)`. `accept(member, answer, value)`
    gives the new value, which does not count from one that only looks; it raises ContractError
    for what is no answer, and may call `stop`.
    """

    def __init__(
        self,
        panel: Panel,
        members: Iterable[Member],
        value: V,
        method: str,
        arguments: Callable[[V], tuple[Any, ...]],
        accept: Callable[[Member, Any, V], V],
    ) -> None:
        self.value = value
        self.answer: Answer | None = None  #: to the open question
        self.refused: Member | None = None  #: its exception policy refuses the message
        self._panel = panel
        self._left = list(members)
        self._method = method
        self._arguments = arguments
        self._accept = accept
        self._asked = False

    def stop(self) -> None:
        """Ask nobody else."""
        self._left.clear()

    def turn(self) -> bool:
        """Go on as far as that is possible now. False: an answer is awaited."""
        while self._left:
            member = self._left[0]
            try:
                if not self._replied(member):
                    return False
            except _Failed as failed:
                if self._panel.closes(member, failed.cause, str(failed)):
                    self.refused = member
                    self.stop()
            del self._left[:1]
        return True

    def _replied(self, member: Member) -> bool:
        """Take the member's answer into `value`. False: it is still to come. Raises _Failed."""
        if member.callout is None:
            raise _Failed(Cause.CALLOUT_EXCEPTION, member.problem)
        if member.registration.mode is Mode.INLINE:
            self._take(member, self._call(member))
            return True
        answer, self.answer = self.answer, None
        if answer is None:
            if not self._asked:
                self._asked = True
                arguments, timeout = self._arguments(self.value), member.registration.timeout
                self._panel.put(self, lambda: self._method_of(member)(*arguments), timeout)
            return False
        self._asked = False
        if answer.error is not None:
            failed = isinstance(answer.value, Exception)
            cause = Cause.CALLOUT_EXCEPTION if failed else Cause.CALLOUT_OVERRUN
            raise _Failed(cause, answer.error)
        self._take(member, answer.value)
        return True

    def _method_of(self, member: Member) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(member.callout, self._method)
        return method

    def _call(self, member: Member) -> object:
        try:
            answer: object = self._method_of(member)(*self._arguments(self.value))
        except Exception as error:
            raise _Failed(Cause.CALLOUT_EXCEPTION, f"{type(error).__name__}: {error}") from error
        return answer

    def _take(self, member: Member, answer: object) -> None:
        try:
            value = self._accept(member, answer, self.value)
        except ContractError as error:
            raise _Failed(Cause.CALLOUT_EXCEPTION, f"ContractError: {error}") from error
        if not member.only_looks:
            self.value = value
