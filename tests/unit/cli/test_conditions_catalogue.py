"""The catalogue of filtering conditions is whole, and our fields are where it says they are."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest

from proxy import cli
from proxy.layers.conditions import ConditionRow, conditions
from proxy.model import Layer
from proxy.policy.fields import FIELDS

#: What Microsoft documents as available ("Filtering Conditions Available at Each Filtering
#: Layer", learn.microsoft.com), written by hand beside the catalogue.
AT_CONNECT_REDIRECT = {
    "ALE_APP_ID",
    "ALE_USER_ID",
    "ALE_PACKAGE_ID",
    "FLAGS",
    "IP_LOCAL_ADDRESS",
    "IP_LOCAL_ADDRESS_TYPE",
    "IP_LOCAL_PORT",
    "IP_PROTOCOL",
    "IP_REMOTE_ADDRESS",
    "IP_REMOTE_PORT",
    "IP_DESTINATION_ADDRESS_TYPE",
}
AT_ENDPOINT_CLOSURE = AT_CONNECT_REDIRECT - {"IP_DESTINATION_ADDRESS_TYPE"} | {"IP_LOCAL_INTERFACE"}


@pytest.fixture(scope="module")
def rows() -> dict[str, ConditionRow]:
    return {row.name: row for row in conditions()}


def at(rows: dict[str, ConditionRow], layer: Layer) -> set[str]:
    return {
        name.removeprefix("FWPM_CONDITION_") for name, row in rows.items() if layer in row.layers
    }


def test_every_condition_is_there_once_with_its_own_guid(rows: dict[str, ConditionRow]) -> None:
    listed = conditions()
    assert len(listed) == len(rows) == 141  # fwpmu.h up to Windows 11
    assert len({row.guid for row in listed}) == len(listed)
    assert all(re.fullmatch(r"FWPM_(LOCAL_)?CONDITION_[A-Z0-9_]+", name) for name in rows)


def test_well_known_guids_are_right(rows: dict[str, ConditionRow]) -> None:
    known = {
        "IP_REMOTE_ADDRESS": "b235ae9a-1d64-49b8-a44c-5ff3d9095045",
        "ALE_APP_ID": "d78e1e87-8644-4ea5-9437-d809ecefc971",
    }
    for name, guid in known.items():
        assert rows[f"FWPM_CONDITION_{name}"].guid == UUID(guid)


def test_the_layers_of_a_connection_offer_what_microsoft_says(
    rows: dict[str, ConditionRow],
) -> None:
    assert at(rows, Layer.CONNECT_REDIRECT) == AT_CONNECT_REDIRECT
    assert at(rows, Layer.ENDPOINT_CLOSURE) == AT_ENDPOINT_CLOSURE
    assert at(rows, Layer.AUTH_CONNECT) > AT_CONNECT_REDIRECT
    assert {"DIRECTION", "ALE_REMOTE_USER_ID"} <= at(rows, Layer.FLOW_ESTABLISHED)


def test_what_connect_redirect_offers_is_a_field_or_a_matter_of_the_redirector(
    rows: dict[str, ConditionRow],
) -> None:
    for name in AT_CONNECT_REDIRECT:
        row = rows[f"FWPM_CONDITION_{name}"]
        assert row.fields or row.served_by == "redirector"


def test_fields_are_ours_and_known_where_the_condition_is(rows: dict[str, ConditionRow]) -> None:
    set_up = {Layer.CONNECT_REDIRECT, Layer.AUTH_CONNECT, Layer.FLOW_ESTABLISHED}
    for row in rows.values():
        assert bool(row.fields) == (row.served_by == "proxy")
        assert set(row.fields) <= set(FIELDS), row.name
        for layer in row.layers:
            if row.fields and row.name != "FWPM_CONDITION_DIRECTION" and layer in set_up:
                assert any(layer in FIELDS[field].layers for field in row.fields), row.name


def test_every_reason_is_a_sentence_of_its_own_kind(rows: dict[str, ConditionRow]) -> None:
    for row in rows.values():
        assert 40 < len(row.why) < 200
        assert row.why.endswith(".")
    assert len({row.why for row in rows.values()}) > 0.95 * len(rows)


def test_the_verb_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "--conditions"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"(?m)^FWPM_", out)) == 141
    assert "FWPM_CONDITION_FLAGS" in out
    assert "proxy as loopback, reauthorize, redirected" in out
    assert cli.main(["layers", "--conditions", "--json", "--served", "redirector"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in shown} == {
        "FWPM_CONDITION_IP_PROTOCOL",
        "FWPM_CONDITION_COMPARTMENT_ID",
    }
