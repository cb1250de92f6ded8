"""The catalogue of the platform's layers is whole and says who serves what."""

from __future__ import annotations

import json
import re

import pytest

from proxy import cli
from proxy.layers import LayerRow, catalogue
from proxy.model import Layer

#: Our layers that have a twin in the platform; the rest look above the stream.
TWINS = {
    Layer.CONNECT_REDIRECT: "FWPM_LAYER_ALE_CONNECT_REDIRECT",
    Layer.AUTH_CONNECT: "FWPM_LAYER_ALE_AUTH_CONNECT",
    Layer.FLOW_ESTABLISHED: "FWPM_LAYER_ALE_FLOW_ESTABLISHED",
    Layer.STREAM: "FWPM_LAYER_STREAM",
    Layer.STREAM_DISCARD: "FWPM_LAYER_STREAM",
    Layer.ENDPOINT_CLOSURE: "FWPM_LAYER_ALE_ENDPOINT_CLOSURE",
}


@pytest.fixture(scope="module")
def rows() -> dict[str, LayerRow]:
    return {row.name: row for row in catalogue()}


def test_every_layer_is_there_once_with_its_own_guid(rows: dict[str, LayerRow]) -> None:
    listed = catalogue()
    assert len(listed) == 97  # fwpmu.h up to Windows 11: 95, and the connection policy's two
    assert len(rows) == len(listed)
    assert len({row.guid for row in listed}) == len(listed)
    assert all(re.fullmatch(r"FWPM_LAYER_[A-Z0-9_]+", row.name) for row in listed)


def test_well_known_guids_are_right(rows: dict[str, LayerRow]) -> None:
    assert str(rows["FWPM_LAYER_STREAM_V4"].guid) == "3b89653c-c170-49e4-b1cd-e0eeeee19a3e"
    guid = rows["FWPM_LAYER_ALE_CONNECT_REDIRECT_V6"].guid
    assert str(guid) == "587e54a7-8046-42ba-a0aa-b716250fc7fd"


def test_both_families_of_a_layer_are_there_and_treated_alike(rows: dict[str, LayerRow]) -> None:
    for name, row in rows.items():
        if "_V4" in name:
            twin = rows[name.replace("_V4", "_V6")]
            assert (twin.served_by, twin.layer, twin.why) == (row.served_by, row.layer, row.why)


def test_every_layer_of_ours_with_a_twin_is_named_by_it(rows: dict[str, LayerRow]) -> None:
    named: dict[Layer, set[str]] = {}
    for row in rows.values():
        if row.layer is not None:
            named.setdefault(row.layer, set()).add(row.name)
    assert set(named) == set(TWINS)
    for layer, prefix in TWINS.items():
        assert {name for name in named[layer] if "DISCARD" not in name} <= {
            f"{prefix}_V4",
            f"{prefix}_V6",
        }


def test_who_serves_and_why_go_together(rows: dict[str, LayerRow]) -> None:
    for row in rows.values():
        assert (row.layer is None) == (row.served_by == "none")
        assert 40 < len(row.why) < 260
        assert row.why.endswith(".")


def test_reasons_are_not_one_phrase_for_all(rows: dict[str, LayerRow]) -> None:
    bases = {re.sub(r"_V[46](?=_|$)", "", row.name) for row in rows.values()}
    assert len({row.why for row in rows.values()}) > 0.9 * len(bases)


def test_the_verb_filters_and_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "--json", "--served", "redirector"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in shown} == {
        "FWPM_LAYER_ALE_CONNECT_REDIRECT_V4",
        "FWPM_LAYER_ALE_CONNECT_REDIRECT_V6",
    }
    assert cli.main(["layers"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(re.findall(r"(?m)^FWPM_LAYER_", out)) == 97
