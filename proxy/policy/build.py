"""From the texts of a policy directory to a generation, or to all that is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.errors import PolicyError, Problem
from proxy.policy.compile import compile_policies
from proxy.policy.generation import Generation
from proxy.policy.load import Loaded, load_policy
from proxy.policy.resources import ListFolder, ReadFile, no_folders
from proxy.policy.together import check_together


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy file as it was read; `name` is its path as messages show it."""

    name: str
    text: bytes


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `sluicegate check` says of a directory. Without problems it can be used."""

    problems: tuple[Problem, ...]
    files: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    rules: int = 0
    lists: int = 0
    entries: int = 0  #: of all lists

    @property
    def ok(self) -> bool:
        return not self.problems


def load_all(
    texts: Sequence[PolicyText], read_file: ReadFile, list_folder: ListFolder = no_folders
) -> list[Loaded]:
    """Every file as far as it can be read."""
    return [load_policy(text.name, text.text, read_file, list_folder) for text in texts]


def compile_all(loaded: Sequence[Loaded], number: int) -> Generation:
    """The generation of these files. Raises PolicyError with the problems of all of them."""
    problems = [problem for part in loaded for problem in part.problems]
    problems += check_together([part.claims for part in loaded])
    if problems:
        raise PolicyError(problems)
    return compile_policies([part.policy for part in loaded if part.policy is not None], number)


def report(loaded: Sequence[Loaded]) -> CheckReport:
    """The outcome of compiling, and what there is."""
    problems: tuple[Problem, ...] = ()
    try:
        compile_all(loaded, number=1)
    except PolicyError as error:
        problems = tuple(error.problems)
    policies = [part.policy for part in loaded if part.policy is not None]
    lists = [found for policy in policies for found in policy.lists]
    return CheckReport(
        problems=problems,
        files=tuple(part.claims.file for part in loaded),
        policies=tuple(policy.policy for policy in policies),
        rules=sum(len(policy.rules) for policy in policies),
        lists=len(lists),
        entries=sum(len(found.values) for found in lists),
    )
