"""The shape of tests of policies, as pydantic models: what is given, and what is expected.

They stand under `tests` in a policy file, or in a `*_test.yaml` beside it. The service ignores
them; `sluicegate test` runs them (`proxy.policytest`). Docstrings and descriptions become the
JSON Schema.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, SkipValidation, model_validator

from proxy.anomalies import ANOMALIES
from proxy.model import Endpoint
from proxy.policy.patterns import read_pattern
from proxy.policy.shapes import FilePath, Model, Name, TagName, choice, listed
from proxy.policy.suggest import hint
from proxy.policy.values import Unfit

CODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd")
FRAMINGS = ("length", "chunked", "close")
VERDICTS = ("permit", "block", "redirect", "respond", "refuse", "fail", "reset", "drop")
PROTOCOLS = ("http1", "http2", "tls", "ssh", "smtp", "opaque", "unknown")


def _endpoint(text: str) -> str:
    try:
        Endpoint.parse(text)
    except ValueError as error:
        raise Unfit(str(error)) from None
    return text


def _base64(text: str) -> str:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Unfit("this is not base64", "RFC 4648 4, blanks and line ends are fine") from None
    return text


def _moment(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise Unfit(f"{text!r} is not a date and time", "as 2026-11-23T12:00, local time") from None
    return text


def _url(text: str) -> str:
    scheme, found, rest = text.partition("://")
    if not found or scheme != "http" or not rest or rest[0] in "/?#":
        raise Unfit(
            f"{text!r} is not a URL of plain HTTP",
            "as http://host/path; for what TLS shows give `tls`",
        )
    if any(not "!" <= char <= "~" for char in text) or "#" in text:
        raise Unfit(f"{text!r} cannot be sent as it is", "percent-encode it, without #fragment")
    return text


def _anomaly(text: str) -> str:
    if text not in ANOMALIES:
        raise Unfit(f"unknown anomaly {text!r}", hint(text, ANOMALIES))
    return text


def _as_text(value: Any) -> Any:
    """A text stands for the mapping with the key `text`."""
    return {"text": value} if isinstance(value, str) else value


def _as_exact(value: Any) -> Any:
    """One text, or several for a header of several fields, stand for `is`."""
    return {"is": listed(value)} if isinstance(value, str | list) else value


class Octets(Model):
    """Bytes: as UTF-8 text, in base64, or from a file below the directory. Exactly one."""

    text: str | None = None
    base64: Annotated[str, AfterValidator(_base64)] | None = None
    file: FilePath | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise Unfit("exactly one of text, base64 and file says what the bytes are")
        return self


Bytes = Annotated[Octets, BeforeValidator(_as_text, json_schema_input_type=str | Octets)]
Texts = Annotated[list[str], BeforeValidator(listed, json_schema_input_type=str | list[str])]
FieldValue = Annotated[
    list[str],
    BeforeValidator(listed, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
Coding = Annotated[str, *choice("coding", CODINGS)]
Codings = Annotated[list[Coding], BeforeValidator(listed, json_schema_input_type=str | list[str])]
Framing = Annotated[str, *choice("framing", FRAMINGS)]
Version = Annotated[str, *choice("version of HTTP", ("1.0", "1.1"))]
Address = Annotated[str, AfterValidator(_endpoint)]


# --- given ---------------------------------------------------------------------------------


class PrincipalModel(Model):
    """Who made the connection. What is not given is unknown, as where no provider tells it."""

    exe: str | None = None
    pid: int | None = Field(default=None, ge=0)
    uid: int | None = Field(default=None, ge=0)
    user: str | None = None
    cgroup: str | None = None
    container: str | None = None


class ConnectionModel(Model):
    """The connection itself."""

    dst: Address | None = Field(
        default=None,
        description="Where it goes; a name instead of an address is dst.host."
        " Left out: as the URL says, 443 for tls.",
    )
    client: Address = Field(default="192.0.2.99:40000", description="Where it comes from.")
    provider: Name = Field(default="static", description="The redirect provider.")
    principal: PrincipalModel = PrincipalModel()
    tags: list[TagName] = Field(default=[], description="Tags that it has already.")


class _MessageModel(Model):
    headers: dict[str, FieldValue] = Field(
        default={},
        description="Name: value, or a list of values for several fields. Framing fields, Host"
        " and Content-Encoding are made for you unless you give them.",
    )
    body: Bytes | None = Field(default=None, description="The content, before any coding.")
    encoding: Codings = Field(
        default=[], description="The body is coded so, in this order, and the header says it."
    )
    framing: Framing = Field(
        default="length", description="length, chunked, or (responses) until close."
    )
    version: Version = "1.1"


class RequestModel(_MessageModel):
    """What the client sends."""

    method: str = Field(default="GET", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")
    url: Annotated[str, AfterValidator(_url)] = "http://www.example.test/"

    @model_validator(mode="after")
    def _check_framing(self) -> Self:
        if self.framing == "close":
            raise Unfit("a request cannot end with its connection", "length or chunked")
        return self


class ResponseModel(_MessageModel):
    """What the server answers once it has the whole request."""

    status: int = Field(default=200, ge=200, le=599)


class TlsModel(Model):
    """The client begins TLS; only its ClientHello is sent."""

    sni: str | None = Field(default=None, description="Server name.")
    alpn: list[str] = Field(default=[], description="Protocols offered.")


class TurnModel(Model):
    """One turn of a conversation in bytes: exactly one key."""

    client: Bytes | None = Field(default=None, description="The client sends this.")
    server: Bytes | None = Field(default=None, description="The server sends this.")
    wait: Annotated[float, Field(ge=0, le=3600)] | None = Field(
        default=None, description="Seconds pass."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise Unfit("a turn is exactly one of client, server and wait")
        return self


class GivenModel(Model):
    """What happens. Nothing but a connection: only that is made."""

    connection: ConnectionModel = ConnectionModel()
    request: RequestModel | None = None
    response: ResponseModel | None = Field(
        default=None, description="Left out: 200 without content."
    )
    tls: TlsModel | None = None
    stream: list[TurnModel] | None = Field(default=None, description="Any other conversation.")
    at: Annotated[str, AfterValidator(_moment)] = Field(
        default="2024-01-01T12:00", description="Local time; the default is a Monday's noon."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        http = self.request is not None or self.response is not None
        if (http, self.tls is not None, self.stream is not None).count(True) > 1:
            raise Unfit("one of a request with its response, tls, and stream", "write two tests")
        return self


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
    if isinstance(value, dict) and value.keys() & {"text", "base64", "file"}:
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
    given: GivenModel = GivenModel()
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
