"""`sluicegate explain`: what the policies would do with an exchange, and why.

Either an exchange that the arguments describe, or (`--flow`) one that the event records tell
of. Everything is decided by the code that decides in the service.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.errors import PolicyError
from proxy.model import Confidence, Protocol
from proxy.verbs.output import FINDINGS, OK, RED, USAGE, complain, paint, print_json

if TYPE_CHECKING:
    from proxy.policy.explain import Explainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--policies", metavar="DIR", type=Path, help="policy directory; as in the settings")
    add("--config", metavar="FILE", type=Path, help="settings file (TOML)")
    add("--json", action="store_true", help="print JSON")
    add("--all", action="store_true", help="also rules of other hosts and paths, one by one")
    seen = parser.add_argument_group("a flow that was seen")
    seen.add_argument("--flow", metavar="ID", help="tell its story and explain its exchanges")
    seen.add_argument("--events", metavar="FILE", type=Path, help="event records (JSON lines)")
    _add_given(parser.add_argument_group("an exchange"))


def _add_given(parser: argparse._ArgumentGroup) -> None:
    """The options that describe an exchange; what is left out is unknown, or as on the wire."""
    add = parser.add_argument
    add("--url", help="http://host/path?query; of https:// only what TLS shows is looked at")
    add("--method", default="", help="request method; GET, or POST where there is a --body")
    add("--header", "--request-header", metavar="NAME:VALUE", action="append", default=[])
    add("--body", metavar="TEXT|@FILE", help="content of the request, without coding")
    add("--status", type=_status, metavar="CODE", help="status code of the response")
    add("--response-header", metavar="NAME:VALUE", action="append", default=[])
    add("--response-body", metavar="TEXT|@FILE", help="content of the response, without coding")
    add("--dst", metavar="ADDR:PORT", help="original destination; else as far as the URL says")
    add("--client", metavar="ADDR:PORT", help="the client's address")
    add("--provider", help="redirect provider (nft, ebpf, explicit, static …)")
    add("--app", metavar="PATH", help="principal.exe: the program that makes the connection")
    add("--user", help="principal.user")
    add("--uid", type=int, help="principal.uid")
    add("--pid", type=int, help="principal.pid")
    add("--cgroup", help="principal.cgroup")
    add("--container", help="principal.container")
    add("--package", help="principal.package")
    add("--comm", help="the process's short name: principal.name where there is no --app")
    add("--confidence", choices=[one.value for one in Confidence], help="exact if not given")
    add("--loopback", action="store_true", help="the destination is an address of this machine")
    add("--reauthorize", action="store_true", help="it is open and judged again after a reload")
    add("--sni", help="server name in the TLS ClientHello")
    add("--alpn", metavar="NAME", action="append", default=[], help="offered in the ClientHello")
    add("--protocol", choices=[protocol.value for protocol in Protocol])
    add("--tag", metavar="NAME", action="append", default=[], help="a tag that the flow has")
    add("--time", metavar="YYYY-MM-DDTHH:MM", help="local time; now if not given")


def _status(text: str) -> int:
    if not text.isdigit() or not 100 <= int(text) <= 599:
        raise argparse.ArgumentTypeError(f"{text!r} is not a status code")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: ok, findings (policies that are not usable, no such flow), usage."""
    from proxy.verbs import explain_flow
    from proxy.verbs.given import GivenError

    try:
        if arguments.flow:
            return explain_flow.run(arguments, open_policies)
        if not (arguments.url or arguments.dst or arguments.sni):
            raise GivenError(
                "nothing to explain: give --url, --dst, --sni, or --flow with --events"
            )
        return _explain_given(arguments)
    except GivenError as error:
        complain(f"sluicegate explain: {error}")
        return USAGE
    except PolicyError as error:
        for problem in error.problems:
            print(paint(RED, str(problem)))
        return FINDINGS


def _explain_given(arguments: argparse.Namespace) -> int:
    from proxy.policy.explain_case import explain_case
    from proxy.verbs.explain_json import case_json
    from proxy.verbs.explain_text import print_case
    from proxy.verbs.given import read_case

    explainer = open_policies(arguments)
    case = read_case(arguments)
    steps = explain_case(explainer, case)
    if arguments.json:
        print_json(case_json(case, steps))
    else:
        print_case(case, steps, everything=arguments.all)
    return OK


def open_policies(arguments: argparse.Namespace) -> Explainer:
    """The policies on disk now. Raises PolicyError."""
    from proxy.policy.build import compile_all, load_all
    from proxy.policy.explain import Explainer
    from proxy.policy.files import DirectoryFiles

    files = DirectoryFiles(_directory(arguments))
    loaded = load_all(files.policies(), files.read, files.list_folder)
    generation = compile_all(loaded, 1)
    return Explainer(tuple(p.policy for p in loaded if p.policy is not None), generation)


def _directory(arguments: argparse.Namespace) -> Path:
    if arguments.policies is not None:
        found: Path = arguments.policies
        return found
    from proxy.settings import load_settings

    return load_settings(arguments.config, serving=False).policies_dir()
