"""A generation whose decisions are timed now and then, for `sluicegate_decision_seconds`."""

from __future__ import annotations

import time
from collections.abc import Callable

from proxy.model import Layer
from proxy.policy.facts import Facts
from proxy.policy.generation import Generation
from proxy.policy.ruling import Ruling

_EVERY = 64  #: one decision in so many is timed: two clock reads are not free


class SampledPolicy:
    """Answers as the generation does (its own bound methods), and observes one in 64."""

    def __init__(self, generation: Generation, observe: Callable[[float], None]) -> None:
        self.number = generation.number
        self.wants = generation.wants
        self.wants_field = generation.wants_field
        self.watch = generation.watch
        self.may_touch_response_body = generation.may_touch_response_body
        self.may_inject_banner = generation.may_inject_banner
        self.protocols = generation.protocols
        self.answers = generation.answers
        self.anomaly_action = generation.anomaly_action
        self._decide = generation.decide
        self._observe = observe
        self._left = 1  # the first is timed, so that the metric exists early

    def decide(self, layer: Layer, facts: Facts) -> Ruling:
        self._left -= 1
        if self._left:
            return self._decide(layer, facts)
        self._left = _EVERY
        begin = time.perf_counter()
        ruling = self._decide(layer, facts)
        self._observe(time.perf_counter() - begin)
        return ruling
