"""The command line: verbs, exit codes, and what is said to whom."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from proxy import __version__, cli

ROOT = Path(__file__).parents[3]
VERBS = ("run", "check", "explain", "test", "schema", "layers", "status", "reload", "demo")
VERBS += ("version", "service")
GOOD = "version: 1\npolicy: p\ndescription: One rule.\nrules:\n  - id: r\n    layer: http_request\n"
GOOD += "    when: {path: /x}\n    then: {block: {status: 403}}\n"
BAD = GOOD.replace("http_request", "http_reqest").replace("path:", "pth:")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLUICEGATE_CONFIG", "NO_COLOR", "SLUICEGATE_ADMIN__LISTEN"):
        monkeypatch.delenv(name, raising=False)


def usage_error(*arguments: str) -> None:
    """argparse ends by itself; its code is `usage`."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == cli.USAGE


@contextmanager
def admin(answers: dict[str, tuple[int, dict[str, Any]]]) -> Iterator[str]:
    """A stand-in for the admin endpoint of a running service; its address."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            status, answer = answers[f"{self.command} {self.path}"]
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


# --- help and usage


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_names_the_exit_codes(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == cli.OK
    out = capsys.readouterr().out
    assert out.startswith(f"usage: sluicegate {verb}")
    assert "exit codes: 0 ok; 1 findings" in out


def test_help_lists_every_verb_and_imports_next_to_nothing() -> None:
    code = "import sys; from proxy.cli import main\ntry: main(['--help'])\n"
    code += "finally: print(*(m for m in ('pydantic', 'asyncio', 'yaml') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    *shown, imported = done.stdout.splitlines()
    assert imported == ""
    for verb in VERBS:
        assert re.search(rf"(?m)^    {verb} +\w", "\n".join(shown))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("serve",),
        ("run", "--redirect", "magic"),
        ("run", "--set", "limits.head_bytes"),
        ("check",),
        ("layers", "--served", "nobody"),
    ],
)
def test_wrong_arguments_are_usage(arguments: tuple[str, ...]) -> None:
    usage_error(*arguments)


def test_settings_that_are_not_right_are_usage_and_say_which(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "s.toml").write_text("[limits]\nhead_byte = 1\n", encoding="utf-8")
    arguments = ["run", "--config", str(tmp_path / "s.toml"), "--listen", "nowhere"]
    assert cli.main([*arguments, "--set", "times.conect_seconds=1"]) == cli.USAGE
    err = capsys.readouterr().err
    assert "s.toml:2:1: limits.head_byte: there is no such setting" in err
    assert "--listen: listen: 'nowhere' is not ADDRESS:PORT" in err
    assert "--set: times.conect_seconds: there is no such setting" in err
    assert "Traceback" not in err


# --- run


def test_a_taken_port_is_cannot_start_in_one_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(GOOD, encoding="utf-8")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["run", "--redirect", "explicit", "--policies", str(tmp_path)]
        code = cli.main([*arguments, "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0"])
    assert code == cli.CANNOT_START
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"sluicegate: cannot start: cannot listen on 127.0.0.1:{port}")


# --- check, schema, version


def test_check_says_ok(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD, encoding="utf-8")
    assert cli.main(["check", str(tmp_path)]) == cli.OK
    assert capsys.readouterr().out == "ok: 1 policy, 1 rule\n"


def test_check_tells_every_mistake_with_its_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(BAD, encoding="utf-8")
    assert cli.main(["check", str(tmp_path)]) == cli.FINDINGS
    first, second, total = capsys.readouterr().out.splitlines()
    assert "p.yaml:6:12: " in first
    assert "http_request" in first
    assert "p.yaml:7:12: " in second
    assert total == "2 problems"


def test_check_speaks_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(BAD, encoding="utf-8")
    assert cli.main(["check", "--json", str(tmp_path)]) == cli.FINDINGS
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert [(p["line"], p["column"]) for p in answer["problems"]] == [(6, 12), (7, 12)]


def test_check_of_a_directory_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["check", str(tmp_path / "absent")]) == cli.FINDINGS
    assert "absent" in capsys.readouterr().out


def test_schema_is_json_in_a_fixed_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == cli.OK
    out = capsys.readouterr().out
    assert out == json.dumps(json.loads(out), indent=2, sort_keys=True) + "\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version", "--json"]) == cli.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["sluicegate"] == __version__
    assert {"python", "h11", "pydantic"} <= set(answer)


# --- status and reload


def test_status_is_shown_line_by_line_or_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"state": "ready", "listen": ["a", "b"], "last_reload": {"ok": True, "at": None}}
    with admin({"GET /status": (200, answer)}) as address:
        assert cli.main(["status", "--admin", address]) == cli.OK
        assert [line.split(None, 1) for line in capsys.readouterr().out.splitlines()] == [
            ["state", "ready"],
            ["listen", "a, b"],
            ["last_reload", "ok yes, at -"],
        ]
        assert cli.main(["status", "--json", "--admin", address]) == cli.OK
        assert json.loads(capsys.readouterr().out) == answer


def test_a_taken_reload_is_ok_and_a_refused_one_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = {"ok": True, "generation": 3, "problems": []}
    with admin({"POST /-/reload": (200, good)}) as address:
        assert cli.main(["reload", "--admin", address]) == cli.OK
    assert capsys.readouterr().out == "ok: generation 3\n"
    bad = {"ok": False, "generation": 3, "problems": ["p.yaml:1:2: no"]}
    with admin({"POST /-/reload": (422, bad)}) as address:
        assert cli.main(["reload", "--admin", address]) == cli.FINDINGS
    out = capsys.readouterr().out
    assert out == "p.yaml:1:2: no\nrefused; generation 3 stays in force\n"


@pytest.mark.parametrize("verb", ["status", "reload"])
def test_no_service_there_is_one_sentence(
    verb: str, closed_port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--admin", closed_port]) == cli.FINDINGS
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"sluicegate: nothing listens on {closed_port}")
    assert captured.err.count("\n") == 1


def test_status_finds_the_service_by_its_settings_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with admin({"GET /status": (200, {"state": "ready"})}) as address:
        (tmp_path / "s.toml").write_text(f'[admin]\nlisten = "{address}"\n', encoding="utf-8")
        assert cli.main(["status", "--config", str(tmp_path / "s.toml")]) == cli.OK
    assert "ready" in capsys.readouterr().out


# --- colour and pipes


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"),
    [(True, None, True), (True, "1", False), (True, "", True), (False, None, False)],
)
def test_colour_only_on_a_terminal_that_wants_it(
    terminal: bool,
    no_color: str | None,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "p.yaml").write_text(GOOD, encoding="utf-8")
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert cli.main(["check", str(tmp_path)]) == cli.OK
    assert ("\x1b[" in capsys.readouterr().out) is coloured


@pytest.mark.parametrize("verb", ["layers", "version"])
def test_a_reader_that_has_gone_is_no_traceback(verb: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "proxy", verb],
            cwd=ROOT,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (cli.FINDINGS, b"")
