"""The shape of a policy file, as pydantic models: the fixed part of the language.

Conditions are not here: their keys are the table of `proxy.policy.fields`, and
`proxy.policy.when` reads them from the nodes. What a model cannot know (its rule's layer, other
names of the file) `proxy.policy.load` checks. Docstrings and descriptions become the JSON Schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    WithJsonSchema,
    model_validator,
)

from proxy.model import Layer
from proxy.policy import fieldnames
from proxy.policy.ast import ListType, OnReload
from proxy.policy.patterns import check_rewrite, read_pattern
from proxy.policy.scalars import kind_of
from proxy.policy.suggest import hint
from proxy.policy.templates import PLACEHOLDERS, unknown_placeholders
from proxy.policy.values import Unfit

MAX_WEIGHT = 65535


def _choice(what: str, names: Iterable[str]) -> Any:
    """One of a closed set of names; for others the nearest is named."""
    known: list[Any] = [str(name) for name in names]

    def check(value: str) -> str:
        if value not in known:
            raise Unfit(f"unknown {what} {kind_of(value)}", hint(value, known))
        return value

    return AfterValidator(check), Field(json_schema_extra={"enum": known})


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}$")]
Weight = Annotated[int, Field(ge=0, le=MAX_WEIGHT)]
Mode = Annotated[str, *_choice("mode", ("enforce", "shadow"))]
Severity = Annotated[str, *_choice("severity", ("info", "low", "medium", "high", "critical"))]
LayerName = Annotated[str, *_choice("layer", Layer)]
OnReloadName = Annotated[str, *_choice("on_reload", OnReload)]
#: `proxy.policy.jsonschema` puts the schema of conditions in the place of this mark.
CONDITION_MARK = "condition"
ConditionNode = Annotated[Any, WithJsonSchema({"$comment": CONDITION_MARK})]


def _listed(value: Any) -> Any:
    """One value stands for a list of one."""
    return [value] if isinstance(value, str | dict) else value


def _switch(what: str) -> Any:
    """`true` stands for the action without settings; nothing else but a mapping does."""

    def read(value: Any) -> Any:
        if value is True:
            return {}
        if value is False or value is None:
            raise Unfit(f"{what}: {str(value).lower()}", "leave the action out, or write true")
        return value

    return read


def _short(key: str) -> Callable[[Any], Any]:
    """A text stands for the mapping with that one key."""
    return lambda value: {key: value} if isinstance(value, str) else value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# --- actions -------------------------------------------------------------------------------


class PermitAction(_Model):
    """Let it pass. Ends the evaluation of the layer (at connection layers: of the sublayer)."""

    hard: bool = Field(
        default=False,
        description="Connection layers: lower sublayers may not override it, except by a veto.",
    )


def read_path(path: str) -> str:
    """A file below the policy directory, as `lists/ads.txt`. Raises Unfit."""
    parts = path.split("/")
    outside = path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path) is not None
    if outside or "\\" in path or "\0" in path:
        raise Unfit(f"path {path!r} leaves the policy directory", "as lists/ads.txt")
    if not path or parts[-1] in ("", "."):
        raise Unfit(f"{path!r} is not the path of a file", "as lists/ads.txt")
    return path


FilePath = Annotated[str, AfterValidator(read_path)]


class BlockAction(_Model):
    """Refuse it. HTTP answers with a page; elsewhere the connection is reset or dropped."""

    status: int = Field(default=403, ge=200, le=599, description="HTTP status of the page.")
    reason: str = Field(default="", max_length=1000, description="Shown on the page.")
    page: FilePath | None = Field(
        default=None, description="HTML template, a file below the policy directory."
    )
    how: Annotated[str, *_choice("way to block", ("page", "reset", "drop"))] | None = Field(
        default=None, description="page (HTTP only, the default there), reset, or drop silently."
    )
    hard: bool = Field(
        default=True, description="Connection layers: no lower sublayer may permit it again."
    )


_VISIBLE = re.compile(r"[!-~]+")
_REDIRECT = re.compile(r"https?://[^/?#]+[!-~]*|/(?!/)[!-~]*", re.IGNORECASE)


def _redirect_target(to: str) -> str:
    if not _REDIRECT.fullmatch(to) or not _VISIBLE.fullmatch(to):
        raise Unfit(
            f"{to!r} is not a redirect target",
            "as https://help.example/blocked or /blocked, without blanks",
        )
    unknown = unknown_placeholders(to)
    if unknown:
        raise Unfit(f"unknown placeholder ${{{unknown[0]}}}", hint(unknown[0], PLACEHOLDERS))
    return to


class RedirectAction(_Model):
    """Answer with a redirect. Ends the evaluation."""

    to: Annotated[str, Field(max_length=4096), AfterValidator(_redirect_target)] = Field(
        description="http(s) URL or absolute path; may hold ${host} ${path} ${query} ${url}."
    )
    status: Literal[301, 302, 303, 307, 308] = 302


HeaderValue = Annotated[str, AfterValidator(fieldnames.read_field_value)]
Editable = Annotated[str, AfterValidator(fieldnames.read_editable)]
NotHost = Annotated[Editable, AfterValidator(fieldnames.not_host)]
Removable = Annotated[str, AfterValidator(fieldnames.read_removable)]
Removables = Annotated[
    list[Removable],
    BeforeValidator(_listed, json_schema_input_type=Removable | list[Removable]),
    Field(min_length=1),
]
Pattern = Annotated[str, AfterValidator(read_pattern)]


class HeaderReplaceAction(_Model):
    """Replace every match of a regular expression in the values of one header."""

    name: Editable = Field(description="Header name.")
    regex: Pattern = Field(description="RE2 pattern.")
    by: HeaderValue = Field(description="Replacement; \\1 is the first group, \\0 the match.")

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        check_rewrite(self.regex, self.by)
        return self


HeaderReplaces = Annotated[
    list[HeaderReplaceAction],
    BeforeValidator(
        _listed, json_schema_input_type=HeaderReplaceAction | list[HeaderReplaceAction]
    ),
    Field(min_length=1),
]


class HeadersAction(_Model):
    """Edit headers, in this order: remove, rename, replace, set, add."""

    remove: Removables = Field(default=[], description="Names; a final * stands for any ending.")
    rename: dict[NotHost, NotHost] = Field(default={}, description="Old name: new name.")
    replace: HeaderReplaces = Field(default=[], description="Regular expressions on values.")
    set: dict[Editable, HeaderValue] = Field(
        default={}, description="Name: value. Takes the place of all fields of that name."
    )
    add: dict[NotHost, HeaderValue] = Field(
        default={}, description="Name: value. One more field, whatever is there."
    )

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not self.model_fields_set:
            raise Unfit("headers changes nothing", "give set, add, remove, rename or replace")
        return self


def _rewrite_path(path: str) -> str:
    if not path.startswith("/") or not _VISIBLE.fullmatch(path) or "?" in path or "#" in path:
        raise Unfit(f"{path!r} is not a path", "begins with /, no blanks, no ? and no #")
    return path


def _rewrite_query(query: str) -> str:
    if query and (not _VISIBLE.fullmatch(query) or "#" in query):
        raise Unfit(f"{query!r} is not a query", "no blanks and no #; without the ?")
    return query


class RewriteUrlAction(_Model):
    """Change path and query of the request before it goes to the server."""

    path: Annotated[str, Field(max_length=4096), AfterValidator(_rewrite_path)] | None = Field(
        default=None, description="The new path."
    )
    query: Annotated[str, Field(max_length=4096), AfterValidator(_rewrite_query)] | None = Field(
        default=None, description="The new query, without the question mark; '' removes it."
    )
    regex: Pattern | None = Field(default=None, description="RE2 pattern on path?query.")
    by: str | None = Field(
        default=None, max_length=4096, description="Replacement of every match of regex."
    )

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if not self.model_fields_set:
            raise Unfit("rewrite_url changes nothing", "give path, query, or regex and by")
        if (self.regex is None) is not (self.by is None):
            raise Unfit("regex and by go together", "give both; by may be ''")
        if self.regex is not None and self.by is not None:
            check_rewrite(self.regex, self.by)
        return self


class InjectBannerAction(_Model):
    """Put HTML into HTML documents, streaming."""

    html: str = Field(min_length=1, max_length=65536, description="Inserted as it is.")
    at: Annotated[str, *_choice("place", ("body_start", "body_end", "head_end"))] = Field(
        default="body_start", description="After <body>, before </body>, or before </head>."
    )


def _log_message(value: Any) -> Any:
    return "" if value is True else value


TagNames = Annotated[
    list[TagName],
    BeforeValidator(_listed, json_schema_input_type=TagName | list[TagName]),
    Field(min_length=1),
]
Permit = Annotated[
    PermitAction,
    BeforeValidator(_switch("permit"), json_schema_input_type=Literal[True] | PermitAction),
]
Block = Annotated[
    BlockAction,
    BeforeValidator(_switch("block"), json_schema_input_type=Literal[True] | BlockAction),
]
Redirect = Annotated[
    RedirectAction,
    BeforeValidator(_short("to"), json_schema_input_type=str | RedirectAction),
]
InjectBanner = Annotated[
    InjectBannerAction,
    BeforeValidator(_short("html"), json_schema_input_type=str | InjectBannerAction),
]
LogMessage = Annotated[
    str,
    BeforeValidator(_log_message, json_schema_input_type=Literal[True] | str),
    Field(max_length=1000),
]


class Then(_Model):
    """What a rule does. Edits, tags and logs add up; permit, block and redirect end it."""

    permit: Permit | None = None
    block: Block | None = None
    redirect: Redirect | None = None
    headers: HeadersAction | None = None
    rewrite_url: RewriteUrlAction | None = None
    inject_banner: InjectBanner | None = None
    tag: TagNames | None = Field(
        default=None, description="Tags for the flow; later rules see them as `tag`."
    )
    log: LogMessage | None = Field(
        default=None, description="true, or a message: record the hit and nothing else."
    )


# --- rules, lists, files -------------------------------------------------------------------


class RuleModel(_Model):
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


class ListModel(_Model):
    """A named list of values, from the file itself, from another file, or both."""

    type: Annotated[str, *_choice("list type", ListType)] = Field(
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


class Defaults(_Model):
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


class PolicyModel(_Model):
    """A Sluicegate policy file. policies/README.md is the reference."""

    version: Literal[1] = Field(description="Version of the policy language.")
    policy: Name = Field(description="Name of this policy, unique in the directory.")
    description: str = Field(default="", max_length=4000, description="What it is for.")
    defaults: Defaults = Defaults()
    sublayers: dict[Name, Weight] = Field(
        default={}, description="Name: weight; the heavier sublayer comes first. `default`: 100."
    )
    anomalies: dict[str, Annotated[str, *_choice("anomaly action", ("refuse", "repair"))]] = Field(
        default={}, description="Protocol irregularity, or a glob of them: refuse or repair."
    )
    lists: dict[Name, ListModel] = Field(default={}, description="Lists, for `in`.")
    macros: dict[Name, ConditionNode] = Field(
        default={}, description="Named conditions, used as {macro: NAME}."
    )
    rules: SkipValidation[list[RuleModel]] = Field(
        default=[], description="The rules. Checked one by one, so that each one's mistakes show."
    )
