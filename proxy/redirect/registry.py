"""The redirect providers by name."""

from __future__ import annotations

import sys
from collections.abc import Callable

from proxy.errors import RedirectError
from proxy.redirect.driver_windows import DriverProvider
from proxy.redirect.ebpf import EbpfProvider
from proxy.redirect.ebpf_windows import EbpfWindowsProvider
from proxy.redirect.explicit import ExplicitProvider
from proxy.redirect.external import external
from proxy.redirect.nft import NftProvider
from proxy.redirect.options import Managed, RedirectOptions
from proxy.redirect.provider import Listening, Provider
from proxy.redirect.proxy_protocol import ProxyProtocolProvider
from proxy.redirect.static import StaticProvider
from proxy.redirect.tproxy import TproxyProvider, be_transparent
from proxy.redirect.wfp import WfpHnsProvider, WfpProvider

# A provider joins here with a module and a case in the conformance suite. Modules import
# everywhere and fail when they are used.
_PROVIDERS: dict[str, Callable[[RedirectOptions], Provider]] = {
    "ebpf": EbpfWindowsProvider if sys.platform == "win32" else EbpfProvider,
    "explicit": lambda options: ExplicitProvider(),
    "nft": NftProvider,
    "proxy-protocol": ProxyProtocolProvider,
    "static": StaticProvider,
    "tproxy": TproxyProvider,
    "wfp": WfpProvider,
    "wfp-driver": DriverProvider,
    "wfp-hns": WfpHnsProvider,
}

_LISTENING = {
    "ebpf": Listening(both_loopbacks=True),
    "nft": Listening(both_loopbacks=True),
    "tproxy": Listening(both_loopbacks=True, prepare=be_transparent),
}

PROVIDER_NAMES = tuple(_PROVIDERS)


def make_provider(name: str, options: RedirectOptions) -> Provider:
    """The provider of that name, not installed yet. Raises RedirectError."""
    make = _PROVIDERS.get(name)
    if make is None:
        raise RedirectError(
            f"there is no redirect provider {name!r}; choose one of {', '.join(PROVIDER_NAMES)}"
        )
    provider = make(options)
    return external(provider, options) if options.managed is Managed.EXTERNAL else provider


def listening(name: str) -> Listening:
    """How the listeners of that provider are opened: they come before the provider itself."""
    return _LISTENING.get(name, Listening())
