"""The shape of what is given in a test of policies: a connection and what is said over it."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from proxy.model import Endpoint
from proxy.policy.shapes import FilePath, Model, Name, TagName, choice, listed
from proxy.policy.values import Unfit

CODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd")
FRAMINGS = ("length", "chunked", "close")


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


def _as_text(value: Any) -> Any:
    """A text stands for the mapping with the key `text`."""
    return {"text": value} if isinstance(value, str) else value


#: Of one body or turn; above what any limit of the proxy is about.
MAX_OCTETS = 256 * 1024 * 1024


class Octets(Model):
    """Bytes: as UTF-8 text, in base64, or from a file below the directory. Exactly one."""

    text: str | None = None
    base64: Annotated[str, AfterValidator(_base64)] | None = None
    file: FilePath | None = None
    repeat: int = Field(default=1, ge=0, description="So many times; 256 MiB at most.")

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if len(self.model_fields_set - {"repeat"}) != 1:
            raise Unfit("exactly one of text, base64 and file says what the bytes are")
        if len(self.text or self.base64 or "") * self.repeat > MAX_OCTETS:
            raise Unfit("that is more than 256 MiB")
        return self


Bytes = Annotated[Octets, BeforeValidator(_as_text, json_schema_input_type=str | Octets)]
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
    container: str | None = Field(default=None, description="'' for: in none.")
    comm: str | None = Field(default=None, description="principal.name where there is no exe.")
    package: str | None = Field(default=None, description="'' for: in none.")
    confidence: Annotated[str, *choice("confidence", ("exact", "likely"))] | None = Field(
        default=None, description="exact if not given, and none where nothing is."
    )


class ConnectionModel(Model):
    """The connection itself."""

    dst: Address | None = Field(
        default=None,
        description="Where it goes; a name instead of an address is dst.host."
        " Left out: as the URL says, 443 for tls.",
    )
    client: Address = Field(default="192.0.2.99:40000", description="Where it comes from.")
    provider: Name = Field(default="static", description="The redirect provider.")
    loopback: bool | None = Field(
        default=None, description="It goes to this machine; left out: by the address."
    )
    principal: PrincipalModel = Field(default_factory=PrincipalModel)
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

    connection: ConnectionModel = Field(default_factory=ConnectionModel)
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
