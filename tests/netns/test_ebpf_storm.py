"""Many short connections of many short processes: every one must be told right.

The large one: python -m tests.support.ebpf_storm --connections 20000
"""

from __future__ import annotations

from tests.support.ebpf import needs_ebpf
from tests.support.ebpf_storm import storm

pytestmark = needs_ebpf()

CONNECTIONS = 2400


def test_a_storm_of_connections_from_two_namespaces() -> None:
    tally = storm(CONNECTIONS, at_once=8)
    assert tally.wrong == {}
    assert (tally.right, tally.unknown, tally.failed) == (CONNECTIONS, 0, 0)
    assert len(tally.pids) >= 50
    assert tally.reused > 100
