"""The variables by which programs find an explicit proxy, for where nothing can be redirected.

There is no standard; curl(1) ENVIRONMENT, wget, Python's urllib and Go's net/http agree on these
names and on NO_PROXY. Programs that do not read them go past us.
"""

from __future__ import annotations

from proxy.model import Endpoint

_LOOPBACK = "localhost,127.0.0.0/8,127.0.0.1,::1"
_SCHEMES = ("http_proxy", "https_proxy", "all_proxy")


def proxy_environment(listen: Endpoint, *, include_loopback: bool) -> dict[str, str]:
    """Both spellings of each: curl reads only the lower-case http_proxy, others the upper.

    NO_PROXY of the caller does not survive: what it names would not be inspected.
    """
    told = dict.fromkeys(_SCHEMES, f"http://{listen}")
    told["no_proxy"] = "" if include_loopback else _LOOPBACK
    return {**told, **{name.upper(): value for name, value in told.items()}}
