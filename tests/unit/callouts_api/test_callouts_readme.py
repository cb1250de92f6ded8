"""The examples of proxy/testing/README.md run as they stand, and so do the shipped settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from proxy.service.callouts import load_callouts
from proxy.settings import load_settings

ROOT = Path(__file__).parents[3]
README = (ROOT / "proxy" / "testing" / "README.md").read_text(encoding="utf-8")


def test_the_first_callout_and_its_test() -> None:
    callout, checks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(callout, namespace)
    exec(checks, namespace)
    namespace["test_shout"]()


def test_its_registration_is_right(tmp_path: Path) -> None:
    (table,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (callout,) = re.findall(r"```python\n# greet.py\n(.*?)```", README, re.DOTALL)
    (tmp_path / "greet.py").write_text(callout)
    (tmp_path / "s.toml").write_text(table)
    settings = load_settings(tmp_path / "s.toml", environment={}, serving=False)
    assert load_callouts(settings.callouts).names == ("shout",)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        assert (ROOT / "proxy" / "testing" / target).exists(), target


def test_the_shipped_examples_load_in_their_order() -> None:
    path = ROOT / "policies" / "examples" / "callouts" / "callouts.toml"
    settings = load_settings(path, environment={}, serving=False)
    assert load_callouts(settings.callouts).names == ("greeting", "signer", "redactor")
