"""The shape of the actions on content: banners, replacements, bodies, answers of our own.

Part of a rule's `then` (`proxy.policy.then`). What a text is made of (a pattern that can be
searched for in a stream, a template with known names only) is checked here; what stands in
other files is read and checked when the action is built (`proxy.policy.actions_body`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.patterns import StreamPattern, literal, regex
from proxy.policy import fieldnames
from proxy.policy.patterns import check_rewrite, read_literal, read_stream_pattern
from proxy.policy.shapes import FilePath, FolderPath, Model, choice, short
from proxy.policy.suggest import hint
from proxy.policy.templates import CONTENT_PLACEHOLDERS, unknown_placeholders
from proxy.policy.values import Unfit

MAX_BANNER = 65536  #: characters, bytes of a file
MAX_TEXT = 65536  #: characters of a text in a policy file; longer ones belong into a file
MAX_BY = 65536
MAX_CONTENT = 1024 * 1024  #: bytes of a file of content

HeaderValue = Annotated[str, AfterValidator(fieldnames.read_field_value)]


def check_template(text: str) -> str:
    """A text whose `${...}` all have a value. Raises Unfit."""
    unknown = unknown_placeholders(text, CONTENT_PLACEHOLDERS)
    if unknown:
        advice = hint(unknown[0], CONTENT_PLACEHOLDERS)
        raise Unfit(f"unknown placeholder ${{{unknown[0]}}}", advice)
    return text


Template = Annotated[str, AfterValidator(check_template)]


def _one_of(model: Model, names: tuple[str, ...], what: str) -> None:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} together" if given else f"{what} without content"
        raise Unfit(found, f"give exactly one of {', '.join(names)}")


class InjectBannerAction(Model):
    """Put something into HTML documents while they stream by."""

    html: str | None = Field(
        default=None, min_length=1, max_length=MAX_BANNER, description="Inserted as it is."
    )
    text: str | None = Field(
        default=None, min_length=1, max_length=MAX_BANNER, description="Plain text: escaped."
    )
    template: Annotated[Template, Field(min_length=1, max_length=MAX_BANNER)] | None = Field(
        default=None, description="HTML with ${...}, whose values are escaped."
    )
    file: FilePath | None = Field(
        default=None, description="HTML from a file below the policy directory."
    )
    template_file: FilePath | None = Field(
        default=None, description="HTML with ${...} from a file below the policy directory."
    )
    at: Annotated[str, *choice("place", ("body_start", "body_end", "head_end"))] = Field(
        default="body_start", description="After <body>, before </body>, or before </head>."
    )
    csp: Annotated[str, *choice("way with a policy", ("honour", "extend"))] = Field(
        default="honour",
        description="A Content-Security-Policy that forbids what is inserted: leave the document"
        " alone, or extend the policy by its hash.",
    )
    frames: bool = Field(default=False, description="Also in documents of frames.")

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        _one_of(self, ("html", "text", "template", "file", "template_file"), "inject_banner")
        return self


# --- replacements --------------------------------------------------------------------------


class ReplaceItem(Model):
    """One thing to be found, and what takes its place."""

    literal: Annotated[str, AfterValidator(read_literal)] | None = Field(
        default=None, min_length=1, description="A text, found as it is."
    )
    regex: Annotated[str, AfterValidator(read_stream_pattern)] | None = Field(
        default=None, description="RE2 pattern whose matches have a finite maximum length."
    )
    by: str = Field(
        max_length=MAX_BY,
        description="What takes its place; for a regex \\1 is the first group, \\0 the match.",
    )
    ignore_case: bool = Field(default=False, description="For a literal; a regex has (?i).")

    @model_validator(mode="after")
    def _check_pattern(self) -> Self:
        _one_of(self, ("literal", "regex"), "a replacement")
        if self.regex is not None:
            if self.ignore_case:
                raise Unfit("ignore_case with a regex", "begin the pattern with (?i)")
            check_rewrite(self.regex, self.by)
        return self

    def pattern(self) -> StreamPattern:
        """What is searched for. Raises PatternError for a literal that cannot be."""
        if self.regex is not None:
            return regex(self.regex)
        return literal(self.literal or "", ignore_case=self.ignore_case)


class StreamReplaceItem(ReplaceItem):
    """One thing to be found in the bytes of a connection, and what takes its place."""

    direction: Annotated[str, *choice("direction", ("outbound", "inbound", "both"))] = Field(
        default="both", description="outbound: to the server."
    )


_ITEM_KEYS = frozenset(StreamReplaceItem.model_fields)


def _replacements(value: Any) -> Any:
    """One replacement stands for a list of one, `{old: new}` for replacements of literals."""
    if not isinstance(value, dict):
        return value
    if not value or _ITEM_KEYS.intersection(value):
        return [value]
    return [{"literal": old, "by": new} for old, new in value.items()]


_Shorthand = dict[str, str]
ReplaceItems = Annotated[
    list[ReplaceItem],
    BeforeValidator(
        _replacements, json_schema_input_type=list[ReplaceItem] | ReplaceItem | _Shorthand
    ),
    Field(min_length=1, max_length=1000),
]
StreamReplaceItems = Annotated[
    list[StreamReplaceItem],
    BeforeValidator(
        _replacements,
        json_schema_input_type=list[StreamReplaceItem] | StreamReplaceItem | _Shorthand,
    ),
    Field(min_length=1, max_length=1000),
]


# --- content of our own --------------------------------------------------------------------

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_MEDIA_TYPE = re.compile(
    rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f]*"))*'
)


def _media_type(text: str) -> str:
    """RFC 9110 8.3.1."""
    if not _MEDIA_TYPE.fullmatch(text) or not text.isascii():
        raise Unfit(f"{text[:60]!r} is not a media type", "as text/html; charset=utf-8")
    return text


MediaType = Annotated[str, Field(max_length=256), AfterValidator(_media_type)]
_SOURCES = ("text", "template", "file", "template_file")


class ContentModel(Model):
    """Content written here or read from a file."""

    text: str | None = Field(default=None, max_length=MAX_TEXT, description="The content.")
    template: Annotated[Template, Field(max_length=MAX_TEXT)] | None = Field(
        default=None, description="The content with ${...}; values are escaped if it is HTML."
    )
    file: FilePath | None = Field(
        default=None, description="A file below the policy directory, at most 1 MiB."
    )
    template_file: FilePath | None = Field(
        default=None, description="A file of UTF-8 text with ${...}, as template."
    )
    content_type: MediaType | None = Field(
        default=None, description="By the file's name if not given, else plain text."
    )


class SetBodyAction(ContentModel):
    """Put this content in the place of the message's own."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        _one_of(self, _SOURCES, "set_body")
        return self


def _respond_header(name: str) -> str:
    fieldnames.read_editable(name)
    if name.lower() == "content-type":
        raise Unfit("Content-Type as a header of respond", "write content_type: …")
    return name


class RespondAction(ContentModel):
    """Answer in the place of the server, which hears nothing. Ends the evaluation."""

    status: int = Field(default=200, ge=200, le=599, description="Status code.")
    headers: dict[Annotated[str, AfterValidator(_respond_header)], HeaderValue] = Field(
        default={}, description="Name: value."
    )

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            raise Unfit(f"{' and '.join(given)} together", "give one of them at most")
        if given and self.status in (204, 205, 304):
            raise Unfit(f"status {self.status} has no content", "RFC 9110 15.3.5, 15.3.6, 15.4.5")
        return self


# --- local files ---------------------------------------------------------------------------

_LOCAL_PATH = re.compile(r"/(?!/)[!-~]*")


def _local_path(path: str) -> str:
    plain = _LOCAL_PATH.fullmatch(path) and not set("?#%\\").intersection(path)
    if not plain or "//" in path or {".", ".."} & set(path.split("/")):
        raise Unfit(
            f"{path[:60]!r} is not the path of a URL",
            "as /static/, decoded: no blank, no %, ? or #, no dot segment",
        )
    return path


LocalPath = Annotated[str, Field(max_length=1024), AfterValidator(_local_path)]


class MapLocalAction(Model):
    """Answer from files of the policy directory. Ends the evaluation where it applies."""

    prefix: LocalPath | None = Field(
        default=None, description="Paths below it are answered from `dir`."
    )
    dir: FolderPath | None = Field(
        default=None, description="A folder below the policy directory; read at load."
    )
    missing: Annotated[str, *choice("way with a missing file", ("not_found", "pass"))] = Field(
        default="not_found",
        description="A path that has no file: answer 404, or go on to later rules and the server.",
    )
    path: LocalPath | None = Field(default=None, description="This path alone, from `file`.")
    file: FilePath | None = Field(
        default=None, description="A file below the policy directory, at most 1 MiB."
    )

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        given = self.model_fields_set
        if given == {"path", "file"} or (given - {"missing"}) == {"prefix", "dir"}:
            return self
        raise Unfit("map_local needs another set of keys", "give prefix and dir, or path and file")


def _remove(value: Any) -> Any:
    if value is not True:
        raise Unfit("remove_body takes nothing but true", "leave the action out, or write true")
    return value


def _respond_short(value: Any) -> Any:
    """A status code stands for an answer without content."""
    return {"status": value} if isinstance(value, int) and value is not True else value


InjectBanner = Annotated[
    InjectBannerAction,
    BeforeValidator(short("html"), json_schema_input_type=str | InjectBannerAction),
]
RemoveBody = Annotated[Literal[True], BeforeValidator(_remove)]
SetBody = Annotated[
    SetBodyAction,
    BeforeValidator(short("text"), json_schema_input_type=str | SetBodyAction),
]
Respond = Annotated[
    RespondAction,
    BeforeValidator(_respond_short, json_schema_input_type=int | RespondAction),
]
