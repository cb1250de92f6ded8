"""nft(8) as a process: one line is one transaction, and its complaints become RedirectError.

`run` is for tables that stay; `TableOwner` keeps an `nft -i` alive that owns a table, which
the kernel drops with it (`flags owner`, Linux 5.12). It reads from our pipe, so it ends with
us, however we end.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from typing import IO, cast

from proxy.errors import RedirectError

_SECONDS = 10.0  #: for one transaction; a machine with huge rulesets needs more than a blink
_MAX_ANSWER = 65536
# nft answers a line only when something is wrong. A question that it answers without asking
# the kernel marks the end: nft(8) DESCRIBE.
_QUESTION = "describe meta mark"
_ANSWER = b"meta expression, datatype mark"

_HINTS = (
    ("permission denied", "it needs CAP_NET_ADMIN: run as root or grant the capability"),
    ("you must be root", "it needs CAP_NET_ADMIN: run as root or grant the capability"),
    ("cgroupv2 path fails", "there is no such cgroup, or cgroup v2 is not mounted in /sys/fs"),
    (
        "operation not permitted",
        "it needs CAP_NET_ADMIN (run as root or grant the capability), "
        "or another live process owns the table: is another proxy running on this port?",
    ),
    ("operation not supported", "the kernel has no such feature (`flags owner`: Linux 5.12)"),
    ("protocol not supported", "the kernel has no nf_tables: modprobe nf_tables"),
    (
        "no such file or directory",
        "the kernel has no NAT or fib: modprobe nft_chain_nat nft_fib_inet",
    ),
)


class NftTimeout(RedirectError):
    """nft did not answer: its transaction may be in force or not."""


def run(line: str) -> str:
    """Apply one line; nft's answer. Raises RedirectError, NftTimeout."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=line + "\n",
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NftTimeout(f"nft did not answer within {_SECONDS:g} s") from None
    except OSError as error:
        raise _cannot_start(error) from error
    if done.returncode != 0:
        raise explain(done.stderr)
    return done.stdout


def explain(stderr: str) -> RedirectError:
    """nft's complaint as one sentence with what to do about it."""
    lines = [line.strip() for line in stderr.splitlines() if "Error:" in line]
    said = lines[0].partition("Error:")[2].strip() if lines else stderr.strip()[:200]
    known = stderr.lower()
    hint = next((hint for sign, hint in _HINTS if sign in known), "")
    return RedirectError(f"nft: {said or 'failed'}" + (f"; {hint}" if hint else ""))


class TableOwner:
    """A live `nft -i`: tables with `flags owner` made by it vanish with it."""

    def __init__(self) -> None:
        self._process = self._start()
        self._stdin = cast(IO[bytes], self._process.stdin)  # pipes, both of them
        self._stdout = cast(IO[bytes], self._process.stdout)

    def apply(self, line: str) -> None:
        """One transaction. Raises RedirectError, NftTimeout."""
        said = self._say(f"{line}\n{_QUESTION}\n".encode())
        if "Error:" in said:
            raise explain(said)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and wait for it: its tables are gone when this returns."""
        with contextlib.suppress(BrokenPipeError):  # bytes that an ended nft never took
            self._stdin.close()
        self._stdout.close()
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        try:
            # Its own session: a Ctrl-C for us must not take the redirect down before we drain.
            return subprocess.Popen(
                ["nft", "-i"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(),
            )
        except OSError as error:
            raise _cannot_start(error) from error

    def _say(self, text: bytes) -> str:
        try:
            self._stdin.write(text)
            self._stdin.flush()
            return _read_answer(self._stdout.fileno()).decode(errors="replace")
        except BrokenPipeError:
            raise RedirectError("nft ended by itself; its redirect is gone") from None
        except NftTimeout:
            self._process.kill()  # a late answer would be taken for the next one's
            raise


def _read_answer(fd: int) -> bytes:
    """What nft says up to the answer to our question, which is left out."""
    said, deadline = b"", time.monotonic() + _SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while _ANSWER not in said and len(said) < _MAX_ANSWER:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise NftTimeout(f"nft -i did not answer within {_SECONDS:g} s")
            data = os.read(fd, _MAX_ANSWER)
            if not data:
                raise explain(said.decode(errors="replace"))
            said += data
    return said.partition(_ANSWER)[0]


def _environment() -> dict[str, str]:
    """The tools' places, English, and nowhere for `nft -i` to write its history."""
    places = os.environ.get("PATH", os.defpath)
    return {"PATH": f"{places}:/usr/sbin:/sbin", "LC_ALL": "C", "HOME": "/dev/null"}


def _cannot_start(error: OSError) -> RedirectError:
    if isinstance(error, FileNotFoundError):
        return RedirectError("nft is not installed: apt install nftables (or dnf, apk)")
    return RedirectError(f"nft cannot be started: {error.strerror or error}")
