"""The condition fields: what each is called, its type, and the layers that can supply it.

The one table that load (checking), compile (matching), the JSON Schema and the documentation
read. A field used at a layer that is not in its row is refused when the policy is checked.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from proxy.model import Layer


class Kind(enum.StrEnum):
    """How a field's values are written and compared."""

    IP = "ip"  #: address or CIDR
    NUMBER = "number"
    DOMAIN = "domain"  #: exact, *.suffix, or glob; case-insensitive
    TEXT = "text"  #: literal or glob, case-sensitive
    TEXT_CI = "text_ci"  #: literal or glob, case-insensitive
    PATH = "path"  #: as text; paths of Windows are case-insensitive
    BOOL = "bool"  #: true or false
    ENUM = "enum"  #: one of `values`
    TIME = "time"  #: HH:MM-HH:MM, local time, may wrap midnight
    CONTENT = "content"  #: literal or regex found somewhere in content that streams by
    HASH = "hash"  #: digest in hexadecimal


_CONNECTION = frozenset(Layer)
_SET_UP = frozenset({Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT, Layer.FLOW_ESTABLISHED})
_BODY = frozenset({Layer.HTTP_REQUEST_BODY, Layer.HTTP_RESPONSE_BODY})
_RESPONSE = frozenset({Layer.HTTP_RESPONSE, Layer.HTTP_RESPONSE_BODY})
_HTTP = _BODY | _RESPONSE | {Layer.HTTP_REQUEST}
_TLS = frozenset({Layer.TLS_CLIENT_HELLO})
_DETECTED = _HTTP | _TLS | {Layer.STREAM, Layer.STREAM_DISCARD, Layer.ENDPOINT_CLOSURE}
_AFTER_HELLO = _TLS | {Layer.STREAM, Layer.STREAM_DISCARD, Layer.ENDPOINT_CLOSURE}


@dataclass(frozen=True, slots=True)
class FieldSpec:
    kind: Kind
    layers: frozenset[Layer]
    doc: str
    takes_arg: bool = False  #: written as field.NAME
    values: tuple[str, ...] = ()


FIELDS: dict[str, FieldSpec] = {
    "dst.ip": FieldSpec(
        Kind.IP, _CONNECTION, "address it goes to: the original destination, or where redirect_to"
    ),
    "dst.port": FieldSpec(Kind.NUMBER, _CONNECTION, "port it goes to"),
    "dst.host": FieldSpec(
        Kind.DOMAIN, _CONNECTION, "name an explicit client asked for; absent elsewhere"
    ),
    "original.ip": FieldSpec(
        Kind.IP, _CONNECTION, "address of the original destination, whatever redirect_to did"
    ),
    "original.port": FieldSpec(Kind.NUMBER, _CONNECTION, "port of the original destination"),
    "ip_version": FieldSpec(Kind.NUMBER, _CONNECTION, "4 or 6, of the address it goes to"),
    "loopback": FieldSpec(
        Kind.BOOL, _CONNECTION, "it goes to this machine: loopback or an address of its own"
    ),
    "client.ip": FieldSpec(Kind.IP, _CONNECTION, "address of the client"),
    "client.port": FieldSpec(Kind.NUMBER, _CONNECTION, "port of the client"),
    "provider": FieldSpec(Kind.TEXT, _CONNECTION, "redirect provider the flow came through"),
    "redirected": FieldSpec(
        Kind.BOOL, _CONNECTION, "a redirector captured it; its client knows of no proxy"
    ),
    "reauthorize": FieldSpec(
        Kind.BOOL, _SET_UP, "an open connection is judged again after a reload"
    ),
    "principal.pid": FieldSpec(Kind.NUMBER, _CONNECTION, "process id"),
    "principal.exe": FieldSpec(
        Kind.PATH, _CONNECTION, "path of the program, links followed, as when it was started"
    ),
    "principal.name": FieldSpec(
        Kind.TEXT_CI, _CONNECTION, "file name of the program; the process's short name without one"
    ),
    "principal.deleted": FieldSpec(
        Kind.BOOL, _CONNECTION, "the program's file was removed or replaced since it was started"
    ),
    "principal.uid": FieldSpec(Kind.NUMBER, _CONNECTION, "user id"),
    "principal.user": FieldSpec(Kind.TEXT, _CONNECTION, "user name or SID"),
    "principal.cgroup": FieldSpec(Kind.TEXT, _CONNECTION, "control group path"),
    "principal.container": FieldSpec(Kind.TEXT, _CONNECTION, "container id; absent outside of one"),
    "principal.package": FieldSpec(
        Kind.TEXT_CI, _CONNECTION, "Windows package family; snap:NAME or flatpak:ID; absent if none"
    ),
    "principal.confidence": FieldSpec(
        Kind.ENUM,
        _CONNECTION,
        "how far the principal may be trusted",
        values=("exact", "likely", "none"),
    ),
    "time": FieldSpec(Kind.TIME, _CONNECTION, "local time of day, e.g. 22:00-06:00"),
    "weekday": FieldSpec(
        Kind.ENUM,
        _CONNECTION,
        "local day of the week",
        values=("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    ),
    "tag": FieldSpec(Kind.TEXT, _CONNECTION, "a tag that an earlier rule put on the flow"),
    "direction": FieldSpec(
        Kind.ENUM,
        frozenset({Layer.STREAM_DISCARD}) | _HTTP,
        "direction of the data",
        values=("outbound", "inbound"),
    ),
    "protocol": FieldSpec(
        Kind.ENUM,
        _DETECTED,
        "what the flow was recognised as",
        values=("http1", "http2", "tls", "ssh", "smtp", "opaque", "unknown"),
    ),
    "sni": FieldSpec(Kind.DOMAIN, _AFTER_HELLO, "server name in the TLS ClientHello"),
    "alpn": FieldSpec(Kind.TEXT, _AFTER_HELLO, "any protocol the ClientHello offers"),
    "host": FieldSpec(Kind.DOMAIN, _HTTP, "host that the request names"),
    "method": FieldSpec(Kind.TEXT, _HTTP, "request method"),
    "path": FieldSpec(Kind.TEXT, _HTTP, "path of the target, as sent"),
    "query": FieldSpec(Kind.TEXT, _HTTP, "query of the target, as sent"),
    "url": FieldSpec(Kind.TEXT, _HTTP, "http://host/path?query"),
    "header": FieldSpec(Kind.TEXT_CI, _HTTP, "header of the message at this layer", takes_arg=True),
    "request.header": FieldSpec(Kind.TEXT_CI, _HTTP, "header of the request", takes_arg=True),
    "response.header": FieldSpec(Kind.TEXT_CI, _RESPONSE, "header of the response", takes_arg=True),
    "cookie": FieldSpec(Kind.TEXT, _HTTP, "cookie of the request", takes_arg=True),
    "content_type": FieldSpec(
        Kind.TEXT_CI, _HTTP, "declared media type of the message at this layer"
    ),
    "content_type.sniffed": FieldSpec(
        Kind.TEXT_CI, _RESPONSE, "media type by the first bytes of the body"
    ),
    "content_length": FieldSpec(Kind.NUMBER, _HTTP, "declared length; absent if not declared"),
    "status": FieldSpec(Kind.NUMBER, _RESPONSE, "status code"),
    "body": FieldSpec(Kind.CONTENT, _BODY, "what the decoded content holds"),
    "body.size": FieldSpec(Kind.NUMBER, _BODY, "length of the decoded content in bytes"),
    "body.sha256": FieldSpec(Kind.HASH, _BODY, "SHA-256 of the decoded content"),
}
