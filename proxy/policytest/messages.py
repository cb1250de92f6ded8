"""HTTP messages of a test: written from what is given, read from what came out.

Reading is h11's, which shares nothing with the proxy's own framing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import h11

from proxy.policy.cases_given import RequestModel, ResponseModel
from proxy.policytest.coding import NotDecodable, decode, encode

#: More than any limit of the proxy lets through.
_MAX_HEAD = 1024 * 1024
_CHUNK = 8192
Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as it arrived. `body` is decoded; `problem` says why not, or what is missing."""

    start: tuple[str, ...]  #: method and target, or status
    fields: Fields
    body: bytes
    problem: str = ""

    def values(self, name: str) -> tuple[str, ...]:
        """Values of every field of that name, in order."""
        return tuple(value for key, value in self.fields if key.lower() == name.lower())


# --- writing -------------------------------------------------------------------------------


def request_bytes(model: RequestModel, body: bytes) -> bytes:
    """A request as a client sends it."""
    host, target = _split(model.url)
    fields = _given(model)
    if not _has(fields, "host"):
        fields.insert(0, ("Host", host))
    wanted = model.body is not None or model.method in ("POST", "PUT", "PATCH")
    start = f"{model.method} {target} HTTP/{model.version}"
    return _message(start, fields, _coded(model, fields, body), model.framing, wanted)


def response_bytes(model: ResponseModel, body: bytes, method: str) -> bytes:
    """A response as a server sends it to a request with that method."""
    fields = _given(model)
    content = _coded(model, fields, body)
    bodiless = model.status in (204, 304)
    start = f"HTTP/{model.version} {model.status} Test"
    whole = _message(start, fields, content, model.framing, not bodiless)
    if method != "HEAD":
        return whole
    return whole[: whole.index(b"\r\n\r\n") + 4]  # RFC 9110 9.3.2: the head alone


def _split(url: str) -> tuple[str, str]:
    rest = url.removeprefix("http://")
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    target = rest[cut:]
    return rest[:cut], target if target.startswith("/") else f"/{target}"


def _given(model: RequestModel | ResponseModel) -> list[tuple[str, str]]:
    return [(name, value) for name, values in model.headers.items() for value in values]


def _has(fields: Iterable[tuple[str, str]], name: str) -> bool:
    return any(key.lower() == name for key, _ in fields)


def _coded(
    model: RequestModel | ResponseModel, fields: list[tuple[str, str]], body: bytes
) -> bytes:
    if model.encoding and not _has(fields, "content-encoding"):
        fields.append(("Content-Encoding", ", ".join(model.encoding)))
    return encode(body, model.encoding)


def _message(
    start: str, fields: list[tuple[str, str]], content: bytes, framing: str, wanted: bool
) -> bytes:
    framed = _has(fields, "content-length") or _has(fields, "transfer-encoding")
    if wanted and not framed:
        if framing == "chunked":
            fields.append(("Transfer-Encoding", "chunked"))
        elif framing == "length":
            fields.append(("Content-Length", str(len(content))))
    if framing == "chunked" and wanted:
        content = _chunks(content)
    lines = [start, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("utf-8") + content


def _chunks(content: bytes) -> bytes:
    pieces = (content[at : at + _CHUNK] for at in range(0, len(content), _CHUNK))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# --- reading -------------------------------------------------------------------------------


def read_requests(data: bytes) -> list[Seen]:
    """The requests that reached a server; the last may be cut short."""
    return _read_all(data, lambda: h11.Connection(h11.SERVER, _MAX_HEAD), True)


def read_response(data: bytes, method: str, ended: bool) -> Seen | None:
    """The first final response that reached a client; None: none whose head is complete."""
    return next(iter(_read_all(data, lambda: _client(method), ended)), None)


def _client(method: str) -> h11.Connection:
    connection = h11.Connection(h11.CLIENT, _MAX_HEAD)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    return connection


def _read_all(data: bytes, connect: Callable[[], h11.Connection], ended: bool) -> list[Seen]:
    found: list[Seen] = []
    while data:
        connection = connect()
        connection.receive_data(data)
        if ended:
            connection.receive_data(b"")
        message, rest = _read_one(connection)
        if message is None:
            break
        found.append(message)
        data = rest if len(rest) < len(data) else b""
    return found


def _read_one(connection: h11.Connection) -> tuple[Seen | None, bytes]:
    """One message and the bytes after it."""
    head: h11.Request | h11.Response | None = None
    body, problem = bytearray(), ""
    try:
        while True:
            event = connection.next_event()
            match event:
                case h11.Request() | h11.Response():
                    head = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    break
                case h11.InformationalResponse():
                    continue
                case _:
                    problem = "it is not complete"
                    break
    except h11.RemoteProtocolError as error:
        problem = str(error)
    if head is None:
        return None, b""
    return _seen(head, bytes(body), problem), connection.trailing_data[0]


def _seen(head: h11.Request | h11.Response, body: bytes, problem: str) -> Seen:
    start: tuple[str, ...]
    if isinstance(head, h11.Request):
        start = (head.method.decode("ascii"), head.target.decode("latin-1"))
    else:
        start = (str(head.status_code),)
    fields = tuple(
        (name.decode("ascii"), value.decode("utf-8", "replace"))
        for name, value in head.headers.raw_items()
    )
    codings = [
        token.strip().lower()
        for name, value in fields
        if name.lower() == "content-encoding"
        for token in value.split(",")
        if token.strip()
    ]
    try:
        body = decode(body, codings) if body and not problem else body
    except NotDecodable as error:
        problem = str(error)
    return Seen(start, fields, body, problem)
