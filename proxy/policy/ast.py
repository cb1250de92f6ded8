"""A policy file after loading: checked, placed, not yet compiled.

`load` makes these from YAML; `compile` turns them into a Generation. Every node that a
message may have to point at carries its Mark.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.model import Endpoint, Layer
from proxy.patterns import StreamPattern


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a policy file; line and column count from 1."""

    file: str
    line: int
    column: int


class Op(enum.StrEnum):
    """How a condition compares. Several operators of one condition must all hold."""

    IS = "is"  #: value: tuple of literals or globs, any of them
    IN = "in"  #: value: name of a list
    REGEX = "regex"  #: value: RE2 pattern text, searched unanchored
    GT = "gt"
    GE = "ge"
    LT = "lt"
    LE = "le"
    EXISTS = "exists"  #: value: bool


@dataclass(frozen=True, slots=True)
class Compare:
    op: Op
    value: Any


@dataclass(frozen=True, slots=True)
class Test:
    """`field` is a key of proxy.policy.fields.FIELDS; `arg` the name in e.g. header.NAME."""

    field: str
    arg: str | None
    compares: tuple[Compare, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple[Condition, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Condition, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Not:
    part: Condition
    mark: Mark


Condition = Test | All | AnyOf | Not


# --- actions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Permit:
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """`how`: page (HTTP layers only), reset, drop. At connection layers page is not possible.

    `hold` (body layers): bytes of content held back with the head, so that a page can still be
    served when something is found in them.
    """

    hard: bool = True
    how: str = "reset"
    hold: int = 0
    status: int = 403
    reason: str = ""
    page: str | None = None  #: template text (read from the file at load), None: the built-in


@dataclass(frozen=True, slots=True)
class Redirect:
    to: str  #: absolute or path-absolute URL, may hold ${host} ${path} ${query} ${url}
    status: int = 302


@dataclass(frozen=True, slots=True)
class RedirectTo:
    """connect_redirect: permit the connection, and dial this in the place of its destination."""

    host: str  #: canonical address
    port: int | None = None  #: None: the port that the client asked for
    hard: bool = False

    def instead_of(self, asked: Endpoint) -> Endpoint:
        return Endpoint(self.host, asked.port if self.port is None else self.port)

    def __str__(self) -> str:
        return self.host if self.port is None else str(Endpoint(self.host, self.port))


@dataclass(frozen=True, slots=True)
class HeaderReplace:
    name: str
    regex: str
    by: str  #: RE2 rewrite (\1 ...)


@dataclass(frozen=True, slots=True)
class Headers:
    """Applied in this order: remove, rename, replace, set, add."""

    remove: tuple[str, ...] = ()  #: names, may end in *
    rename: tuple[tuple[str, str], ...] = ()
    replace: tuple[HeaderReplace, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RewriteUrl:
    """Replaces parts of the request target; regex/by work on path?query, by RE2."""

    path: str | None = None
    query: str | None = None
    regex: str | None = None
    by: str = ""


class Form(enum.StrEnum):
    """How a banner is written in the policy."""

    HTML = "html"  #: inserted as it is
    TEXT = "text"  #: plain text, escaped and wrapped
    TEMPLATE = "template"  #: HTML with ${...}, whose values are escaped


@dataclass(frozen=True, slots=True)
class InjectBanner:
    content: str
    form: Form = Form.HTML
    at: str = "body_start"
    csp: str = "honour"  #: honour | extend: what a Content-Security-Policy that forbids it means
    frames: bool = False  #: also in documents of frames, not only in top-level ones


@dataclass(frozen=True, slots=True)
class Replacement:
    """`pattern` is what `proxy.patterns` made of a literal or a regex; its maximum is finite."""

    pattern: StreamPattern
    by: str  #: inserted as it is for a literal; for a regex an RE2 rewrite (\\1 ...)


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace in content that streams by: a body, or (at `stream`) raw bytes.

    All replacements are one search, leftmost first, earlier ones preferred. `direction` is for
    `stream` only: outbound, inbound or both.
    """

    items: tuple[Replacement, ...]
    direction: str = "both"


@dataclass(frozen=True, slots=True)
class RemoveBody:
    """The message goes on without content."""


@dataclass(frozen=True, slots=True)
class Content:
    """Content written in a policy, or read from a file of its directory at load."""

    data: bytes
    content_type: str
    template: bool = False  #: UTF-8 text with ${...}; values are escaped if it is HTML


@dataclass(frozen=True, slots=True)
class SetBody:
    """The message goes on with this content in the place of its own."""

    content: Content


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer in the place of the server (http_request)."""

    status: int
    content: Content
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LocalFile:
    content_type: str
    data: bytes
    etag: str  #: strong, with its quotes


@dataclass(frozen=True, slots=True)
class MapLocal:
    """Answer requests below `prefix` from files of the policy directory, read at load.

    `files` maps the path behind the prefix to a file. `missing`: not_found answers 404, pass
    lets the request go on to the server.
    """

    prefix: str
    files: Mapping[str, LocalFile]
    missing: str = "not_found"


@dataclass(frozen=True, slots=True)
class Tag:
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Log:
    message: str = ""


Action = (
    Permit
    | Block
    | Redirect
    | RedirectTo
    | Respond
    | MapLocal
    | Headers
    | RewriteUrl
    | InjectBanner
    | Replace
    | RemoveBody
    | SetBody
    | Tag
    | Log
)
TERMINAL = (Permit, Block, Redirect, RedirectTo, Respond, MapLocal)
#: Edits that need the body decoded, framed anew, or thrown away.
BODY_EDITS = (InjectBanner, Replace, RemoveBody, SetBody)


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    layer: Layer
    when: Condition | None  #: None: always
    unless: Condition | None  #: the policy key is `except`
    then: tuple[Action, ...]
    mark: Mark
    description: str = ""
    sublayer: str = "default"
    weight: int = 100
    shadow: bool = False
    severity: str = "info"
    tags: tuple[str, ...] = ()


class ListType(enum.StrEnum):
    DOMAIN = "domain"  #: an entry matches itself and its subdomains; *.x subdomains only
    CIDR = "cidr"
    STRING = "string"  #: exact, case-sensitive
    HASH = "hash"  #: lower-case hex


@dataclass(frozen=True, slots=True)
class ListDef:
    """`values` holds every entry, inline ones and the file's, as text already validated."""

    name: str
    type: ListType
    values: tuple[str, ...]
    mark: Mark


class OnReload(enum.StrEnum):
    KEEP = "keep"
    REAUTHORIZE = "reauthorize"
    REAUTHORIZE_AND_DROP = "reauthorize_and_drop"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """Macros are expanded at load. `sublayers` maps a name to its weight."""

    file: str
    policy: str
    description: str
    rules: tuple[Rule, ...]
    lists: tuple[ListDef, ...] = ()
    sublayers: tuple[tuple[str, int], ...] = ()
    anomalies: tuple[tuple[str, str], ...] = ()  #: (id or glob, refuse | repair), later wins
    on_reload: OnReload = OnReload.KEEP
