"""Find the tests of a directory or file, and the generation that each is of.

Tests stand under `tests` in a policy file, or in `*_test.yaml` beside the policies. Mistakes in
either are a PolicyError with every place, before anything runs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from yaml.nodes import Node

from proxy.errors import PolicyError, Problem
from proxy.policy.ast import Mark, Rule
from proxy.policy.build import PolicyText, compile_all, load_all
from proxy.policy.cases import CaseModel, CasesModel
from proxy.policy.cases_given import MAX_OCTETS
from proxy.policy.complain import complain
from proxy.policy.document import MAX_BYTES, Document, read_document
from proxy.policy.files import DirectoryFiles
from proxy.policy.generation import Generation
from proxy.policy.positions import Complaints, node_at, value_of
from proxy.policy.scalars import kind_of
from proxy.policy.suggest import hint
from proxy.policytest.given import ReadFile, Script, script_of

_TESTS = ("_test.yaml", "_test.yml")


@dataclass(frozen=True, slots=True)
class RuleMark:
    """A rule in force, and where it stands. `always`: it has no condition."""

    id: str
    mark: Mark
    always: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A test ready to be played."""

    model: CaseModel
    script: Script
    mark: Mark


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one file, with the policies that are in force for them."""

    file: str
    read: ReadFile  #: of the directory, for what tests name
    generation: Generation
    rules: tuple[RuleMark, ...]
    tests: tuple[Case, ...]


def load_suites(path: Path) -> list[Suite]:
    """The suites of a directory, a policy file, or a file of tests. Raises PolicyError."""
    if path.is_dir():
        return _Loader(path).load(None, None)
    _refuse_missing(path)
    loader = _Loader(path.parent)
    if _is_tests(path.name):
        return loader.load(None, [path.name])
    beside = [f"{path.stem}{ending}" for ending in _TESTS]
    return loader.load(path.name, [name for name in beside if (path.parent / name).is_file()])


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        advice = "a directory of policies, a policy, or a file of tests"
        raise PolicyError([Problem(str(path), 0, 0, "there is no such file or directory", advice)])


def _is_tests(name: str) -> bool:
    return name.lower().endswith(_TESTS) and not name.startswith(".")


class _Loader:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = DirectoryFiles(directory)
        self._texts = {Path(text.name).name: text for text in self._files.policies()}
        self._problems: list[Problem] = []
        self._built: dict[tuple[str, ...], tuple[Generation, tuple[RuleMark, ...]]] = {}

    def load(self, policy: str | None, tests: Sequence[str] | None) -> list[Suite]:
        """`policy`: that one alone is in force; `tests`: only these files of tests."""
        if policy is not None:
            self._only(policy)
        suites = []
        if policy is not None or tests is None:
            suites += [self._in_policy(text) for text in self._texts.values()]
        names = sorted(os.listdir(self._directory)) if tests is None else tests
        suites += [self._in_tests(name) for name in names if _is_tests(name)]
        if self._problems:
            raise PolicyError(self._problems)
        return [suite for suite in suites if suite is not None]

    def _only(self, policy: str) -> None:
        if policy not in self._texts:
            shown = str(self._directory / policy)
            raise PolicyError([Problem(shown, 0, 0, "this is not a policy file", "as mine.yaml")])
        self._texts = {policy: self._texts[policy]}

    # --- files

    def _in_policy(self, text: PolicyText) -> Suite | None:
        complaints = Complaints(text.name)
        document = read_document(text.text, complaints)
        if document is None or value_of(document.root, "tests") is None:
            return None  # what is wrong with it, compiling it says
        return self._suite(document, complaints, tuple(self._texts))

    def _in_tests(self, name: str) -> Suite | None:
        complaints = Complaints(str(self._directory / name))
        try:
            document = read_document(self._files.read(name, MAX_BYTES), complaints)
        except OSError as error:
            complaints.place(0, 0, f"cannot be read: {error.strerror or error}")
            document = None
        if document is None:
            self._problems += complaints.all
            return None
        try:
            model = CasesModel.model_validate(document.data)
        except ValidationError as error:
            complain(complaints, document.root, CasesModel, error)
            self._problems += complaints.all
            return None
        in_force = tuple(model.policies or self._texts)
        known = self._known(in_force, document, complaints)
        return self._suite(document, complaints, in_force) if known else None

    def _known(self, names: Sequence[str], document: Document, complaints: Complaints) -> bool:
        """Whether the policies that a file of tests names are there."""
        unknown = [index for index, name in enumerate(names) if name not in self._texts]
        for index in unknown:
            node = node_at(document.root, ("policies", index))
            message = f"there is no policy file {names[index]!r} in the directory"
            complaints.at(node, message, hint(names[index], self._texts))
        if unknown:
            self._problems += complaints.all
        return not unknown

    def read(self, path: str) -> bytes:
        """A file that a test names. Raises OSError, for one that is too long too."""
        data = self._files.read(path, MAX_OCTETS)
        if len(data) > MAX_OCTETS:
            raise OSError(errno.EFBIG, f"{path} has more than 256 MiB")
        return data

    # --- tests

    def _suite(
        self, document: Document, complaints: Complaints, policies: tuple[str, ...]
    ) -> Suite | None:
        tests = self._tests(document, complaints)
        self._problems += complaints.all
        try:
            generation, rules = self._build(policies)
        except PolicyError as error:
            self._problems += [one for one in error.problems if one not in self._problems]
            return None
        return Suite(complaints.file, self.read, generation, rules, tests)

    def _tests(self, document: Document, complaints: Complaints) -> tuple[Case, ...]:
        """One by one, so that each test's mistakes show at their places."""
        node = value_of(document.root, "tests")
        data = document.data["tests"]
        if node is None or not isinstance(data, list):
            complaints.at(node or document.root, f"{kind_of(data)} as tests, expected a list")
            return ()
        pairs = zip(node.value, data, strict=True)
        tests = [self._test(node, data, complaints) for node, data in pairs]
        found = [test for test in tests if test is not None]
        names: set[str] = set()
        for test in found:
            if test.model.name in names:
                place = test.mark.line, test.mark.column
                complaints.place(*place, f"a second test {test.model.name!r}", "names are unique")
            names.add(test.model.name)
        return tuple(found)

    def _test(self, node: Node, data: object, complaints: Complaints) -> Case | None:
        try:
            model = CaseModel.model_validate(data)
        except ValidationError as error:
            complain(complaints, node, CaseModel, error)
            return None
        try:
            script = script_of(model, self.read)
        except OSError as error:
            complaints.at(node, f"a file of this test cannot be read: {error}")
            return None
        return Case(model, script, complaints.mark(node))

    def _build(self, names: tuple[str, ...]) -> tuple[Generation, tuple[RuleMark, ...]]:
        if names not in self._built:
            texts = [self._texts[name] for name in names]
            loaded = load_all(texts, self._files.read, self._files.list_folder)
            generation = compile_all(loaded, number=1)
            policies = [part.policy for part in loaded if part.policy is not None]
            rules = tuple(_marked(rule) for one in policies for rule in one.rules)
            self._built[names] = generation, rules
        return self._built[names]


def _marked(rule: Rule) -> RuleMark:
    return RuleMark(rule.id, rule.mark, always=rule.when is None and rule.unless is None)
