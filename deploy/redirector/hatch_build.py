"""Wheel build: the redirector's sources go in, and its object where clang is there to make it.

One object serves every Linux kernel and little-endian machine (it is relocated when it is
loaded), so the wheel stays one for all. Without clang the installed provider compiles the source
at its first use. https://hatch.pypa.io/latest/plugins/build-hook/custom/
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PLACE = "proxy/redirector"


class RedirectorBuildHook(BuildHookInterface[Any]):
    """Adds files to `force_include`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or self.target_name != "wheel":
            return  # a source tree finds deploy/redirector by itself
        root = Path(self.root)
        module = _object_module(root)
        sources = root / "deploy" / "redirector"
        include = build_data["force_include"]
        for name in module.SOURCES:
            include[str(sources / name)] = f"{_PLACE}/{name}"
        self._scratch = tempfile.TemporaryDirectory()
        target = Path(self._scratch.name) / module.NAME
        try:
            module.compile_object(sources, target)
        except module.RedirectError as error:
            self.app.display_warning(f"the wheel has no compiled redirector: {error}")
            return
        include[str(target)] = f"{_PLACE}/{module.NAME}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def _object_module(root: Path) -> ModuleType:
    """proxy/redirect/ebpf_object.py of the tree that is built; it needs only the errors."""
    sys.path.insert(0, str(root))
    try:
        place = root / "proxy" / "redirect" / "ebpf_object.py"
        spec = importlib.util.spec_from_file_location("sluicegate_ebpf_object", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(root))
