"""The catalogue of the platform's filtering conditions: our fields for each, or why there is none.

`conditions.tsv` has one line per FWPM_CONDITION_* of fwpmu.h. Names and GUIDs are Microsoft's
(learn.microsoft.com/windows/win32/fwp/filtering-condition-identifiers-), and so is at which layer
each is offered ("Filtering Conditions Available at Each Filtering Layer" there).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from uuid import UUID

from proxy.layers import SERVED_BY
from proxy.model import Layer


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """One condition. `layers`: of ours, where the platform offers it; `fields`: ours for it."""

    name: str
    guid: UUID
    layers: tuple[Layer, ...]
    served_by: str
    fields: tuple[str, ...]
    why: str

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "guid": str(self.guid)}


def conditions() -> tuple[ConditionRow, ...]:
    """Every condition, in the order of the platform's header."""
    text = (files("proxy.layers") / "conditions.tsv").read_text(encoding="utf-8")
    return tuple(_row(line) for line in text.splitlines() if line and not line.startswith("#"))


def _row(line: str) -> ConditionRow:
    name, guid, layers, served_by, fields, why = line.split("\t")
    if served_by not in SERVED_BY:
        raise ValueError(f"{name}: served by {served_by!r}")
    return ConditionRow(
        name,
        UUID(guid),
        tuple(Layer(layer) for layer in _several(layers)),
        served_by,
        _several(fields),
        why,
    )


def _several(text: str) -> tuple[str, ...]:
    return () if text == "-" else tuple(text.split(","))
