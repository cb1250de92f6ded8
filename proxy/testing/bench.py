"""One flow in memory: an engine with its stages, no socket, no clock; bytes out and records.

    bench = Bench(policy=generation)                       # the stages of the service
    outcome = bench.run(conversation(("C", b"GET / ..."), ("S", b"HTTP/1.1 200 ...")))
    outcome.outbound, outcome.inbound, outcome.records, outcome.end

Questions of out-of-band callouts are run on a private event loop, each when the item of the
trace in which it was asked is complete; so `run` is for plain functions, not for coroutines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from proxy.callouts.registration import HttpRegistration
from proxy.engine.budget import Budget
from proxy.engine.effects import Ask
from proxy.engine.engine import Engine
from proxy.engine.registration import Registration
from proxy.engine.stages import protocol_stage
from proxy.flow.asks import Question, put
from proxy.limits import StreamConfig
from proxy.model import Endpoint, FlowInfo, RedirectInfo
from proxy.policy.compile import compile_policies
from proxy.policy.ruling import Policy
from proxy.testing.drive import Answers, Outcome, drive
from proxy.testing.trace import Trace, recut

WALL = 1_700_000_000.0  #: the wall clock of a bench stands still: 2023-11-14 22:13:20 UTC


def sample_flow(
    *, server: str = "192.0.2.1:80", client: str = "192.0.2.9:40000", explicit: bool = False
) -> FlowInfo:
    """A flow between two documentation addresses (RFC 5737)."""
    redirect = RedirectInfo(
        "static", Endpoint.parse(server), Endpoint.parse(client), explicit=explicit
    )
    return FlowInfo("test", redirect, WALL)


class Bench:
    """Runs traces, each through a flow of its own.

    With a `policy` (a Generation), or with `http` callouts, the protocol stage is there, as in
    the service; `stages` are further registrations. `flow` makes the FlowInfo of each run,
    `answers` takes the place of the event loop for questions, `wall` is seconds since the epoch.
    """

    def __init__(
        self,
        *stages: Registration,
        policy: Policy | None = None,
        http: Sequence[HttpRegistration] = (),
        config: StreamConfig | None = None,
        flow: Callable[[], FlowInfo] = sample_flow,
        answers: Answers | None = None,
        wall: float = WALL,
    ) -> None:
        self.config = config or StreamConfig()
        self._stages = list(stages)
        self.flow = flow
        self._answers = answers
        if policy is not None or http:
            generation = policy or compile_policies((), 1)
            stage = protocol_stage(self.config, lambda: generation, lambda: wall, http)
            self._stages.append(stage)

    def run(self, trace: Trace, cuts: Sequence[int] = ()) -> Outcome:
        """Drive a fresh flow with the trace, cut at these positions of its data.

        AssertionError when the flow does not give back what it took of the buffer budget.
        """
        budget = Budget(self.config.limits.process_buffer)
        if self._answers is not None:
            outcome = drive(lambda: self.engine(budget), recut(trace, cuts), answers=self._answers)
        else:
            with Questions() as answers:
                outcome = drive(lambda: self.engine(budget), recut(trace, cuts), answers=answers)
        if budget.used:
            raise AssertionError(f"{budget.used} bytes of the buffer budget were not given back")
        return outcome

    def engine(self, budget: Budget | None = None) -> Engine:
        """A fresh engine whose clock stands still."""
        budget = budget or Budget(self.config.limits.process_buffer)
        return Engine(self.flow(), self._stages, self.config, budget, lambda: 0.0)

    def with_stages(self, *stages: Registration) -> Bench:
        """The same bench with further stages."""
        bench = Bench(config=self.config, flow=self.flow, answers=self._answers)
        bench._stages = [*self._stages, *stages]
        return bench


class Questions:
    """Answers questions by running them, on an event loop that is made when there is one."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Questions:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._runner is not None:
            self._runner.close()

    def __call__(self, ask: Ask) -> tuple[object, str | None]:
        if self._runner is None:
            self._runner = asyncio.Runner()
        answer = self._runner.run(put(cast(Question, ask.question), ask.timeout))
        return answer.value, answer.error
