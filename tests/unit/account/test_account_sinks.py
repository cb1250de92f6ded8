"""Event sinks on real files: order, rotation, full disks, readers that stand still."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.account.metrics import Counters
from proxy.account.sinks import FileSink, open_sink
from proxy.errors import StartError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def numbers(path: Path) -> list[int]:
    """Of a file in which every line must be whole."""
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line)["n"] for line in text.splitlines()]


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """The writer is another thread: look until it has got there."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def test_records_come_out_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = FileSink(str(path))
    for n in range(1000):
        sink.put({"n": n})
    sink.close()
    assert numbers(path) == list(range(1000))
    assert sink.dropped == 0
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for n in range(2):
        sink = FileSink(str(path))
        sink.put({"n": n})
        sink.close()
    assert numbers(path) == [0, 1]


def test_the_unfinished_line_of_a_killed_process_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"n": 0}\n{"n"')
    sink = FileSink(str(path))
    sink.put({"n": 1})
    sink.close()
    assert path.read_text().splitlines() == ['{"n": 0}', '{"n"', '{"n":1}']


def test_rotation_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = FileSink(str(path))
    for turn in range(5):
        for n in range(100):
            sink.put({"n": turn * 100 + n})
        path.rename(tmp_path / f"old.{turn}")
        sink.reopen()
        eventually(path.exists)
    sink.put({"n": 500})
    sink.close()
    files = [*(tmp_path / f"old.{turn}" for turn in range(5)), path]
    assert [n for file in files for n in numbers(file)] == list(range(501))
    assert numbers(path)[-1] == 500


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = FileSink(str(folder / "events.jsonl"))
    sink.put({"n": 0})
    moved = folder.rename(tmp_path / "moved")
    sink.reopen()
    eventually(lambda: sink.problem)
    assert "No such file" in sink.problem
    sink.put({"n": 1})
    sink.close()
    assert numbers(moved / "events.jsonl") == [0, 1]


def test_a_path_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot write events to .*choose another file"):
        FileSink(str(tmp_path / "no" / "events.jsonl"))


def test_a_record_that_json_cannot_say_is_counted_and_the_rest_goes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = FileSink(str(path))
    for event in ({"n": 0}, {"n": "\ud800"}, {"n": object()}, {"n": 3}):
        sink.put(event)
    sink.close()
    assert numbers(path) == [0, 3]
    assert sink.dropped == 2


def test_after_close_records_are_counted_as_dropped(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path / "events.jsonl"))
    sink.close()
    sink.put({"n": 0})
    assert sink.dropped == 1


def test_full_device_then_recovery_without_restart(tmp_path: Path) -> None:
    link, good = tmp_path / "events.jsonl", tmp_path / "good.jsonl"
    link.symlink_to("/dev/full")  # every write fails with ENOSPC
    sink = FileSink(str(link), capacity=100)
    sink.put({"n": 0})
    eventually(lambda: sink.problem)
    assert "No space left" in sink.problem
    for n in range(1, 400):
        sink.put({"n": n})
    assert sink.dropped == 299
    link.unlink()
    link.symlink_to(good)
    sink.reopen()
    sink.close()
    assert numbers(good) == list(range(101))
    assert sink.problem == ""


class Fifo:
    """A FIFO whose reader reads only when told."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.text = b""

    def drain(self) -> None:
        os.set_blocking(self.reader, True)
        while chunk := os.read(self.reader, 65536):
            self.text += chunk

    def close(self) -> None:
        os.close(self.reader)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    pipe = Fifo(tmp_path / "fifo")
    yield pipe
    pipe.close()


def put_many(sink: FileSink, count: int) -> float:
    """The longest time that one put took."""
    worst = 0.0
    for n in range(count):
        begin = time.perf_counter()
        sink.put({"n": n, "pad": "x" * 200})
        worst = max(worst, time.perf_counter() - begin)
    return worst


def test_a_reader_that_stands_still_costs_records_and_no_time(fifo: Fifo) -> None:
    sink = FileSink(str(fifo.path), capacity=500)
    worst = put_many(sink, 5000)
    assert worst < 0.05
    assert sink.dropped >= 5000 - 500 - 256 - 65536 // 200
    reader = threading.Thread(target=fifo.drain)
    reader.start()
    sink.close()
    reader.join(10)
    got = [json.loads(line)["n"] for line in fifo.text.splitlines()]
    assert len(got) + sink.dropped == 5000
    assert got == sorted(got)


def test_close_does_not_wait_for_ever_and_counts_what_it_gave_up(fifo: Fifo) -> None:
    sink = FileSink(str(fifo.path), capacity=2000)
    put_many(sink, 1500)
    begin = time.monotonic()
    sink.close(timeout=0.2)
    assert time.monotonic() - begin < 2.0
    fifo.drain()
    whole = fifo.text.count(b"\n")
    assert whole > 0
    assert whole + sink.dropped == 1500


def test_standard_output() -> None:
    program = (
        "from proxy.account.metrics import Counters\n"
        "from proxy.account.sinks import open_sink\n"
        "sink = open_sink('-', Counters())\n"
        "for n in range(300): sink.put({'n': n})\n"
        "sink.close()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=30, check=True
    )
    assert [json.loads(line)["n"] for line in run.stdout.splitlines()] == list(range(300))


def test_drops_show_in_the_counters(tmp_path: Path) -> None:
    counters = Counters()
    sink = open_sink(str(tmp_path / "events.jsonl"), counters)
    assert sink is not None
    sink.close()
    sink.put({})
    assert b"sluicegate_events_dropped_total 1.0" in counters.expose()[0]
    assert open_sink(None, counters) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root and mount")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill_until_stuck(sink: FileSink, event: Callable[[int], dict[str, Any]]) -> int:
    """Put records until the disk is full; how many were put."""
    n = 0
    while not sink.problem:
        sink.put(event(n))
        n += 1
        time.sleep(0)
    return n


@pytest.mark.root
def test_a_full_disk_leaves_no_partial_line_after_recovery(small_disk: Path) -> None:
    path, filler = small_disk / "events.jsonl", small_disk / "filler"
    filler.write_bytes(b"x" * 40_000)
    sink = FileSink(str(path), capacity=50)
    put = fill_until_stuck(sink, lambda n: {"n": n, "pad": "y" * 333})
    assert "No space left" in sink.problem
    filler.unlink()
    eventually(lambda: not sink.problem)
    sink.put({"n": put})
    sink.close()
    assert len(numbers(path)) + sink.dropped == put + 1
    assert numbers(path)[-1] == put


@pytest.mark.root
def test_leaving_a_full_disk_takes_the_begun_line_along(small_disk: Path, tmp_path: Path) -> None:
    link, old, new = tmp_path / "events.jsonl", small_disk / "old", tmp_path / "new"
    link.symlink_to(old)
    sink = FileSink(str(link), capacity=50)
    put = fill_until_stuck(sink, lambda n: {"n": n, "pad": "y" * 333})
    link.unlink()
    link.symlink_to(new)
    sink.reopen()
    sink.close()
    assert old.stat().st_size < 64 * 1024
    together = numbers(old) + numbers(new)
    assert together == sorted(set(together))
    assert len(together) + sink.dropped == put
