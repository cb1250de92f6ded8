"""The catalogue of the Windows Filtering Platform's layers: who serves each, and why.

`catalogue.tsv` has one line per FWPM_LAYER_* name of fwpmu.h, up to Windows 11. Names and GUIDs
are Microsoft's (learn.microsoft.com/windows/win32/fwp/management-filtering-layer-identifiers-).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from uuid import UUID

from proxy.model import Layer

SERVED_BY = ("proxy", "redirector", "none")


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of the platform. `served_by` is one of SERVED_BY; `layer` is our twin of it."""

    name: str
    guid: UUID
    served_by: str
    layer: Layer | None
    why: str

    def as_dict(self) -> dict[str, str | None]:
        """For JSON."""
        return {**asdict(self), "guid": str(self.guid)}


def catalogue() -> tuple[LayerRow, ...]:
    """Every layer, in the order of the platform's header."""
    text = (files(__name__) / "catalogue.tsv").read_text(encoding="utf-8")
    return tuple(_row(line) for line in text.splitlines() if line and not line.startswith("#"))


def _row(line: str) -> LayerRow:
    name, guid, served_by, layer, why = line.split("\t")
    if served_by not in SERVED_BY:
        raise ValueError(f"{name}: served by {served_by!r}")
    return LayerRow(name, UUID(guid), served_by, None if layer == "-" else Layer(layer), why)
