"""`sluicegate exec -- COMMAND…`: one command with its connections, and no others, redirected.

Its exit code is the command's, 128 + a signal's number when one killed it; 125 when the
redirect could not be made, 126 and 127 when the command could not be, as of env(1).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from proxy.errors import SettingsError, SluicegateError
from proxy.verbs.output import complain

if TYPE_CHECKING:
    from proxy.account.sinks import EventSink
    from proxy.service.exec import Outcome
    from proxy.service.exec_summary import Tally
    from proxy.settings import Settings

_FAILED = 125
#: Any free port: several run side by side. What is left open may not keep the caller waiting.
_DEFAULTS = {"listen": "127.0.0.1:0", "admin.listen": "127.0.0.1:0", "times.drain_seconds": "2s"}
_ALL_PORTS = "1-65535"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "sluicegate exec [options] -- COMMAND [ARGUMENT ...]"
    add = parser.add_argument
    add("--policies", metavar="DIR", help="directory of policy files, watched (the shipped ones)")
    add("--events", metavar="FILE|-", help="event records as JSON lines")
    add("--summary", action="store_true", help="say on stderr what was seen, blocked, changed")
    add("--json", action="store_true", help="the summary as JSON")
    add(
        "--via",
        choices=("auto", "ebpf", "nft", "env"),
        default="auto",
        help="how connections get to the proxy; env: by the variables that name a proxy",
    )
    ports = parser.add_mutually_exclusive_group()
    ports.add_argument("--ports", metavar="LIST", help="TCP ports to redirect: 80,8000-8100")
    ports.add_argument("--all-ports", action="store_true", help="redirect every TCP port")
    add("--include-loopback", action="store_true", help="also connections to this machine")
    add("--as-user", metavar="NAME", help="run the command as this user (root only)")
    add(
        "--linger",
        metavar="SECONDS",
        type=_seconds,
        default=2.0,
        help="wait so long for children that outlive the command; inf: for all of them (2)",
    )
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_pair,
        help="any other setting, e.g. --set redirect.exclude=10.0.0.0/8",
    )
    add("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run")


def run(arguments: argparse.Namespace) -> int:
    """The command's exit code."""
    words = arguments.command
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        complain("sluicegate exec: no command; write: sluicegate exec [options] -- COMMAND …")
        return _FAILED
    try:
        return _run(arguments, words)
    except SettingsError as error:
        complain(f"sluicegate exec: these settings are not usable:\n{error}")
    except SluicegateError as error:
        complain(f"sluicegate exec: {error}")
    return _FAILED


def _run(arguments: argparse.Namespace, words: list[str]) -> int:
    from proxy.service.exec import Plan, run_command, ways_of
    from proxy.service.exec_command import User
    from proxy.service.exec_summary import Tally

    tallies: list[Tally] = []  # one for each way in that was tried; the last is in force

    def observe(sink: EventSink | None) -> Tally:
        tallies.append(Tally(sink))
        return tallies[-1]

    plan = Plan(
        words,
        ways_of(arguments.via),
        _settings(arguments),
        user=User.named(arguments.as_user) if arguments.as_user else None,
        linger=arguments.linger,
        observe=observe if arguments.summary or arguments.json else None,
    )
    outcome = run_command(plan)
    if tallies:
        _print(tallies[-1], outcome, as_json=arguments.json)
    return outcome.code


def _settings(arguments: argparse.Namespace) -> Callable[[Mapping[str, object]], Settings]:
    """Settings for one way in: our defaults, what the user asked for, and what the way needs."""
    from proxy.settings import load_settings

    asked = {"policies": arguments.policies, "events.path": arguments.events}
    if arguments.ports or arguments.all_ports:
        asked["redirect.ports"] = arguments.ports or _ALL_PORTS
    flags = {key: value for key, value in asked.items() if value is not None}
    if arguments.include_loopback:
        flags["redirect.include_loopback"] = True
    names = {"policies": "--policies", "events.path": "--events", "redirect.ports": "--ports"}
    chosen = {**_DEFAULTS, **flags, **dict(arguments.set)}
    return lambda way: load_settings(flags={**chosen, **way}, flag_names=names)


def _print(tally: Tally, outcome: Outcome, *, as_json: bool) -> None:
    """On stderr: standard output is the command's."""
    from proxy.service.exec_summary import summary_lines

    if as_json:
        way = {"via": outcome.via, "instead_of": outcome.instead_of, "exit_code": outcome.code}
        told = {**way, **tally.as_dict()}
        complain(json.dumps(told, indent=2))
        return
    complain(f"--- sluicegate: via {outcome.via}, exit code {outcome.code}")
    for reason in outcome.instead_of:
        complain(f"    instead of   {reason}")
    for line in summary_lines(tally):
        complain(f"    {line}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE")
    return key.strip(), value.strip()


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds, or inf")
    return seconds
