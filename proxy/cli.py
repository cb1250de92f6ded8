"""The command `sluicegate`: one function per verb, from arguments to an exit code.

Exit codes: 0 ok, 1 findings or refused, 2 usage, 3 cannot start. What a verb needs is
imported when it runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from proxy import __version__
from proxy.errors import PolicyError, SettingsError, SluicegateError, StartError
from proxy.verbs.output import (
    CANNOT_START,
    FINDINGS,
    OK,
    USAGE,
    complain,
    paint,
    print_json,
    shown,
)

if TYPE_CHECKING:
    from proxy.settings import Settings

_EPILOG = (
    "exit codes: 0 ok; 1 findings (check, test), refused (reload), or no answer (status, reload); "
    "2 usage: arguments or settings that are not right; 3 cannot start"
)
#: Verbs that are modules of proxy.verbs, and what they are for.
_MODULES = {
    "exec": "Run one command with its connections, and no others, redirected through the proxy.",
    "doctor": "Say what works on this machine, and what to do about what does not.",
    "check": "Validate the policies of a directory; every error with its place.",
    "explain": "Say which rules look at an exchange, which match, and why the others do not.",
    "redirect": "Install, confirm, remove or show a redirect that stands apart from the proxy.",
    "test": "Run the tests that are written beside the rules of a directory.",
    "service": "Make Sluicegate a service of this machine: systemd, or Windows.",
}
#: From a flag's name to the setting that it overrides.
_FLAGS = {
    "listen": "listen",
    "redirect": "redirect.provider",
    "upstream": "redirect.upstream",
    "policies": "policies",
    "admin": "admin.listen",
    "events": "events.path",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Mistakes of the user give one sentence on stderr, never a traceback."""
    arguments = _parser().parse_args(argv)
    verb: Callable[[argparse.Namespace], int] = arguments.verb
    try:
        code = verb(arguments)
        sys.stdout.flush()
        return code
    except SettingsError as error:
        complain(f"sluicegate: these settings are not usable:\n{error}")
        return USAGE
    except StartError as error:
        complain(f"sluicegate: cannot start: {error}")
        return CANNOT_START
    except PolicyError as error:
        complain(f"sluicegate: these policies are not usable:\n{error}")
        return FINDINGS
    except SluicegateError as error:
        complain(f"sluicegate: {error}")
        return FINDINGS
    except BrokenPipeError:
        # `| head` has seen enough; without this the interpreter's last flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINDINGS
    except KeyboardInterrupt:
        return FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluicegate",
        description="An inline HTTP/TCP proxy that enforces stream-layer policy.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"sluicegate {__version__}")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text, epilog=_EPILOG)
        sub.set_defaults(verb=function)
        return sub

    _run_arguments(verb("run", run, "Serve in the foreground until SIGTERM."))
    for name, text in _MODULES.items():
        module = import_module(f"proxy.verbs.{name}")
        module.add_arguments(verb(name, module.run, text))
    sub = verb("schema", schema, "Print the JSON Schema of the policy language.")
    sub.add_argument("--tests", action="store_true", help="that of *_test.yaml files")
    sub = verb("layers", layers, "List every FWPM_LAYER_* and who serves it.")
    sub.add_argument("--conditions", action="store_true", help="every FWPM_CONDITION_* instead")
    sub.add_argument("--served", choices=("proxy", "redirector", "none"), help="only these")
    _json_flag(sub)
    for name, function, text in (
        ("status", status, "Show what a running service is doing."),
        ("reload", reload, "Make a running service read its policies again."),
    ):
        sub = verb(name, function, text)
        sub.add_argument("--config", metavar="FILE", type=Path, help="settings file (TOML)")
        sub.add_argument("--admin", metavar="ADDR:PORT", help="admin endpoint of the service")
        _json_flag(sub)
    sub = verb("demo", demo, "Show the main job with real requests; each is checked.")
    sub.add_argument("--loopback", action="store_true", help="no nftables redirect, even as root")
    _json_flag(verb("version", version, "Print the version, and those of what it stands on."))
    return parser


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="settings file (TOML)")
    add("--listen", metavar="ADDR:PORT", help="where redirected connections arrive")
    providers = ("static", "explicit", "nft", "tproxy", "ebpf")
    add("--redirect", choices=providers, help="how connections get here")
    add("--upstream", metavar="ADDR:PORT", help="destination of the static provider")
    add("--policies", metavar="DIR", help="directory of policy files, watched")
    add("--admin", metavar="ADDR:PORT", help="metrics, status and reload")
    add("--events", metavar="FILE|-", help="event records as JSON lines")
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_pair,
        help="any other setting, e.g. --set limits.head_bytes=32KiB",
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE")
    return key.strip(), value.strip()


# --- verbs


def run(arguments: argparse.Namespace) -> int:
    """Serve. What keeps it from starting is exit code 3."""
    from proxy.service import app

    return app.run(_settings(arguments))


def schema(arguments: argparse.Namespace) -> int:
    """The policy language for editors."""
    from proxy.policy.jsonschema import policy_schema, tests_schema

    made = tests_schema() if arguments.tests else policy_schema()
    print(json.dumps(made, indent=2, sort_keys=True))
    return OK


def layers(arguments: argparse.Namespace) -> int:
    """The catalogue of the platform's layers, or of its filtering conditions."""
    from proxy.layers import LayerRow, catalogue
    from proxy.layers.conditions import ConditionRow, conditions

    every: Sequence[LayerRow | ConditionRow] = conditions() if arguments.conditions else catalogue()
    rows = [row for row in every if arguments.served in (None, row.served_by)]
    if arguments.json:
        print_json([row.as_dict() for row in rows])
        return OK
    for row in rows:
        colour = {"proxy": "32", "redirector": "36", "none": "90"}[row.served_by]
        ours = row.fields if isinstance(row, ConditionRow) else (row.layer or "",)
        served = f"{row.served_by} as {', '.join(ours)}" if any(ours) else row.served_by
        print(f"{row.name}  {row.guid}\n    {paint(colour, served)}: {row.why}")
    return OK


def status(arguments: argparse.Namespace) -> int:
    """Ask the admin endpoint."""
    from proxy.service.client import fetch_status

    settings = _settings(arguments, serving=False)
    answer = fetch_status(settings.admin_endpoint(), settings.admin_token())
    if arguments.json:
        print_json(answer)
        return OK
    for key, value in answer.items():
        print(f"{key:16} {shown(value)}")
    return OK


def reload(arguments: argparse.Namespace) -> int:
    """Ask the admin endpoint; refused policies are exit code 1 and printed with their places."""
    from proxy.service.client import request_reload

    settings = _settings(arguments, serving=False)
    answer = request_reload(settings.admin_endpoint(), settings.admin_token())
    if arguments.json:
        print_json(answer)
    elif answer.get("ok"):
        print(paint("32", f"ok: generation {answer['generation']}"))
    else:
        for problem in answer.get("problems", []):
            print(paint("31", str(problem)))
        print(f"refused; generation {answer.get('generation')} stays in force")
    return OK if answer.get("ok") else FINDINGS


def demo(arguments: argparse.Namespace) -> int:
    """The main job, shown."""
    from proxy.service.demo import run_demo

    return run_demo(paint, loopback=arguments.loopback)


def version(arguments: argparse.Namespace) -> int:
    """For bug reports."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    answer = {"sluicegate": __version__, "python": sys.version.split()[0], "system": sys.platform}
    for package in ("h11", "pydantic", "PyYAML", "google-re2", "uvloop", "winloop"):
        try:
            answer[package] = installed(package)
        except PackageNotFoundError:
            continue  # the other system's event loop
    if arguments.json:
        print_json(answer)
    else:
        print("\n".join(f"{name:10} {number}" for name, number in answer.items()))
    return OK


# --- shared


def _settings(arguments: argparse.Namespace, *, serving: bool = True) -> Settings:
    from proxy.settings import load_settings

    flags: dict[str, object] = dict(getattr(arguments, "set", []))
    for name, key in _FLAGS.items():
        if (value := getattr(arguments, name, None)) is not None:
            flags[key] = value
    names = {key: f"--{name}" for name, key in _FLAGS.items()}
    return load_settings(arguments.config, flags=flags, flag_names=names, serving=serving)
