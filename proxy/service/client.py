"""The other end of the admin endpoint, for `sluicegate status` and `sluicegate reload`.

Blocking, standard library only, and never through a proxy of the environment.
"""

from __future__ import annotations

import http.client
from typing import Any

import orjson

from proxy.errors import AdminError
from proxy.model import Endpoint

_STATUS_SECONDS = 10.0
_RELOAD_SECONDS = 60.0  #: a reload builds the whole generation first
_MAX_BYTES = 16 * 1024 * 1024
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  #: what listens everywhere listens on loopback
_REFUSED = {
    401: "the admin token is not right",
    403: "only this machine may ask unless an admin token is set in the service",
    404: "what answers there is not Sluicegate",
    421: "it does not serve under that name; use its address",
}


def fetch_status(endpoint: Endpoint, token: str | None = None) -> dict[str, Any]:
    """What GET /status says. Raises AdminError."""
    status, answer = _ask(endpoint, "GET", "/status", token, _STATUS_SECONDS)
    if status != 200:
        raise _refusal(endpoint, status)
    return answer


def request_reload(endpoint: Endpoint, token: str | None = None) -> dict[str, Any]:
    """Have the policies reloaded: {"ok", "generation", "problems"}. Raises AdminError.

    A refused reload is an answer (`ok` is False), not an error.
    """
    status, answer = _ask(endpoint, "POST", "/-/reload", token, _RELOAD_SECONDS)
    if status not in (200, 422):
        raise _refusal(endpoint, status)
    return answer


def _ask(
    endpoint: Endpoint, method: str, path: str, token: str | None, timeout: float
) -> tuple[int, dict[str, Any]]:
    """Status and JSON body; the body is empty where the answer is a refusal."""
    host = _ANY.get(endpoint.host, endpoint.host)
    connection = http.client.HTTPConnection(host, endpoint.port, timeout=timeout)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read(_MAX_BYTES)
    except ConnectionRefusedError as error:
        raise AdminError(
            f"nothing listens on {endpoint}: is the service running, "
            f"and is this its admin address (--admin)?"
        ) from error
    except TimeoutError as error:
        raise AdminError(f"{endpoint} did not answer within {timeout:g} s") from error
    except OSError as error:
        raise AdminError(f"cannot talk to {endpoint}: {error.strerror or error}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise _stranger(endpoint) from error
    finally:
        connection.close()
    return response.status, _parse(endpoint, body) if response.status in (200, 422) else {}


def _parse(endpoint: Endpoint, body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _stranger(endpoint) from error
    if not isinstance(answer, dict):
        raise _stranger(endpoint)
    return answer


def _refusal(endpoint: Endpoint, status: int) -> AdminError:
    return AdminError(f"{endpoint} answered {status}: {_REFUSED.get(status, 'see its log')}")


def _stranger(endpoint: Endpoint) -> AdminError:
    return AdminError(
        f"what answers on {endpoint} is not Sluicegate's admin endpoint: "
        f"is this its admin address (--admin), not its listener?"
    )
