"""One row of namespaces for all tests of a module; each test leaves them without a rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.netns import Lab, lab


@pytest.fixture(scope="module")
def _lab() -> Iterator[Lab]:
    with lab() as net:
        yield net


@pytest.fixture
def net(_lab: Lab) -> Iterator[Lab]:
    """Every test leaves the namespaces without a rule."""
    yield _lab
    assert [space.ruleset() for space in _lab.all] == ["", "", ""]
