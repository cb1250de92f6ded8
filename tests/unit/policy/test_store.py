"""The policy directory on disk: what is read, what is refused, and how it is swapped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.errors import PolicyError
from proxy.policy import store as store_module
from proxy.policy.store import PolicyStore, ReloadResult, check_directory, read_directory

ONE = "version: 1\npolicy: one\nrules: [{id: a, layer: stream, then: {log: true}}]\n"
TWO = (
    "version: 1\npolicy: one\nrules:\n- {id: a, layer: stream, then: {log: true}}\n"
    "- {id: b, layer: stream, then: {log: true}}\n"
)
LISTED = (
    "version: 1\npolicy: listed\nlists: {l: {type: domain, file: lists/l.txt}}\n"
    "rules: [{id: l, layer: http_request, when: {host: {in: l}}, then: {block: true}}]\n"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    where = tmp_path / "policies"
    where.mkdir()
    (where / "one.yaml").write_text(ONE)
    return where


@pytest.fixture
def results() -> list[ReloadResult]:
    return []


@pytest.fixture
def store(directory: Path, results: list[ReloadResult]) -> PolicyStore:
    made = PolicyStore(directory, results.append)
    made.load_initial()
    return made


# --- what is read --------------------------------------------------------------------------


def test_policies_are_the_yaml_files_directly_in_the_directory(directory: Path) -> None:
    (directory / "b.YML").write_text("version: 1\npolicy: two\n")
    for ignored in (".hidden.yaml", "one_test.yaml", "notes.txt", "one.yaml~", "#one.yaml#"):
        (directory / ignored).write_text("not: [a policy")
    (directory / "examples").mkdir()
    (directory / "examples" / "x.yaml").write_text("not: [a policy")
    names = [Path(text.name).name for text in read_directory(directory)]
    assert names == ["b.YML", "one.yaml"]


def test_messages_name_files_as_they_are_found_from_here(directory: Path) -> None:
    (directory / "one.yaml").write_text("version: 1\npolicy: one\nruls: []\n")
    report = check_directory(directory)
    assert not report.ok
    assert str(report.problems[0]).startswith(f"{directory}/one.yaml:3:1: unknown key 'ruls'")


def test_check_tells_what_there_is(directory: Path) -> None:
    (directory / "lists").mkdir()
    (directory / "lists" / "l.txt").write_text("a.test\nb.test\n")
    (directory / "two.yaml").write_text(LISTED)
    report = check_directory(directory)
    assert report.ok
    assert report.policies == ("one", "listed")
    assert (report.rules, report.lists, report.entries) == (2, 1, 2)


def test_files_are_checked_against_each_other(directory: Path) -> None:
    (directory / "two.yaml").write_text(
        "version: 1\npolicy: one\nsublayers: {early: 5}\nbroken: here\n"
        "rules: [{id: a, sublayer: erly, layer: stream, then: {log: true}}]\n"
    )
    found = [str(problem) for problem in check_directory(directory).problems]
    two = directory / "two.yaml"
    assert found[0] == f"{two}:2:9: policy name 'one' is taken (by {directory}/one.yaml:2:9)"
    assert found[1].startswith(f"{two}:4:1: unknown key 'broken'")
    assert found[2] == f"{two}:5:14: rule id 'a' is taken (by {directory}/one.yaml:3:14)"
    assert found[3].endswith("no file declares the sublayer 'erly' (did you mean 'early'?)")


def test_a_sublayer_may_be_declared_in_another_file_but_weighs_the_same(directory: Path) -> None:
    (directory / "a.yaml").write_text("version: 1\npolicy: a\nsublayers: {early: 500}\n")
    use = "version: 1\npolicy: b\n{}defaults: {{sublayer: early}}\nrules: []\n"
    (directory / "b.yaml").write_text(use.format(""))
    assert check_directory(directory).ok
    (directory / "b.yaml").write_text(use.format("sublayers: {early: 400}\n"))
    (problem,) = check_directory(directory).problems
    assert "sublayer 'early' weighs 400 (500 at" in str(problem)


def test_a_list_outside_the_directory_is_not_read(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a.test\n")
    (directory / "lists").symlink_to(tmp_path)
    (directory / "one.yaml").write_text(LISTED.replace("lists/l.txt", "lists/secret.txt"))
    (problem,) = check_directory(directory).problems
    assert "it is outside the policy directory" in str(problem)


def test_a_pipe_in_the_directory_does_not_hold_the_load(directory: Path) -> None:
    os.mkfifo(directory / "pipe.yaml")
    (problem,) = check_directory(directory).problems
    assert "not a regular file" in str(problem)


def gone(directory: Path) -> None:
    shutil.rmtree(directory)


def emptied(directory: Path) -> None:
    (directory / "one.yaml").unlink()


def a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text(ONE)


def writes(content: bytes) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "one.yaml").write_bytes(content)

    write.__name__ = f"writes_{content[:12]!r}"
    return write


def a_directory(directory: Path) -> None:
    (directory / "two.yaml").mkdir()


def huge(directory: Path) -> None:
    with open(directory / "two.yaml", "wb") as file:
        file.truncate(100 * 1024 * 1024)


def dangling(directory: Path) -> None:
    (directory / "two.yaml").symlink_to("nowhere")


BREAKERS = [
    gone,
    emptied,
    a_file,
    a_directory,
    huge,
    dangling,
    writes(b""),
    writes(b"\xff\xfe"),
    writes(ONE[:40].encode()),
    writes(
        b"version: 1\npolicy: x\n"
        b"rules: [{id: a, layer: stream, when: {host: a}, then: {log: true}}]\n"
    ),
    writes(b"[" * 100_000),
]


@pytest.mark.parametrize("break_it", BREAKERS, ids=lambda breaker: breaker.__name__)
async def test_whatever_is_wrong_the_generation_in_force_stays(
    store: PolicyStore,
    directory: Path,
    results: list[ReloadResult],
    break_it: Callable[[Path], None],
) -> None:
    before = store.current
    break_it(directory)
    result = await store.reload("admin")
    assert not result.ok
    assert result.problems
    assert not result.changed
    assert store.current is before
    assert result.generation == before.number
    assert results[-1] is result


@pytest.mark.parametrize("break_it", BREAKERS, ids=lambda breaker: breaker.__name__)
def test_there_is_no_start_without_policies(
    directory: Path, break_it: Callable[[Path], None]
) -> None:
    break_it(directory)
    results: list[ReloadResult] = []
    with pytest.raises(PolicyError):
        PolicyStore(directory, results.append).load_initial()
    assert not check_directory(directory).ok
    assert results == []


# --- reloading -----------------------------------------------------------------------------


def test_the_first_load_is_told(store: PolicyStore, results: list[ReloadResult]) -> None:
    (result,) = results
    assert (result.ok, result.generation, result.reason) == (True, 1, "start")
    assert (result.changed, result.rules, store.current.number) == (True, 1, 1)


async def test_a_change_becomes_the_next_generation(store: PolicyStore, directory: Path) -> None:
    first = store.current
    (directory / "one.yaml").write_text(TWO)
    result = await store.reload("SIGHUP")
    assert (result.ok, result.changed, result.generation, result.rules) == (True, True, 2, 2)
    assert store.current.rule_ids == ("a", "b")
    assert first.rule_ids == ("a",), "a generation never changes"


async def test_nothing_changed_is_well_but_no_new_generation(
    store: PolicyStore, results: list[ReloadResult]
) -> None:
    before = store.current
    result = await store.reload("admin")
    assert (result.ok, result.changed, result.generation) == (True, False, 1)
    assert store.current is before
    assert results[-1] is result


async def test_a_list_file_is_part_of_the_content(store: PolicyStore, directory: Path) -> None:
    (directory / "lists").mkdir()
    (directory / "lists" / "l.txt").write_text("a.test\n")
    (directory / "two.yaml").write_text(LISTED)
    assert (await store.reload("admin")).generation == 2
    (directory / "lists" / "l.txt").write_text("b.test\n")
    assert (await store.reload("admin")).generation == 3
    assert not (await store.reload("admin")).changed


async def test_going_back_to_what_is_in_force_heals(store: PolicyStore, directory: Path) -> None:
    (directory / "one.yaml").write_text("nonsense")
    assert not (await store.reload("files")).ok
    (directory / "one.yaml").write_text(ONE)
    result = await store.reload("files")
    assert (result.ok, result.changed, result.generation) == (True, False, 1)


async def test_calls_at_once_share_a_load_that_sees_what_they_were_made_for(
    store: PolicyStore,
    directory: Path,
    results: list[ReloadResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = store_module._build

    def slow(*args: object) -> object:
        built = real(*args)  # type: ignore[arg-type]
        begun.set()
        go_on.wait(10)
        return built

    monkeypatch.setattr(store_module, "_build", slow)
    first = asyncio.create_task(store.reload("one"))
    await asyncio.to_thread(begun.wait, 10)
    (directory / "one.yaml").write_text(TWO)  # after the first has read its files
    others = [asyncio.create_task(store.reload("two")) for _ in range(5)]
    await asyncio.sleep(0)
    others[0].cancel()
    go_on.set()
    assert not (await first).changed
    done = await asyncio.gather(*others[1:])
    assert all(result is done[0] for result in done)
    assert (done[0].changed, done[0].generation) == (True, 2)
    assert [result.reason for result in results] == ["start", "one", "two"]


async def test_the_loop_goes_on_during_a_load(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread = threading.get_ident()
    threads: list[int] = []
    real = store_module._build

    def noting(*args: object) -> object:
        threads.append(threading.get_ident())
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(store_module, "_build", noting)
    await store.reload("admin")
    assert threads
    assert loop_thread not in threads


async def test_a_fault_of_the_compiler_is_told_and_changes_nothing(
    store: PolicyStore, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> object:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(store_module, "compile_all", broken)
    (directory / "one.yaml").write_text(TWO)
    result = await store.reload("admin")
    assert not result.ok
    assert "internal error: ZeroDivisionError('a bug')" in str(result.problems[0])
    assert store.current.rules == 1


# --- watching ------------------------------------------------------------------------------


class Watched:
    """A store that watches; `next` waits for the next thing that it tells."""

    def __init__(self, directory: Path) -> None:
        self._results: asyncio.Queue[ReloadResult] = asyncio.Queue()
        self.store = PolicyStore(directory, self._results.put_nowait)

    async def next(self) -> ReloadResult:
        return await asyncio.wait_for(self._results.get(), 20)

    async def until(self, done: Callable[[ReloadResult], bool]) -> ReloadResult:
        while not done(result := await self.next()):
            pass
        return result


@pytest.fixture
async def watched(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(store_module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(store_module, "_DEBOUNCE_SECONDS", 0.05)
    made = Watched(directory)
    made.store.load_initial()
    await made.next()
    task = asyncio.create_task(made.store.watch())
    yield made
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_an_edited_file_is_loaded(watched: Watched, directory: Path) -> None:
    (directory / "one.yaml").write_text(TWO)
    result = await watched.until(lambda result: result.changed)
    assert (result.reason, result.generation, result.rules) == ("files", 2, 2)


async def test_an_editor_that_renames_is_noticed(watched: Watched, directory: Path) -> None:
    (directory / ".one.yaml.tmp").write_text(TWO)
    os.replace(directory / ".one.yaml.tmp", directory / "one.yaml")
    assert (await watched.until(lambda result: result.changed)).rules == 2


async def test_a_half_written_file_is_an_error_until_it_is_whole(
    watched: Watched, directory: Path
) -> None:
    (directory / "one.yaml").write_text(TWO[:60])
    assert not (await watched.until(lambda result: not result.ok)).changed
    (directory / "one.yaml").write_text(TWO)
    assert (await watched.until(lambda result: result.ok)).rules == 2


async def test_kubernetes_swaps_a_symbolic_link(watched: Watched, directory: Path) -> None:
    for version, text in (("..v1", ONE), ("..v2", TWO)):
        (directory / version).mkdir()
        (directory / version / "one.yaml").write_text(text)
    (directory / "one.yaml").unlink()
    (directory / "..data").symlink_to("..v1")
    (directory / "one.yaml").symlink_to("..data/one.yaml")
    (directory / "..tmp").symlink_to("..v2")
    os.replace(directory / "..tmp", directory / "..data")
    assert (await watched.until(lambda result: result.changed)).rules == 2


async def test_a_directory_that_goes_and_comes_back(watched: Watched, directory: Path) -> None:
    shutil.rmtree(directory)
    result = await watched.until(lambda result: not result.ok)
    assert result.generation == 1
    os.mkdir(directory)
    (directory / "one.yaml").write_text(TWO)
    assert (await watched.until(lambda result: result.changed)).rules == 2
    (directory / "one.yaml").write_text(ONE)
    assert (await watched.until(lambda result: result.changed)).generation == 3


async def test_a_directory_that_went_before_the_watch_began_is_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_LOOK_SECONDS", 0.01)
    made = Watched(directory)
    made.store.load_initial()
    await made.next()
    shutil.rmtree(directory)
    task = asyncio.create_task(made.store.watch())
    assert not (await made.next()).ok
    os.mkdir(directory)
    (directory / "one.yaml").write_text(TWO)
    assert (await made.until(lambda result: result.changed)).rules == 2
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_directory_replaced_by_another_one(watched: Watched, directory: Path) -> None:
    new = directory.parent / "new"
    new.mkdir()
    (new / "one.yaml").write_text(TWO)
    os.rename(directory, directory.parent / "old")
    os.rename(new, directory)
    assert (await watched.until(lambda result: result.changed)).rules == 2


async def test_a_list_below_is_watched_too(watched: Watched, directory: Path) -> None:
    (directory / "lists").mkdir()
    (directory / "lists" / "l.txt").write_text("a.test\n")
    (directory / "two.yaml").write_text(LISTED)
    assert (await watched.until(lambda result: result.changed)).rules == 2
    (directory / "lists" / "l.txt").write_text("b.test\n")
    assert await watched.until(lambda result: result.changed)
