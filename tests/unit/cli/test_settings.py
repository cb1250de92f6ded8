"""Settings: where they come from, who wins, and how mistakes are told."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from proxy import units
from proxy.errors import SettingsError
from proxy.limits import Cause, ExceptionPolicies, FlowTimes, Limits, OnException, StreamConfig
from proxy.model import Endpoint
from proxy.redirect.options import OnCrash, PortRange, RedirectOptions, Unredirected
from proxy.redirect.registry import PROVIDER_NAMES
from proxy.settings import RedirectSection, Settings, load_settings
from proxy.settings_callouts import CalloutSection

EXAMPLE = Path(__file__).parents[3] / "deploy" / "sluicegate.toml"
LISTEN = Endpoint("127.0.0.1", 15001)


def load(text: str = "", tmp_path: Path | None = None, **more: Any) -> Settings:
    """From TOML text, with no environment but the one that is given."""
    path = None
    if tmp_path is not None:
        path = tmp_path / "s.toml"
        path.write_text(text, encoding="utf-8")
    return load_settings(path, **{"environment": {}, "serving": False, **more})


def problems(text: str, tmp_path: Path, **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path, **more)
    return [str(p).removeprefix(str(tmp_path / "s.toml")) for p in caught.value.problems]


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every setting's dotted name."""
    found: set[str] = set()
    for name, entry in model.model_fields.items():
        kind = entry.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= keys_of(kind, f"{prefix}{name}.")
        else:
            found.add(prefix + name)
    return found


# --- defaults, and one list of them


def test_the_example_names_every_setting_at_its_default() -> None:
    assert load_settings(EXAMPLE, environment={}, serving=False) == Settings()
    data = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    named = {
        f"{section}.{key}" if isinstance(value, dict) else section
        for section, value in data.items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert named == keys_of(Settings) - {"callouts"}


def test_the_example_shows_a_callout_with_every_key_at_its_default(tmp_path: Path) -> None:
    _, mark, block = EXAMPLE.read_text(encoding="utf-8").partition("# [[callouts]]")
    text = "\n".join(line.removeprefix("# ") for line in (mark + block).splitlines())
    (shown,) = tomllib.loads(text)["callouts"]
    assert set(shown) == set(CalloutSection.model_fields)
    (callout,) = load(text, tmp_path).callouts
    required = {"name", "type", "path", "interest", "options"}
    for key in set(shown) - required:
        assert getattr(callout, key) == CalloutSection.model_fields[key].default, key


def test_sections_are_the_dataclasses_that_they_fill() -> None:
    settings = Settings()
    assert settings.stream_config() == StreamConfig()
    assert settings.flow_times() == FlowTimes()
    keys = keys_of(Settings)
    for section, kind in {
        "limits": Limits,
        "times": FlowTimes,
        "exceptions": ExceptionPolicies,
    }.items():
        names = {f"{section}.{field.name}" for field in dataclasses.fields(kind)}
        assert names == {key for key in keys if key.startswith(f"{section}.")}
    assert {cause.value for cause in Cause} == {
        field.name for field in dataclasses.fields(ExceptionPolicies)
    }


def test_redirect_settings_are_the_options_of_the_providers() -> None:
    options = {field.name for field in dataclasses.fields(RedirectOptions)} - {"listen", "admin"}
    assert set(RedirectSection.model_fields) - {"provider"} == options
    assert Settings().redirect_options(LISTEN, None) == RedirectOptions(LISTEN)


def test_every_provider_can_be_chosen() -> None:
    for name in PROVIDER_NAMES:
        assert load(flags={"redirect.provider": name}).redirect.provider == name


# --- sources, the later wins


def test_variables_override_the_file_and_flags_override_both(tmp_path: Path) -> None:
    text = 'listen = "127.0.0.1:1"\nmax_flows = 1\n[limits]\nhead_fields = 1\nhead_bytes = 1'
    settings = load(
        text,
        tmp_path,
        environment={"SLUICEGATE_LISTEN": "127.0.0.1:2", "SLUICEGATE_LIMITS__HEAD_FIELDS": "2"},
        flags={"listen": "127.0.0.1:3"},
    )
    limits = settings.stream_config().limits
    assert (settings.listen, settings.max_flows) == ("127.0.0.1:3", 1)
    assert (limits.head_fields, limits.head_bytes) == (2, 1)


def test_a_variable_names_the_file_and_a_path_overrides_it(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("max_flows = 7", encoding="utf-8")
    environment = {"SLUICEGATE_CONFIG": str(other)}
    assert load(environment=environment).max_flows == 7
    assert load("max_flows = 8", tmp_path, environment=environment).max_flows == 8


def test_variables_of_a_kubernetes_service_of_our_name_are_not_settings() -> None:
    links = {
        "SLUICEGATE_SERVICE_HOST": "10.0.0.1",
        "SLUICEGATE_SERVICE_PORT_METRICS": "15021",
        "SLUICEGATE_PORT": "tcp://10.0.0.1:15021",
        "SLUICEGATE_PORT_15021_TCP_ADDR": "10.0.0.1",
    }
    assert load(environment=links) == Settings()


def test_text_of_variables_becomes_what_the_setting_is() -> None:
    settings = load(
        environment={
            "SLUICEGATE_REDIRECT__PORTS": "80, 8000-8100",
            "SLUICEGATE_REDIRECT__EXCLUDE": '["10.0.0.0/8"]',
            "SLUICEGATE_REDIRECT__MARK": "0x10",
            "SLUICEGATE_REDIRECT__IPV6": "false",
            "SLUICEGATE_REDIRECT__UID": "1000",
            "SLUICEGATE_REDIRECT__ON_CRASH": "open",
            "SLUICEGATE_REDIRECT__UNREDIRECTED": "allow",
            "SLUICEGATE_REDIRECT__UPSTREAM": "[::ffff:192.0.2.1]:80",
            "SLUICEGATE_ADMIN__TOKEN": "12345",
            "SLUICEGATE_EVENTS__PATH": "2024",
        }
    )
    options = settings.redirect_options(LISTEN, None)
    assert options == RedirectOptions(
        LISTEN,
        ports=(PortRange(80, 80), PortRange(8000, 8100)),
        exclude=("10.0.0.0/8",),
        mark=16,
        ipv6=False,
        uid=1000,
        on_crash=OnCrash.OPEN,
        unredirected=Unredirected.ALLOW,
        upstream=Endpoint("192.0.2.1", 80),
    )
    assert (settings.admin_token(), settings.events.path) == ("12345", "2024")


def test_empty_text_is_none() -> None:
    environment = {
        f"SLUICEGATE_{name}": ""
        for name in ("POLICIES", "EVENTS__PATH", "REDIRECT__UPSTREAM", "REDIRECT__UID")
    }
    assert load(environment=environment) == Settings()


# --- mistakes


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = "\n".join(
        (
            'listn = "127.0.0.1:1"',
            'loop = "fast"',
            "[limits]",
            'head_bytes = "8 lines"',
            "  detect_seconds = nan",
            "limits = { }",
            "[redirect]",
            'ports = [80, "x"]',
            'token = "a"',
            'exclude = ["10.0.0.0/99"]',
            "[timez]",
        )
    )
    told = problems(text, tmp_path, environment={"SLUICEGATE_LIMITS__HEAD_FIELDS": "no"})
    for place, words in {
        ":1:1: listn: ": "(did you mean listen?)",
        ":2:1: loop: ": "'auto', 'uvloop', 'asyncio' or 'winloop' (found 'fast')",
        ":4:1: limits.head_bytes: ": "such as 64KiB or 8MiB (found '8 lines')",
        ":5:3: limits.detect_seconds: ": "(found nan)",
        ":6:1: limits.limits: ": "there is no such setting",
        ":8:1: redirect.ports: ": "'x' is not a TCP port",
        ":9:1: redirect.token: ": "(it belongs to [admin])",
        ":10:1: redirect.exclude: ": "'10.0.0.0/99' is not a network",
        ":11:2: timez: ": "(did you mean times?)",
        "SLUICEGATE_LIMITS__HEAD_FIELDS: ": "limits.head_fields: ",
    }.items():
        assert [p for p in told if p.startswith(place) and words in p], (place, told)
    assert len(told) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listen = ", ":1:0: not TOML: Invalid value"),
        ("max_flows = 1\nlisten = x", ":2:10: not TOML: Invalid value"),
        ("limits = 5", ":1:1: limits: this is a section; write [limits]"),
        ("limits = {head_bites = 5}", ":1:1: limits.head_bites: there is no such setting (did"),
        ("limits.head_bites = 5", ":1:1: limits.head_bites: "),
        ('listen = "15001"', ":1:1: listen: '15001' is not ADDRESS:PORT"),
        ('listen = ":15001"', ":1:1: listen: expected ADDRESS:PORT; to listen everywhere"),
        ('listen = "localhost:15001"', ":1:1: listen: expected an IP address"),
        ('redirect.upstream = "192.0.2.1:0"', ":1:1: redirect.upstream: expected a port"),
        ("redirect.mark = 0", ":1:1: redirect.mark: mark 0 is not within"),
        ('redirect.cgroup = "../x"', ":1:1: redirect.cgroup: '../x' is not a cgroup"),
        ("redirect.ports = []", ":1:1: redirect.ports: name at least one port"),
        ("redirect.uid = -1", ":1:1: redirect.uid: "),
        ("max_flows = -1", ":1:1: max_flows: "),
        ("limits.head_bytes = 0", ":1:1: limits.head_bytes: must be greater than 0"),
        ("times.connect_seconds = true", ":1:1: times.connect_seconds: expected seconds"),
        ('exceptions.overload = "ajar"', ":1:1: exceptions.overload: "),
    ],
)
def test_one_mistake(text: str, expected: str, tmp_path: Path) -> None:
    (told,) = problems(text, tmp_path)
    assert told.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": redirect.upstream: provider static needs a destination (--upstream"),
        (
            'redirect.provider = "nft"\nredirect.output = false',
            ":2:1: redirect.output: with no interface in prerouting either, nothing is captured",
        ),
        (
            'redirect.provider = "nft"\nredirect.ipv4 = false\nredirect.ipv6 = false',
            ":2:1: redirect.ipv4: with ipv6 off too, nothing is captured",
        ),
        (
            'redirect.provider = "explicit"\nlisten = "127.0.0.1:15021"',
            ": admin.listen: 127.0.0.1:15021 is the listener's own address",
        ),
        (
            'redirect.provider = "explicit"\n[admin]\ntoken = "a"\ntoken_file = "/x"',
            ":4:1: admin.token_file: there is a token already",
        ),
    ],
)
def test_what_a_service_needs_together(text: str, expected: str, tmp_path: Path) -> None:
    (told,) = problems(text, tmp_path, serving=True)
    assert told.startswith(expected)
    load(text, tmp_path)  # `status` and `reload` only need the admin endpoint


def test_flags_and_variables_are_named_in_complaints() -> None:
    with pytest.raises(SettingsError, match=r"^--listen: listen: 'x' is not ADDRESS:PORT"):
        load(flags={"listen": "x"}, flag_names={"listen": "--listen"})
    with pytest.raises(SettingsError, match=r"^--set: limits\.head_byte: .*limits\.head_bytes\?"):
        load(flags={"limits.head_byte": "1"})
    with pytest.raises(SettingsError, match=r"^SLUICEGATE_LISTN: listn: .*mean listen\?"):
        load(environment={"SLUICEGATE_LISTN": "1"})
    with pytest.raises(SettingsError, match=r"^SLUICEGATE_TIMEZ__A: timez: .*mean times\?"):
        load(environment={"SLUICEGATE_TIMEZ__A": "1"})
    with pytest.raises(SettingsError, match=r"^SLUICEGATE_LISTEN__A: listen: "):
        load(environment={"SLUICEGATE_LISTEN__A": "1"})


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "absent.toml", environment={})
    (tmp_path / "latin.toml").write_bytes(b'listen = "\xe9"')
    with pytest.raises(SettingsError, match="UTF-8"):
        load_settings(tmp_path / "latin.toml", environment={})


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    (told,) = problems("admin.token = 918273", tmp_path)
    assert "918273" not in told
    assert "918273" not in repr(load(flags={"admin.token": "918273"}))


def test_a_token_file_is_read_and_its_absence_told(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n", encoding="utf-8")
    assert load(flags={"admin.token_file": str(secret)}).admin_token() == "s3cret"
    with pytest.raises(SettingsError, match=r"admin\.token_file: .*absent"):
        load(flags={"admin.token_file": str(tmp_path / "absent")}).admin_token()


# --- what comes of them


def test_limits_reach_the_flow() -> None:
    settings = load(
        flags={
            "limits.head_bytes": "32KiB",
            "times.connect_seconds": "250ms",
            "times.opaque_idle_seconds": 0,
            "exceptions.undecided": "open",
        }
    )
    assert settings.stream_config().limits == Limits(head_bytes=32768)
    assert settings.stream_config().exceptions.action(Cause.UNDECIDED) is OnException.OPEN
    assert settings.flow_times() == FlowTimes(connect_seconds=0.25)


def test_going_on_without_redirect_information_is_serving_direct_clients() -> None:
    settings = load(flags={"exceptions.no_redirect_info": "open"})
    assert settings.redirect_options(LISTEN, None).unredirected is Unredirected.ALLOW


@pytest.mark.parametrize(
    ("soft", "limit"), [(20_000, 9_936), (1_024, 448), (10, 16), (-1, (1 << 19) - 64)]
)
def test_the_flow_limit_follows_the_limit_of_open_files(
    soft: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert Settings().flow_limit() == limit  # -1 is RLIM_INFINITY
    assert load(flags={"max_flows": 5}).flow_limit() == 5


def test_a_named_directory_is_where_the_policies_are() -> None:
    assert load(flags={"policies": "/etc/p"}).policies_dir() == Path("/etc/p")
    assert Settings().policies_dir().is_dir()


# --- sizes and durations


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), ("64KiB", 65536), ("64k", 65536), ("1.5MiB", 1572864), ("1 GB", 10**9)],
)
def test_sizes(text: str, size: int) -> None:
    assert units.to_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10.0), ("500ms", 0.5), ("2 min", 120.0), ("1h", 3600.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert units.to_seconds(text) == seconds


def outcome(function: Callable[..., Any], *arguments: Any, **more: Any) -> object:
    """What it returns, or the text of the error that belongs to it."""
    try:
        return function(*arguments, **more)
    except (ValueError, SettingsError) as error:
        return str(error)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.binary()))
def test_anything_is_an_amount_or_told_what_was_expected(value: object) -> None:
    for convert in (units.to_bytes, units.to_seconds):
        match outcome(convert, value):
            case str(message):
                assert message.startswith("expected ")
            case amount:
                assert isinstance(amount, int | float)
                assert 0 <= amount <= 2**53


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), min_size=1, max_size=4))
def test_any_flags_are_settings_or_complaints(flags: dict[str, str]) -> None:
    found = outcome(load, flags=flags)
    assert isinstance(found, Settings) or str(found).startswith("--set: ")
