"""Fields of the connection and its principal: true, false, absent, unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.model import Confidence, Endpoint, FlowInfo, Layer, Principal, RedirectInfo
from proxy.policy import ast
from proxy.policy.ast import Compare, Op
from proxy.policy.facts import Facts
from proxy.policy.fields import FIELDS
from proxy.policy.lists import ListBook
from proxy.policy.match import compile_test
from proxy.policy.scope import Scope

MARK = ast.Mark("p.yaml", 1, 1)
WHO = Principal(pid=7, confidence=Confidence.EXACT)
INFO = RedirectInfo("nft", Endpoint("10.0.0.7", 5432), Endpoint("10.0.0.9", 40000))
PATHS = ast.ListDef("paths", ast.ListType.STRING, ("/bin/A", "C:\\A.exe"), MARK)


def ask(
    field: str,
    *values: Any,
    op: Op = Op.IS,
    who: Principal | None = None,
    reauthorize: bool = False,
    **redirect: Any,
) -> bool | None:
    compared = Compare(op, values if op is Op.IS else values[0])
    test = ast.Test(field, None, (compared,), MARK)
    predicate = compile_test(test, FIELDS[field], ListBook((PATHS,)), every=False)
    info = replace(INFO, principal=who or Principal(), **redirect)
    facts = Facts(FlowInfo("1", info, 0.0), 0.0, reauthorize=reauthorize)
    return predicate(Scope(Layer.AUTH_CONNECT, facts))


# --- the program ---------------------------------------------------------------------------

EXE = [
    ("/usr/bin/curl", "/usr/bin/curl", True),
    ("/usr/bin/curl", "*/CURL", False),  # paths of Linux have case
    ("/usr/bin/curl (deleted)", "/usr/bin/curl", True),
    ("/usr/bin/curl (deleted)", "*(deleted)", False),
    ("/usr/bin/curl (deleted) (deleted)", "/usr/bin/curl (deleted)", True),
    ("C:\\Windows\\System32\\CURL.EXE", "c:\\windows\\*\\curl.exe", True),
    ("c:\\windows\\system32\\curl.exe", "*\\Curl.exe", True),
    ("\\Device\\HarddiskVolume3\\Tools\\Nc.exe", "*\\tools\\nc.EXE", True),
    ("\\Device\\HarddiskVolume3\\Tools\\Nc.exe", "/tools/nc.exe", False),
    ("/opt/Größe", "/opt/Größe", True),
    ("C:\\Größe.exe", "*\\größe.EXE", True),
]


@pytest.mark.parametrize(("exe", "wanted", "matches"), EXE)
def test_the_path_of_the_program(exe: str, wanted: str, matches: bool) -> None:
    assert ask("principal.exe", wanted, who=replace(WHO, exe=exe)) is matches


def test_paths_in_lists_and_patterns() -> None:
    for exe, matches in [("/bin/A", True), ("/bin/a", False), ("c:\\a.EXE", True)]:
        assert ask("principal.exe", "paths", op=Op.IN, who=replace(WHO, exe=exe)) is matches
    for exe, matches in [("/bin/A", True), ("/bin/a", False), ("C:\\bin\\a", True)]:
        assert ask("principal.exe", "[/\\\\]A$", op=Op.REGEX, who=replace(WHO, exe=exe)) is matches


@pytest.mark.parametrize(
    ("who", "name"),
    [
        (replace(WHO, exe="/usr/bin/curl", comm="liar"), "curl"),
        (replace(WHO, exe="/usr/bin/curl (deleted)"), "curl"),
        (replace(WHO, exe="C:\\Tools\\Curl.EXE"), "curl.exe"),
        (replace(WHO, comm="Curl"), "curl"),
    ],
)
def test_the_name_is_the_file_s_and_only_without_one_the_process_s(
    who: Principal, name: str
) -> None:
    assert ask("principal.name", name, who=who) is True
    assert ask("principal.name", name.upper(), who=who) is True
    assert ask("principal.name", "other", who=who) is False


def test_a_program_that_is_gone_from_its_path() -> None:
    assert ask("principal.deleted", True, who=replace(WHO, exe="/a (deleted)")) is True
    assert ask("principal.deleted", True, who=replace(WHO, exe="/a")) is False
    assert ask("principal.deleted", True, who=replace(WHO, comm="a")) is None


# --- unknown and absent --------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [name for name in FIELDS if name.startswith("principal.") and name[10:] != "confidence"],
)
def test_nothing_is_known_of_nobody(field: str) -> None:
    everything = Principal(
        1, 1.0, "/a", 1, "u", "/g", "c", Confidence.NONE, comm="a", package="snap:a"
    )
    value: Any = {"principal.pid": 1, "principal.uid": 1, "principal.deleted": True}.get(field, "x")
    for who in (Principal(), everything):
        assert ask(field, value, who=who) is None
        assert ask(field, True, op=Op.EXISTS, who=who) is None


@pytest.mark.parametrize("field", ["container", "package"])
@pytest.mark.parametrize(
    ("known", "value"),
    [
        ({}, None),
        ({"cgroup": "/user.slice"}, False),
        ({"container": "", "package": ""}, False),
        ({"container": "c0ffee", "package": "c0ffee"}, True),
    ],
)
def test_in_no_container_is_something_known(
    field: str, known: dict[str, str], value: bool | None
) -> None:
    who = replace(WHO, **known)
    assert ask(f"principal.{field}", "c0f*", who=who) is value
    assert ask(f"principal.{field}", True, op=Op.EXISTS, who=who) is value


def test_confidence_is_always_known() -> None:
    assert ask("principal.confidence", "none") is True
    assert ask("principal.confidence", "exact", who=WHO) is True
    assert ask("principal.confidence", "likely", "none", who=WHO) is False


# --- the connection ------------------------------------------------------------------------


def test_the_destination_is_where_it_goes_and_the_original_what_was_asked_for() -> None:
    there = Endpoint("2001:db8::1", 6432)
    assert ask("dst.ip", "10.0.0.0/8") is True
    assert ask("dst.ip", "10.0.0.0/8", redirect_to=there) is False
    assert ask("dst.port", 6432, redirect_to=there) is True
    assert ask("original.ip", "10.0.0.0/8", redirect_to=there) is True
    assert ask("original.port", (5000, 6000), redirect_to=there) is True
    assert ask("ip_version", 4) is True
    assert ask("ip_version", 6, redirect_to=there) is True
    assert ask("ip_version", 4, original_dst=Endpoint("a.test", 80)) is None


def test_loopback_is_what_the_service_found_or_what_needs_no_look() -> None:
    assert ask("loopback", True, loopback=True) is True
    assert ask("loopback", True, loopback=False) is False
    assert ask("loopback", True) is None
    assert ask("loopback", True, original_dst=Endpoint("127.8.8.8", 80)) is True
    assert ask("loopback", True, original_dst=Endpoint("::1", 80)) is True
    assert ask("loopback", False, original_dst=Endpoint("a.test", 80)) is None


def test_flags() -> None:
    for provider, redirected in [
        ("nft", True),
        ("wfp", True),
        ("explicit", False),
        ("static", False),
    ]:
        assert ask("redirected", True, provider=provider) is redirected
    assert ask("reauthorize", True, reauthorize=True) is True
    assert ask("reauthorize", False) is True
