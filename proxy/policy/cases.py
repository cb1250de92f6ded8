"""The shape of tests of policies, as pydantic models: what is given, and what is expected.

They stand under `tests` in a policy file, or in a `*_test.yaml` beside it. The service ignores
them; `sluicegate test` runs them (`proxy.policytest`). Docstrings and descriptions become the
JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, SkipValidation, model_validator

from proxy.anomalies import ANOMALIES
from proxy.policy.cases_given import Bytes, GivenModel, Octets
from proxy.policy.patterns import read_pattern
from proxy.policy.shapes import FilePath, Model, Name, TagName, choice, listed
from proxy.policy.suggest import hint
from proxy.policy.values import Unfit

VERDICTS = ("permit", "block", "redirect", "respond", "refuse", "fail", "reset", "drop")
PROTOCOLS = ("http1", "http2", "tls", "ssh", "smtp", "opaque", "unknown")
Texts = Annotated[list[str], BeforeValidator(listed, json_schema_input_type=str | list[str])]


def _anomaly(text: str) -> str:
    if text not in ANOMALIES:
        raise Unfit(f"unknown anomaly {text!r}", hint(text, ANOMALIES))
    return text


def _as_exact(value: Any) -> Any:
    """One text, or several for a header of several fields, stand for `is`."""
    return {"is": listed(value)} if isinstance(value, str | list) else value


# --- expected ------------------------------------------------------------------------------


class HeaderExpect(Model):
    """What a header must be. Several keys must all hold."""

    exact: list[str] | None = Field(default=None, alias="is", description="Its values, in order.")
    regex: Annotated[str, AfterValidator(read_pattern)] | None = Field(
        default=None, description="RE2 pattern, found in its values joined by `, `."
    )
    exists: bool | None = Field(default=None, description="false: it must be absent.")

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.model_fields_set:
            raise Unfit("nothing is expected of this header", "a value, or {exists: false}")
        return self


HeaderExpects = dict[
    str,
    Annotated[
        HeaderExpect,
        BeforeValidator(_as_exact, json_schema_input_type=str | list[str] | HeaderExpect),
    ],
]


class _MessageExpect(Model):
    headers: HeaderExpects = Field(
        default={}, description="Only those named are looked at. {exists: false}: absent."
    )
    body: Bytes | None = Field(default=None, description="The whole content, decoded.")
    body_contains: Texts = Field(default=[], description="Each is somewhere in it.")
    body_not_contains: Texts = Field(default=[], description="None is anywhere in it.")


class RequestExpect(_MessageExpect):
    """What reached the server."""

    method: str | None = None
    path: str | None = Field(default=None, description="Path with its query.")


class ResponseExpect(_MessageExpect):
    """What reached the client."""

    status: int | None = Field(default=None, ge=200, le=599)


class StreamExpect(Model):
    """What reached one side, in bytes."""

    exact: Octets | None = Field(default=None, alias="is")
    contains: Texts = Field(default=[], description="Each is somewhere in them.")
    not_contains: Texts = Field(default=[], description="None is anywhere in them.")

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.model_fields_set:
            raise Unfit("nothing is expected of these bytes", "a text, contains or not_contains")
        return self


def _as_stream(value: Any) -> Any:
    if isinstance(value, str):
        return {"is": {"text": value}}
    if isinstance(value, dict) and value.keys() & Octets.model_fields.keys():
        return {"is": value}
    return value


Streamed = Annotated[
    StreamExpect, BeforeValidator(_as_stream, json_schema_input_type=str | Octets | StreamExpect)
]


class ExpectModel(Model):
    """What must come of it. What is not named is not looked at; a list is all there is of it."""

    verdict: Annotated[str, *choice("verdict", VERDICTS)] | None = Field(
        default=None,
        description="permit, block, redirect, respond: by a rule or by default. refuse: by an"
        " anomaly or an exception policy. fail: no answer. reset, drop: a block that ends the"
        " connection that way.",
    )
    rule: Name | None = Field(
        default=None, description="The rule that decided; where none did, one that acted."
    )
    rules: list[Name] | None = Field(default=None, description="All that acted, in any order.")
    not_rules: list[Name] = Field(default=[], description="None of these acted.")
    shadow_rules: list[Name] | None = Field(default=None, description="All that would have.")
    status: int | None = Field(default=None, ge=200, le=599, description="What the client gets.")
    request: RequestExpect | None = None
    response: ResponseExpect | None = None
    server_sees_nothing: bool = Field(default=False, description="Not a byte reached it.")
    to_server: Streamed | None = Field(default=None, description="All bytes that reached it.")
    to_client: Streamed | None = Field(default=None, description="All bytes that reached it.")
    protocol: Annotated[str, *choice("protocol", PROTOCOLS)] | None = Field(
        default=None, description="What the connection was recognised as."
    )
    redirected_to: str | None = Field(
        default=None, description="Where redirect_to sends it, ADDRESS:PORT, or `nothing`."
    )
    tags: list[TagName] | None = Field(default=None, description="All tags that were put.")
    anomalies: list[Annotated[str, AfterValidator(_anomaly)]] | None = Field(
        default=None, description="All that were seen."
    )
    edits: list[str] | None = Field(default=None, description="All kinds of edits made.")

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.model_fields_set:
            raise Unfit("nothing is expected", "give a verdict, a rule, a status …")
        return self


class CaseModel(Model):
    """One test: when this is given, that must come of it, however the bytes are cut."""

    name: str = Field(min_length=1, max_length=200, description="What it shows, in words.")
    given: GivenModel = Field(default_factory=GivenModel)
    expect: ExpectModel


class CasesModel(Model):
    """A file of tests, `*_test.yaml`, beside the policies."""

    policies: list[FilePath] | None = Field(
        default=None,
        min_length=1,
        description="Policy files of the directory that are in force; left out: all of them.",
    )
    description: str = Field(default="", max_length=4000)
    # Checked one by one by the loader, so that each test's mistakes show at their places.
    tests: SkipValidation[list[CaseModel]] = Field(description="The tests.")
