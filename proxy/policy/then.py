"""The shape of a rule's `then`, as pydantic models: every action and its settings.

Docstrings and descriptions become the JSON Schema. Which layer can have which action stands in
`proxy.policy.actions`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.model import Endpoint, normalise_ip
from proxy.policy import fieldnames
from proxy.policy.patterns import check_rewrite, read_pattern
from proxy.policy.shapes import FilePath, Model, TagName, choice, listed, read_size, short, switch
from proxy.policy.suggest import hint
from proxy.policy.templates import PLACEHOLDERS, unknown_placeholders
from proxy.policy.then_body import (
    HeaderValue,
    InjectBanner,
    MapLocalAction,
    RemoveBody,
    ReplaceItems,
    Respond,
    SetBody,
    StreamReplaceItems,
)
from proxy.policy.values import Unfit

MAX_HOLD = 1024 * 1024


class PermitAction(Model):
    """Let it pass. Ends the evaluation of the layer (at connection layers: of the sublayer)."""

    hard: bool = Field(
        default=False,
        description="Connection layers: lower sublayers may not override it, except by a veto.",
    )


class BlockAction(Model):
    """Refuse it. HTTP answers with a page; elsewhere the connection is reset or dropped."""

    status: int = Field(default=403, ge=200, le=599, description="HTTP status of the page.")
    reason: str = Field(default="", max_length=1000, description="Shown on the page.")
    page: FilePath | None = Field(
        default=None, description="HTML template, a file below the policy directory."
    )
    how: Annotated[str, *choice("way to block", ("page", "reset", "drop"))] | None = Field(
        default=None, description="page (HTTP only, the default there), reset, or drop silently."
    )
    hard: bool = Field(
        default=True, description="Connection layers: no lower sublayer may permit it again."
    )
    hold: Annotated[
        int, BeforeValidator(read_size, json_schema_input_type=int | str), Field(le=MAX_HOLD)
    ] = Field(
        default=0,
        description="Body layers: so much content is held back with the head (64KiB), so that a"
        " page can still be shown when something is found in it. At most 1MiB.",
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


class RedirectAction(Model):
    """Answer with a redirect. Ends the evaluation."""

    to: Annotated[str, Field(max_length=4096), AfterValidator(_redirect_target)] = Field(
        description="http(s) URL or absolute path; may hold ${host} ${path} ${query} ${url}."
    )
    status: Literal[301, 302, 303, 307, 308] = 302


def _address_and_port(to: str) -> str:
    """ADDRESS, or ADDRESS:PORT with [ADDRESS] for IPv6; canonical. Raises Unfit."""
    try:
        there = Endpoint(normalise_ip(to), 0)
    except ValueError:
        try:
            there = Endpoint.parse(to)
        except ValueError as error:
            raise Unfit(str(error)) from None
        if there.ip is None or not there.port:
            raise Unfit(
                f"{to!r} is not where a connection can go",
                "an address, not a name: 192.0.2.7:8080, [2001:db8::7]:443, or without port",
            ) from None
    address = there.ip
    if address is None or address.is_unspecified or address.is_multicast:
        raise Unfit(f"{to!r} is not the address of one machine")
    return str(there) if there.port else there.host


class RedirectToAction(Model):
    """Let the connection be made, but to another endpoint than its original destination.

    auth_connect then judges that endpoint.
    """

    to: Annotated[str, Field(max_length=60), AfterValidator(_address_and_port)] = Field(
        description="ADDRESS:PORT ([ADDRESS]:PORT for IPv6), or ADDRESS alone: the same port."
    )
    hard: bool = Field(
        default=False, description="Lower sublayers may not override it, except by a veto."
    )


RedirectTo = Annotated[
    RedirectToAction,
    BeforeValidator(short("to"), json_schema_input_type=str | RedirectToAction),
]
Editable = Annotated[str, AfterValidator(fieldnames.read_editable)]
NotHost = Annotated[Editable, AfterValidator(fieldnames.not_host)]
Removable = Annotated[str, AfterValidator(fieldnames.read_removable)]
Removables = Annotated[
    list[Removable],
    BeforeValidator(listed, json_schema_input_type=Removable | list[Removable]),
    Field(min_length=1),
]
Pattern = Annotated[str, AfterValidator(read_pattern)]


class HeaderReplaceAction(Model):
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
    BeforeValidator(listed, json_schema_input_type=HeaderReplaceAction | list[HeaderReplaceAction]),
    Field(min_length=1),
]


class HeadersAction(Model):
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


class RewriteUrlAction(Model):
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


def _log_message(value: Any) -> Any:
    return "" if value is True else value


TagNames = Annotated[
    list[TagName],
    BeforeValidator(listed, json_schema_input_type=TagName | list[TagName]),
    Field(min_length=1),
]
Permit = Annotated[
    PermitAction,
    BeforeValidator(switch("permit"), json_schema_input_type=Literal[True] | PermitAction),
]
Block = Annotated[
    BlockAction,
    BeforeValidator(switch("block"), json_schema_input_type=Literal[True] | BlockAction),
]
Redirect = Annotated[
    RedirectAction,
    BeforeValidator(short("to"), json_schema_input_type=str | RedirectAction),
]
LogMessage = Annotated[
    str,
    BeforeValidator(_log_message, json_schema_input_type=Literal[True] | str),
    Field(max_length=1000),
]


class Then(Model):
    """What a rule does. Edits, tags and logs add up; the others end the evaluation."""

    permit: Permit | None = None
    block: Block | None = None
    redirect: Redirect | None = None
    redirect_to: RedirectTo | None = None
    respond: Respond | None = None
    map_local: MapLocalAction | None = None
    headers: HeadersAction | None = None
    rewrite_url: RewriteUrlAction | None = None
    inject_banner: InjectBanner | None = None
    replace_body: ReplaceItems | None = Field(
        default=None, description="Replace in the content while it streams by."
    )
    remove_body: RemoveBody | None = Field(
        default=None, description="true: the message goes on without content."
    )
    set_body: SetBody | None = None
    replace: StreamReplaceItems | None = Field(
        default=None, description="Replace in the bytes of a connection that is not HTTP."
    )
    tag: TagNames | None = Field(
        default=None, description="Tags for the flow; later rules see them as `tag`."
    )
    log: LogMessage | None = Field(
        default=None, description="true, or a message: record the hit and nothing else."
    )
