"""policies/README.md, "Testing policies": its example runs as printed, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.policy.cases import VERDICTS, ExpectModel, RequestExpect, ResponseExpect, StreamExpect
from proxy.policy.cases_given import (
    CODINGS,
    ConnectionModel,
    GivenModel,
    Octets,
    PrincipalModel,
    RequestModel,
    ResponseModel,
    TlsModel,
    TurnModel,
)

README = Path(__file__).parents[3] / "policies" / "README.md"
SECTION = README.read_text(encoding="utf-8").partition("\n## Testing policies\n")[2]
BLOCK = re.compile(r"^```(yml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_example_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = BLOCK.findall(SECTION)
    assert [kind for kind, _ in blocks] == ["yml", "yml", "console"]
    for _, text in blocks[:2]:
        name = text.split("\n", 1)[0].removeprefix("# ")
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command, _, printed = blocks[2][1].partition("\n")
    assert main(command.removeprefix("$ sluicegate ").split()) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    "model",
    [
        GivenModel,
        ConnectionModel,
        PrincipalModel,
        RequestModel,
        ResponseModel,
        TlsModel,
        TurnModel,
        Octets,
        ExpectModel,
        RequestExpect,
        ResponseExpect,
        StreamExpect,
    ],
)
def test_every_key_is_named(model: type[GivenModel]) -> None:
    keys = {field.alias or name for name, field in model.model_fields.items()} - {"is", "text"}
    assert {key for key in keys if not re.search(rf"\b{key}\b", SECTION)} == set()


def test_every_verdict_and_coding_is_named() -> None:
    words = {*VERDICTS, *CODINGS} - {"x-gzip"}
    assert {word for word in words if not re.search(rf"\b{word}\b", SECTION)} == set()
