"""`netsh wfp show state`, in the format that Microsoft's guides print. No such file of a real
machine is here: the sample is made by hand."""

from __future__ import annotations

import pytest

from proxy.errors import RedirectError
from proxy.redirect.wfp_state import parse_state

V4, V6 = "FWPM_LAYER_ALE_CONNECT_REDIRECT_V4", "FWPM_LAYER_ALE_CONNECT_REDIRECT_V6"
OURS, THEIRS, IDLE = "{00000001-…}", "{00000002-…}", "{00000003-…}"


def named(name: str) -> str:
    return f"<displayData><name>{name}</name><description>{name}.</description></displayData>"


def callout(key: str, name: str, layer: str, *, provider: str = "", running: bool = True) -> str:
    flags = '<flags numItems="1"><item>FWPM_CALLOUT_FLAG_REGISTERED</item></flags>'
    return (
        f"<item><calloutKey>{key}</calloutKey>{named(name)}{flags if running else '<flags/>'}"
        f"<providerKey>{provider}</providerKey><providerData/>"
        f"<applicableLayer>{layer}</applicableLayer><calloutId>300</calloutId></item>"
    )


def filtering(number: int, layer: str, sublayer: str, action: str, kind: str, weight: int) -> str:
    return (
        f"<item><filterKey>{{f{number}}}</filterKey>{named(f'filter {number}')}<flags/>"
        f"<providerKey/><providerData/><layerKey>{layer}</layerKey>"
        f"<subLayerKey>{sublayer}</subLayerKey><weight><type>FWP_EMPTY</type></weight>"
        f"<filterCondition/><action><type>{action}</type><filterType>{kind}</filterType></action>"
        f"<rawContext>18446603911448051536</rawContext><reserved/><filterId>{number}</filterId>"
        f"<effectiveWeight><type>FWP_UINT64</type><uint64>{weight}</uint64></effectiveWeight>"
        "</item>"
    )


CALLS = "FWP_ACTION_CALLOUT_TERMINATING"
LAYER_V4 = (
    f"<item><layer><layerKey>{V4}</layerKey>{named('redirect')}<layerId>64</layerId></layer>"
    '<callouts numItems="3">'
    f"{callout(OURS, 'Sluicegate v4', V4, provider='{p1}')}{callout(THEIRS, 'Other', V4)}"
    f"{callout(IDLE, 'Nobody calls me', V4)}</callouts><filters>"
    f"{filtering(11, V4, '{low}', CALLS, OURS, 900)}"
    f"{filtering(12, V4, '{high}', CALLS, THEIRS, 5)}"
    f"{filtering(13, V4, '{high}', 'FWP_ACTION_PERMIT', '', 7)}</filters></item>"
)
LAYER_V6 = (
    f"<item><layer><layerKey>{V6}</layerKey></layer><callouts>"
    f"{callout(OURS, 'Sluicegate v6', V6, running=False)}</callouts>"
    f"<filters>{filtering(21, V6, '{low}', CALLS, OURS, 1)}</filters></item>"
)
ELSEWHERE = (
    "<item><layer><layerKey>FWPM_LAYER_STREAM_V4</layerKey></layer><callouts>"
    f"{callout(IDLE, 'Stream', 'FWPM_LAYER_STREAM_V4')}</callouts>"
    f"<filters>{filtering(31, 'FWPM_LAYER_STREAM_V4', '{low}', CALLS, IDLE, 1)}</filters></item>"
)
STATE = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<wfpstate>'
    "<timeStamp>2026-01-01T00:00:00.000Z</timeStamp><sessions/>"
    f"<providers><item><providerKey>{{p1}}</providerKey>{named('Example')}</item></providers>"
    f"<subLayers><item><subLayerKey>{{low}}</subLayerKey>{named('Low')}<weight>9</weight></item>"
    f"<item><subLayerKey>{{high}}</subLayerKey>{named('High')}<weight>10</weight></item>"
    f"</subLayers><layers>{LAYER_V4}{LAYER_V6}{ELSEWHERE}</layers></wfpstate>"
)


def test_redirecting_callouts_in_the_order_in_which_wfp_asks() -> None:
    found = parse_state(STATE).redirectors()
    assert [(one.callout.name, one.filter.id) for one in found] == [
        ("Other", 12),  # the sublayer's weight comes first
        ("Sluicegate v4", 11),
        ("Sluicegate v6", 21),
    ]
    assert [one.filter.sublayer for one in found] == ["High", "Low", "Low"]


def test_each_says_who_it_is() -> None:
    other, four, six = map(str, parse_state(STATE).redirectors())
    assert other == "Other at ALE_CONNECT_REDIRECT_V4"
    assert four == "Sluicegate v4 of Example at ALE_CONNECT_REDIRECT_V4"
    assert six.endswith("ALE_CONNECT_REDIRECT_V6, whose driver does not run: it blocks")


def test_other_layers_and_callouts_without_a_filter_are_listed_but_do_not_redirect() -> None:
    state = parse_state(STATE)
    assert {one.name for one in state.callouts} >= {"Nobody calls me", "Stream"}
    assert {one.id for one in state.filters} == {11, 12, 13, 21, 31}


@pytest.mark.parametrize("tail", ["<firewallState><x/></firewallState>", "\x00\x01", ""])
def test_what_some_windows_write_behind_the_state_is_not_in_the_way(tail: str) -> None:
    assert len(parse_state("\ufeff" + STATE + tail).redirectors()) == 3


def test_names_with_bytes_that_are_no_xml() -> None:
    (found, *_) = parse_state(STATE.replace("Other", "Ot\x02her")).redirectors()
    assert found.callout.name == "Ot her"


@pytest.mark.parametrize("text", ["", "Data collection successful", "<wfpdiag></wfpdiag>"])
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(RedirectError, match="no <wfpstate>"):
        parse_state(text)


def test_a_broken_file_is_refused_with_its_place() -> None:
    with pytest.raises(RedirectError, match="cannot be read: mismatched tag: line 1"):
        parse_state("<wfpstate><a></wfpstate>")


def test_entities_are_not_expanded() -> None:
    text = '<!DOCTYPE wfpstate [<!ENTITY a "boom">]>' + STATE.replace("Other", "&a;")
    with pytest.raises(RedirectError, match="undefined entity"):
        parse_state(text)
