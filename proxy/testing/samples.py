"""The smallest callouts there are, to start from and to test with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.api import FlowHandle, Permit, StreamBase, StreamData, Verdict


class Passing(StreamBase):
    """A stream callout that lets everything pass as it comes."""

    def __init__(self, flow: FlowHandle, options: Mapping[str, Any]) -> None:
        self.flow = flow

    def classify(self, data: StreamData) -> Verdict:
        return Permit(len(data.data))


class Waiting(StreamBase):
    """The same, registered `out_of_band`."""

    def __init__(self, flow: FlowHandle, options: Mapping[str, Any]) -> None:
        self.flow = flow

    async def classify(self, data: StreamData) -> Verdict:
        return Permit(len(data.data))
