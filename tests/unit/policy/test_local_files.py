"""Folders of local files: read from the directory, watched with it, found by requests' paths."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.heads import Field, RequestHead
from proxy.model import Endpoint, FlowInfo, Layer, RedirectInfo
from proxy.policy import ast
from proxy.policy.facts import Facts
from proxy.policy.generation import Generation
from proxy.policy.localmap import answers, local_file
from proxy.policy.ruling import RuleVerdict, Ruling
from proxy.policy.store import PolicyStore, check_directory

POLICY = """version: 1
policy: local
rules:
- {id: files, layer: http_request, then: {map_local: {prefix: /s/, dir: files, missing: MISSING}}}
- {id: one, layer: http_request, then: {map_local: {path: /one, file: files/a.txt}}}
- {id: rest, layer: http_request, when: {path: '/*'}, then: {block: true}}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    where = tmp_path / "policies"
    (where / "files" / "sub").mkdir(parents=True)
    (where / "files" / "a.txt").write_text("A")
    (where / "files" / "sub" / "b é.html").write_text("<p>")
    (where / "files" / ".hidden").write_text("no")
    write(where)
    return where


def write(where: Path, missing: str = "not_found") -> None:
    (where / "p.yaml").write_text(POLICY.replace("MISSING", missing))


def generation(where: Path) -> Generation:
    store = PolicyStore(where, lambda result: None)
    store.load_initial()
    return store.current


def ask(made: Generation, path: str) -> Ruling:
    redirect = RedirectInfo("nft", Endpoint("192.0.2.1", 80), Endpoint("10.0.0.9", 1))
    head = RequestHead(
        b"1.1", (Field(b"Host", b"host", b"a.test"),), method=b"GET", target=path.encode()
    )
    facts = Facts(FlowInfo("f", redirect, 0.0), 0.0, request=head)
    return made.decide(Layer.HTTP_REQUEST, facts)


def answer(made: Generation, path: str) -> tuple[str | None, bytes | None]:
    """Who decides, and what a local file would answer."""
    action: Any = ask(made, path).action
    file = local_file(action, path.partition("?")[0]) if isinstance(action, ast.MapLocal) else None
    return ask(made, path).rule, file.data if file is not None else None


@pytest.mark.parametrize(
    ("path", "rule", "data"),
    [
        ("/s/a.txt", "files", b"A"),
        ("/s/%61.txt", "files", b"A"),
        ("/s/./sub/../a.txt?x=y", "files", b"A"),
        ("//s//a.txt", "files", b"A"),
        ("/x/../s/a.txt", "files", b"A"),
        ("/s/sub/b%20%C3%A9.html", "files", b"<p>"),
        ("/s/no.txt", "files", None),
        ("/s/.hidden", "files", None),
        ("/s/%FF", "files", None),
        ("/s/", "files", None),
        ("/s", "rest", None),
        ("/s/../etc/passwd", "rest", None),
        ("/s/%2e%2e/p.yaml", "rest", None),
        ("/one", "one", b"A"),
        ("/%6fne", "one", b"A"),
        ("/ones", "rest", None),
        ("/one/", "rest", None),
        ("/", "rest", None),
    ],
)
def test_which_requests_are_answered(
    directory: Path, path: str, rule: str, data: bytes | None
) -> None:
    assert answer(generation(directory), path) == (rule, data)


def test_a_missing_file_that_passes_does_not_pass_the_rules_behind(directory: Path) -> None:
    write(directory, "pass")
    made = generation(directory)
    assert ask(made, "/s/a.txt").verdict is RuleVerdict.RESPOND
    assert ask(made, "/s/no.txt").rule == "rest"


def test_a_path_that_is_not_asked_for_is_not_answered() -> None:
    action = ast.MapLocal("/s/", {"a": ast.LocalFile("text/plain", b"", '"x"')})
    assert local_file(action, "/t/a") is None
    assert not answers(action, "/t/a")
    assert answers(action, "/s/b")


async def test_a_changed_local_file_is_a_new_generation(directory: Path) -> None:
    store = PolicyStore(directory, lambda result: None)
    store.load_initial()
    files = directory / "files"
    steps: list[Callable[[], object]] = [
        lambda: (files / "a.txt").write_text("AA"),
        lambda: (files / "new.txt").write_text("N"),
        lambda: (files / "new.txt").rename(files / "newer.txt"),
        lambda: (files / "newer.txt").unlink(),
    ]
    for number, change in enumerate(steps, start=2):
        change()
        result = await store.reload("test")
        assert (result.ok, result.changed, result.generation) == (True, True, number)
    assert not (await store.reload("test")).changed


def problems(where: Path) -> list[str]:
    return [str(problem) for problem in check_directory(where).problems]


def test_links_inside_are_followed_and_links_outside_refused(directory: Path) -> None:
    (directory / "files" / "again").symlink_to(directory / "files" / "sub")
    assert answer(generation(directory), "/s/again/b%20é.html")[0] == "files"
    outside = directory.parent / "outside.txt"
    outside.write_text("secret")
    (directory / "files" / "link.txt").symlink_to(outside)
    (problem,) = problems(directory)
    assert "link.txt is outside the policy directory" in problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_not_a_file_or_never_ends_is_refused(directory: Path) -> None:
    (directory / "files" / "circle").symlink_to(directory / "files")
    (problem,) = problems(directory)
    assert "more than 16 folders deep" in problem or "too many files" in problem
    (directory / "files" / "circle").unlink()
    os.mkfifo(directory / "files" / "pipe")
    (problem,) = problems(directory)
    assert "pipe is not a regular file" in problem
