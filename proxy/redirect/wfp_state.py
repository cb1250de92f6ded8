"""What `netsh wfp show state` writes, read: which callouts redirect connections here. Pure.

The file is XML: providers, sublayers, and for each layer its callouts and filters, as they are
printed in microsoft/ebpf-for-windows, docs/TroubleshootingGuide.md ("expected callout and
filter"), and in "Troubleshooting UWP App Connectivity Issues" (learn.microsoft.com). Two
redirecting drivers on one machine can take each other's connections, so they are named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from proxy.errors import RedirectError

#: Layers at which a callout may change where a connection goes.
REDIRECT_LAYERS = (
    "FWPM_LAYER_ALE_CONNECT_REDIRECT_V4",
    "FWPM_LAYER_ALE_CONNECT_REDIRECT_V6",
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what XML 1.0 2.2 does not allow
_REGISTERED = "FWPM_CALLOUT_FLAG_REGISTERED"


@dataclass(frozen=True, slots=True)
class Callout:
    """A callout at one layer. `registered`: its driver runs and has registered it."""

    key: str
    name: str
    layer: str
    provider: str  #: the provider's name, or its key; empty if none is named
    registered: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter at one layer. `callout`: key of the callout that it calls, or empty."""

    id: int
    name: str
    layer: str
    sublayer: str  #: its name, or its key
    sublayer_weight: int
    action: str
    callout: str
    weight: int  #: the effective one, higher first


@dataclass(frozen=True, slots=True)
class Redirector:
    """A callout that connections really reach: a filter at a redirecting layer calls it."""

    callout: Callout
    filter: Filter

    def __str__(self) -> str:
        name = self.callout.name or self.callout.key
        owner = f" of {self.callout.provider}" if self.callout.provider else ""
        state = "" if self.callout.registered else ", whose driver does not run: it blocks"
        return f"{name}{owner} at {self.callout.layer.removeprefix('FWPM_LAYER_')}{state}"


@dataclass(frozen=True, slots=True)
class WfpState:
    """All callouts and filters."""

    callouts: tuple[Callout, ...]
    filters: tuple[Filter, ...]

    def redirectors(self) -> tuple[Redirector, ...]:
        """Who redirects, in the order in which WFP asks: sublayer, then filter, high to low."""
        callouts = {(callout.key, callout.layer): callout for callout in self.callouts}
        found = [
            Redirector(callouts[one.callout, one.layer], one)
            for one in self.filters
            if one.layer in REDIRECT_LAYERS and (one.callout, one.layer) in callouts
        ]
        return tuple(sorted(found, key=_order))


def _order(one: Redirector) -> tuple[str, int, int]:
    return one.filter.layer, -one.filter.sublayer_weight, -one.filter.weight


def parse_state(text: str) -> WfpState:
    """From the file's text. Raises RedirectError when it is not such a file."""
    root = _root(text)
    providers = _names(root, "providers", "providerKey")
    sublayers = _names(root, "subLayers", "subLayerKey")
    weights = {
        _text(item, "subLayerKey"): _number(item, "weight")
        for item in root.iterfind("subLayers/item")
    }
    callouts, filters = [], []
    for item in root.iter("item"):
        if item.find("calloutKey") is not None:
            callouts.append(_callout(item, providers))
        elif item.find("filterKey") is not None:
            filters.append(_filter(item, sublayers, weights))
    return WfpState(tuple(callouts), tuple(filters))


def _root(text: str) -> ElementTree.Element:
    # Some Windows write a second root element behind the first, which is not XML: only the
    # first is ours. A document type would be able to define entities; netsh writes none.
    begin, end = text.find("<wfpstate"), text.find("</wfpstate>")
    if begin < 0 or end < 0:
        raise RedirectError("this is not what `netsh wfp show state` writes: no <wfpstate>")
    try:
        return ElementTree.fromstring(_CONTROL.sub(" ", text[begin:end]) + "</wfpstate>")
    except ElementTree.ParseError as error:
        raise RedirectError(f"wfpstate.xml cannot be read: {error}") from None


def _names(root: ElementTree.Element, group: str, key: str) -> dict[str, str]:
    return {_text(item, key): _display_name(item) for item in root.iterfind(f"{group}/item")}


def _callout(item: ElementTree.Element, providers: dict[str, str]) -> Callout:
    provider = _text(item, "providerKey")
    return Callout(
        _text(item, "calloutKey"),
        _display_name(item),
        _text(item, "applicableLayer"),
        providers.get(provider) or provider,
        _REGISTERED in {flag.text for flag in item.iterfind("flags/item")},
    )


def _filter(
    item: ElementTree.Element, sublayers: dict[str, str], weights: dict[str, int]
) -> Filter:
    sublayer, action = _text(item, "subLayerKey"), _text(item, "action/type")
    calls = action.startswith("FWP_ACTION_CALLOUT")
    return Filter(
        _number(item, "filterId"),
        _display_name(item),
        _text(item, "layerKey"),
        sublayers.get(sublayer) or sublayer,
        weights.get(sublayer, 0),
        action,
        _text(item, "action/filterType") if calls else "",
        _number(item, "effectiveWeight/uint64"),
    )


def _display_name(item: ElementTree.Element) -> str:
    return _text(item, "displayData/name")


def _text(item: ElementTree.Element, path: str) -> str:
    return (item.findtext(path) or "").strip()


def _number(item: ElementTree.Element, path: str) -> int:
    text = _text(item, path)
    return int(text) if text.isdecimal() else 0
