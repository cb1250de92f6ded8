"""The shape of a policy file, as pydantic models: the fixed part of the language.

Conditions are not here: their keys are the table of `proxy.policy.fields`, and
`proxy.policy.when` reads them from the nodes. What a model cannot know (its rule's layer, other
names of the file) `proxy.policy.load` checks. Docstrings and descriptions become the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SkipValidation, WithJsonSchema, model_validator

from proxy.model import Layer
from proxy.policy.ast import ListType, OnReload
from proxy.policy.cases import CaseModel
from proxy.policy.shapes import FilePath, Model, Name, TagName, choice
from proxy.policy.then import Then
from proxy.policy.values import Unfit

MAX_WEIGHT = 65535

Weight = Annotated[int, Field(ge=0, le=MAX_WEIGHT)]
Mode = Annotated[str, *choice("mode", ("enforce", "shadow"))]
Severity = Annotated[str, *choice("severity", ("info", "low", "medium", "high", "critical"))]
LayerName = Annotated[str, *choice("layer", Layer)]
OnReloadName = Annotated[str, *choice("on_reload", OnReload)]
#: `proxy.policy.jsonschema` puts the schema of conditions in the place of this mark.
CONDITION_MARK = "condition"
ConditionNode = Annotated[Any, WithJsonSchema({"$comment": CONDITION_MARK})]


class RuleModel(Model):
    """When `when` is true and `except` is not, do `then`."""

    id: Name = Field(description="Unique in all policies; names the rule in events and metrics.")
    layer: LayerName = Field(description="The point at which the rule looks.")
    description: str = Field(default="", max_length=4000)
    sublayer: Name | None = Field(default=None, description="Sublayer, `default` if not given.")
    weight: Weight | None = Field(
        default=None, description="Within a sublayer the heavier rule comes first; 100."
    )
    mode: Mode | None = Field(default=None, description="shadow: report, but do not act.")
    when: ConditionNode = Field(default=None, description="Left out: always.")
    unless: ConditionNode = Field(
        default=None, alias="except", description="Where this is true the rule does not apply."
    )
    then: Then = Field(description="What to do: at least one action.")
    severity: Severity | None = Field(default=None, description="Of the rule's events.")
    tags: list[TagName] = Field(default=[], description="Written into the rule's events.")


class ListModel(Model):
    """A named list of values, from the file itself, from another file, or both."""

    type: Annotated[str, *choice("list type", ListType)] = Field(
        description="What the entries are."
    )
    values: list[str] = Field(default=[], description="Entries.")
    file: FilePath | None = Field(
        default=None, description="One entry a line, # comments; also a hosts file for domains."
    )
    description: str = Field(default="", max_length=4000)

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if "values" not in self.model_fields_set and self.file is None:
            raise Unfit("a list without entries", "give values, file, or both")
        return self


class Defaults(Model):
    """What rules of this file have where they say nothing."""

    mode: Mode = "enforce"
    on_reload: OnReloadName = Field(
        default="keep",
        description="Open connections after a reload: keep them, judge them again and close those"
        " no longer allowed when their work is done, or drop those at once."
        " The strictest of all files counts.",
    )
    severity: Severity = "info"
    sublayer: Name = "default"
    weight: Weight = 100


class PolicyModel(Model):
    """A Sluicegate policy file. policies/README.md is the reference."""

    version: Literal[1] = Field(description="Version of the policy language.")
    policy: Name = Field(description="Name of this policy, unique in the directory.")
    description: str = Field(default="", max_length=4000, description="What it is for.")
    defaults: Defaults = Defaults()
    sublayers: dict[Name, Weight] = Field(
        default={}, description="Name: weight; the heavier sublayer comes first. `default`: 100."
    )
    anomalies: dict[str, Annotated[str, *choice("anomaly action", ("refuse", "repair"))]] = Field(
        default={}, description="Protocol irregularity, or a glob of them: refuse or repair."
    )
    lists: dict[Name, ListModel] = Field(default={}, description="Lists, for `in`.")
    macros: dict[Name, ConditionNode] = Field(
        default={}, description="Named conditions, used as {macro: NAME}."
    )
    # Checked one by one by the loader, so that each rule's mistakes show.
    rules: SkipValidation[list[RuleModel]] = Field(
        default=[], description="By sublayer, weight, file name and position."
    )
    # The service ignores them: a mistake in a test must not keep a policy from being in force.
    tests: SkipValidation[list[CaseModel]] = Field(
        default=[], description="Tests of the rules, run by `sluicegate test`."
    )
