"""The admin endpoint: metrics, health, status and reload, by h11 as a server.

    GET  /metrics     Prometheus exposition (text or OpenMetrics, by Accept)
    GET  /healthz     200 while the process runs its loop
    GET  /readyz      200 while new flows are served, else 503
    GET  /status      JSON
    POST /-/reload    reload the policies: 200, or 422 with the problems

Who may ask: a client on loopback, or whoever has the token. `/metrics`, `/healthz` and
`/readyz` are for everybody who reaches the port. On loopback the Host must be this machine's
own name, or a web page could reach us by DNS rebinding, and a request that a page sent by
itself (it carries Origin) is never a reload.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol

import orjson

from proxy.model import Endpoint
from proxy.service.admin_http import HttpServer, Reply, Request

_PUBLIC = frozenset({"/metrics", "/healthz", "/readyz"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS


class Exposition(Protocol):
    """What `proxy.account.metrics.Counters` is to this endpoint."""

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """Body and Content-Type, as the Accept header's value asks."""


class _Scrapes:
    """A fresh exposition up to 5 times a second on average, 20 at once; then the last one again.

    Building one takes milliseconds of the loop, which a flood of scrapes must not have.
    """

    _PER_SECOND, _BURST = 5.0, 20.0

    def __init__(self, metrics: Exposition) -> None:
        self._metrics = metrics
        self._left = self._BURST
        self._refilled = 0.0
        self._last: tuple[str, bytes, str] = ("", b"", "")

    def get(self, accept: str, now: float) -> Reply:
        self._left = min(self._BURST, self._left + (now - self._refilled) * self._PER_SECOND)
        self._refilled = now
        if self._left >= 1.0:
            self._left -= 1.0
            self._last = (accept, *self._metrics.expose(accept))
        elif accept != self._last[0]:
            return _text(HTTPStatus.TOO_MANY_REQUESTS, "too many scrapes")
        return Reply(200, self._last[1], self._last[2])


class AdminServer:
    """Binds in start(); `endpoint` then has the real port.

    `reload` returns {"ok": bool, "generation": int, "problems": [...]}.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        metrics: Exposition,
        status: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        ready: Callable[[], bool],
        token: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._scrapes = _Scrapes(metrics)
        self._status = status
        self._reload = reload
        self._ready = ready
        self._token = token.encode() if token else None
        self._http = HttpServer(self._answer)
        self._routes: dict[str, dict[str, Callable[[Request], Awaitable[Reply]]]] = {
            "/metrics": {"GET": self._get_metrics},
            "/healthz": {"GET": self._get_healthz},
            "/readyz": {"GET": self._get_readyz},
            "/status": {"GET": self._get_status},
            "/-/reload": {"POST": self._post_reload},
        }

    async def start(self) -> None:
        """Raises StartError when the address cannot be had."""
        self.endpoint = await self._http.start(self.endpoint)

    async def stop(self) -> None:
        """Close the socket and every connection."""
        await self._http.stop()

    # --- from request to reply

    async def _answer(self, request: Request) -> Reply:
        refusal = self._misdirected(request) or self._unauthorised(request)
        if refusal is not None:
            return refusal
        methods = self._routes.get(request.path)
        if methods is None:
            return _text(HTTPStatus.NOT_FOUND, "try: " + " ".join(self._routes))
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allow = ", ".join((*methods, "HEAD") if "GET" in methods else methods)
            return Reply(405, b"method not allowed\n", headers=(("Allow", allow),))
        return await handler(request)

    def _misdirected(self, request: Request) -> Reply | None:
        """DNS rebinding: a name that is not ours leads a browser to our loopback port."""
        if not _is_loopback(request.local):
            return None
        host = request.headers.get("host")  # h11: HTTP/1.1 has exactly one; 1.0 may have none
        if host is None or _host_name(host) in _LOOPBACK_NAMES | {request.local.host}:
            return None
        return _text(HTTPStatus.MISDIRECTED_REQUEST, "this Host is not served here")

    def _unauthorised(self, request: Request) -> Reply | None:
        if request.path in _PUBLIC:
            return None
        given = request.headers.get("authorization")
        if given is None and _is_loopback(request.client):
            if request.method == "POST" and "origin" in request.headers:
                return _text(HTTPStatus.FORBIDDEN, "not for web pages")
            return None
        if self._token is None:
            return _text(HTTPStatus.FORBIDDEN, "only from this machine: no admin token is set")
        scheme, _, token = (given or "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode("utf-8", "surrogateescape"), self._token
        ):
            return None
        return Reply(401, b"a valid token is needed\n", headers=(("WWW-Authenticate", "Bearer"),))

    # --- routes

    async def _get_metrics(self, request: Request) -> Reply:
        now = asyncio.get_running_loop().time()
        return self._scrapes.get(request.headers.get("accept", ""), now)

    async def _get_healthz(self, request: Request) -> Reply:
        return _text(HTTPStatus.OK, "ok")

    async def _get_readyz(self, request: Request) -> Reply:
        if self._ready():
            return _text(HTTPStatus.OK, "ready")
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, "not ready")

    async def _get_status(self, request: Request) -> Reply:
        return _json(200, self._status())

    async def _post_reload(self, request: Request) -> Reply:
        result = await self._reload()
        return _json(200 if result.get("ok") else 422, result)


def _host_name(host: str) -> str:
    """Host without port and brackets, lower-case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_loopback(endpoint: Endpoint) -> bool:
    ip = endpoint.ip
    return ip is not None and ip.is_loopback


def _text(status: HTTPStatus, line: str) -> Reply:
    return Reply(status.value, f"{line}\n".encode())


def _json(status: int, value: dict[str, Any]) -> Reply:
    return Reply(status, orjson.dumps(value, option=_JSON, default=str), "application/json")
