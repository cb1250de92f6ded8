"""Lint: what is allowed in policies and is hardly meant, or costs something.

Sound before complete: `lint.unreachable` and `lint.never` are said only where they hold for
every exchange. Pure, as the rest of the core.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.policy.build import PolicyText
from proxy.policy.generation import Generation
from proxy.policy.lint.book import book_of
from proxy.policy.lint.cost import cost
from proxy.policy.lint.fights import fights
from proxy.policy.lint.finding import Finding, Level
from proxy.policy.lint.never import never
from proxy.policy.lint.order import unreachable
from proxy.policy.lint.regexes import regexes
from proxy.policy.lint.unused import duplicates, unused_lists, unused_macros, unused_sublayers
from proxy.policy.load import Loaded

__all__ = ["Finding", "Level", "lint"]


def lint(
    loaded: Sequence[Loaded], generation: Generation, texts: Sequence[PolicyText] = ()
) -> tuple[Finding, ...]:
    """All findings by their places. `generation` was compiled from `loaded`, without problems.

    `texts`, the files as they were read, tell of macros.
    """
    book = book_of([part.policy for part in loaded if part.policy is not None], generation)
    found = [
        *unreachable(book),
        *never(book),
        *fights(book),
        *regexes(book),
        *cost(book),
        *unused_lists(book),
        *unused_sublayers([part.claims for part in loaded]),
        *(finding for text in texts for finding in unused_macros(text.name, text.text)),
        *duplicates(book),
    ]
    return tuple(sorted(dict.fromkeys(found), key=_place))


def _place(finding: Finding) -> tuple[str, int, int, str, str]:
    mark = finding.mark
    return mark.file, mark.line, mark.column, finding.id, finding.message
