"""`[[callouts]]`: what is loaded, and what is said about what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy import cli
from proxy.contract import Kind, Mode
from proxy.engine.stages import PROTOCOL_WEIGHT
from proxy.errors import SettingsError
from proxy.limits import OnException
from proxy.service.callouts import LoadedCallouts, load_callouts
from proxy.settings import Settings, load_settings

STREAM = """
from proxy.api import Permit, StreamBase

class Passing(StreamBase):
    def __init__(self, flow, options):
        self.limit = int(options.get("limit", 1))
    def classify(self, data):
        return Permit(len(data.data))

class Waiting(Passing):
    async def classify(self, data):
        return Permit(len(data.data))

async def made_later(flow, options): ...
def broken(flow, options): raise ValueError("no limit, no callout")
def takes_none(): ...
number = 3
"""
OTHERS = """
class Heads:
    def __init__(self, flow, options): self.flow = flow
    async def request(self, message): ...
class Gate:
    def __init__(self, options): self.options = options
    def authorise(self, flow): return None
"""


def settings(tmp_path: Path, *tables: str) -> Settings:
    (tmp_path / "stream.py").write_text(STREAM)
    (tmp_path / "others.py").write_text(OTHERS)
    (tmp_path / "bad.py").write_text("import os\n\nos.nothing\n")
    (tmp_path / "worse.py").write_text("def make(:\n")
    path = tmp_path / "s.toml"
    path.write_text("".join(f"[[callouts]]\n{table}\n" for table in tables), encoding="utf-8")
    return load_settings(path, environment={}, serving=False)


def loaded(tmp_path: Path, *tables: str) -> LoadedCallouts:
    return load_callouts(settings(tmp_path, *tables).callouts)


def complaint(tmp_path: Path, *tables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, *tables)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_each_type_is_registered_as_its_table_says(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        'name = "low"\ntype = "stream"\npath = "stream.py:Passing"\nweight = -5\n'
        'kind = "inspection"',
        'name = "high"\ntype = "stream"\npath = "stream.py:Waiting"\nmode = "out_of_band"\n'
        'on_error = "open"',
        'name = "heads"\ntype = "http"\npath = "others.py:Heads"\nmode = "out_of_band"\n'
        'interest = ["request"]\ntimeout = "1500ms"',
        'name = "gate"\ntype = "connection"\npath = "others.py:Gate"\n[callouts.options]\nx = 1',
    )
    high, low = found.streams
    assert (high.name, high.weight, high.mode) == ("high", PROTOCOL_WEIGHT + 100, Mode.OUT_OF_BAND)
    assert high.on_error is OnException.OPEN
    assert (low.name, low.weight, low.kind) == ("low", PROTOCOL_WEIGHT - 5, Kind.INSPECTION)
    assert [(one.name, one.timeout) for one in found.http] == [("heads", 1.5)]
    assert vars(found.connections[0].callout) == {"options": {"x": 1}}
    assert found.names == ("high", "low", "heads", "gate")


def test_a_module_that_is_installed_is_found_by_its_name() -> None:
    text = [{"name": "a", "type": "stream", "module": "proxy.testing.samples:Passing"}]
    found = load_callouts(Settings(callouts=text).callouts)  # type: ignore[arg-type]
    assert found.names == ("a",)


def stream(what: str, more: str = "") -> str:
    return f'name = "a"\ntype = "stream"\n{what}\n{more}'


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (stream('module = "nowhere.at_all:make"'), "there is no module 'nowhere' (install it"),
        (stream('path = "missing.py"'), "there is no file "),
        (stream('path = "bad.py"'), "fails: AttributeError: module 'os' has no attribute"),
        (stream('path = "bad.py"'), "(bad.py:3)"),
        (stream('path = "worse.py"'), "SyntaxError"),
        (stream('path = "stream.py:Pasing"'), "there is no 'Pasing' in stream.py (write "),
        (stream('path = "stream.py:number"'), "is a int, not a factory"),
        (stream('path = "stream.py:made_later"'), "is a coroutine function"),
        (stream('path = "stream.py:takes_none"'), "it takes (flow: FlowHandle, options)"),
        (stream('path = "stream.py:broken"'), "ValueError: no limit, no callout (stream.py:"),
        (
            stream('path = "stream.py:Passing"', '[callouts.options]\nlimit = "secret"'),
            "its factory, called with options limit, fails: ValueError",
        ),
        (stream('path = "stream.py:Waiting"'), "classify() is a coroutine function (write mode"),
        (stream('path = "others.py:Heads"'), "has no method classify() (it is registered with"),
        (
            'name = "a"\ntype = "http"\npath = "others.py:Heads"\ninterest = ["request"]',
            "request() is a coroutine function (write mode = 'out_of_band')",
        ),
        (
            'name = "a"\ntype = "http"\npath = "others.py:Heads"\ninterest = ["response"]',
            "has no method response()",
        ),
        (
            'name = "a"\ntype = "connection"\npath = "others.py:Gate"\nmode = "out_of_band"',
            "authorise() is a plain function (write async def authorise, or mode = 'inline')",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_do(
    tmp_path: Path, table: str, said: str
) -> None:
    text = complaint(tmp_path, table)
    assert text.startswith("s.toml:1:3: callout 'a': ")
    assert said in text


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    other = stream('path = "x.py"').replace('"a"', '"b"')
    text = complaint(tmp_path, stream('path = "bad.py"'), other)
    assert [line.partition(" ")[0] for line in text.splitlines()] == ["s.toml:1:3:", "s.toml:6:3:"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('type = "stream"\npath = "x.py"', "s.toml:1:3: callouts.name: Field required"),
        (stream(""), "s.toml:1:3: callouts: needs either module = "),
        (stream('path = "x.py"\nmodule = "x"'), "s.toml:1:3: callouts: needs either module = "),
        (stream('path = "x.py"\nweight = 0'), "s.toml:1:3: callouts: weight 0 is"),
        (stream('path = "x.py"\ninterest = ["request"]'), "interest is for http callouts"),
        ('name = "a"\ntype = "http"\npath = "x.py"', "an http callout needs interest = [...]"),
        (
            'name = "a"\ntype = "http"\npath = "x.py"\ninterest = ["body"]',
            "s.toml:5:1: callouts.interest: 'body' is not one of request, response",
        ),
        (stream('path = "x.py"\nwieght = 1'), "s.toml:5:1: callouts.wieght: there is no such"),
        (stream('path = "x.py"\ntimeout = 0'), "s.toml:5:1: callouts.timeout: must be greater"),
        (stream('path = "x.py"').replace('"a"', '"A b"'), "s.toml:2:1: callouts.name: expected a"),
        (stream('path = "x.py"').replace('"a"', '"protocol"'), "that is what records call a stage"),
        (
            stream('path = "x.py"\nkind = "inspection"\nmode = "out_of_band"'),
            "an inspection never delays",
        ),
        (
            'name = "a"\ntype = "http"\npath = "x.py"\nkind = "inspection"\n'
            'interest = ["request_data"]',
            "pieces of a body are for terminating callouts",
        ),
        (
            'name = "a"\ntype = "connection"\npath = "x.py"\nkind = "inspection"',
            "a connection callout decides",
        ),
    ],
)
def test_a_table_that_makes_no_sense(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, table)
    assert said in str(caught.value)


def test_the_place_is_that_of_the_right_table(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"s\.toml:11:1: callouts\.weight: "):
        settings(
            tmp_path,
            stream('path = "x.py"', '[callouts.options]\nweight = "7"'),
            stream('path = "x.py"').replace('"a"', '"b"') + 'weight = "many"',
        )


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there are two called 'a'"):
        settings(tmp_path, stream('path = "x.py"'), stream('path = "y.py"'))


@pytest.mark.parametrize("name", ["SLUICEGATE_CALLOUTS", "SLUICEGATE_CALLOUTS__NAME"])
def test_variables_cannot_set_them(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}: callouts.* in the settings file only"):
        load_settings(None, environment={name: "x"}, serving=False)


def test_run_ends_with_2_and_names_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(tmp_path, stream('path = "bad.py"'))
    arguments = ["run", "--config", str(tmp_path / "s.toml"), "--upstream", "127.0.0.1:9"]
    assert cli.main(arguments) == cli.USAGE
    assert "s.toml:1:3: callout 'a': " in capsys.readouterr().err
