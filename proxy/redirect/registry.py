"""The redirect providers by name."""

from __future__ import annotations

from collections.abc import Callable

from proxy.errors import RedirectError
from proxy.redirect.explicit import ExplicitProvider
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import RedirectOptions
from proxy.redirect.provider import Provider
from proxy.redirect.static import StaticProvider

# `wfp`, `wfp-hns`, `tproxy`, `ebpf` and `proxy-protocol` join here: a module and a case in the
# conformance suite. Modules import everywhere and fail when they are used.
_PROVIDERS: dict[str, Callable[[RedirectOptions], Provider]] = {
    "explicit": lambda options: ExplicitProvider(),
    "nft": NftProvider,
    "static": StaticProvider,
}

PROVIDER_NAMES = tuple(_PROVIDERS)


def make_provider(name: str, options: RedirectOptions) -> Provider:
    """The provider of that name, not installed yet. Raises RedirectError."""
    make = _PROVIDERS.get(name)
    if make is None:
        raise RedirectError(
            f"there is no redirect provider {name!r}; choose one of {', '.join(PROVIDER_NAMES)}"
        )
    return make(options)
