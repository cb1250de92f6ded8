"""The whole service with the provider ebpf, as a process of its own, for tests."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ebpf import Group
from tests.support.netns import Namespace

# The shell goes into the cgroup and becomes the command, which keeps its process id.
_INTO = 'echo $$ > "$0/cgroup.procs"; exec "$@"'


def in_group(space: Namespace, group: Group, *command: str, **options: Any) -> str:
    """Run a command to its end in that namespace and cgroup; its standard output."""
    words = ["sh", "-c", _INTO, str(group.directory), *command]
    options = {"capture_output": True, "text": True, "timeout": 30} | options
    return str(space.call(subprocess.run, words, check=False, **options).stdout)


@dataclass
class Running:
    process: subprocess.Popen[str]
    events_file: Path

    def events(self, action: str) -> list[dict[str, Any]]:
        lines = self.events_file.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event.action"] == action]

    def kill(self) -> None:
        """As a crash ends it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def service(
    space: Namespace, group: Group, folder: Path, policy: str, *extra: str, own: Group | None = None
) -> Iterator[Running]:
    """`sluicegate run --redirect ebpf` capturing `group`, ready; SIGTERM must end it with 0."""
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "test.yaml").write_text(policy)
    events = folder / "events.jsonl"
    command = [
        sys.executable, "-m", "proxy", "run", "--redirect", "ebpf", "--policies", str(policies),
        "--events", str(events), "--set", f"redirect.cgroup={group.path}", *extra,
    ]  # fmt: skip
    if own is not None:
        command = ["sh", "-c", _INTO, str(own.directory), *command]
    process = space.call(subprocess.Popen, command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        try:
            line = process.stderr.readline()
            assert " ready: listening on " in line, line + process.stderr.read()
            yield Running(process, events)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            code = process.wait(40)
    assert code in (0, -signal.SIGKILL)
