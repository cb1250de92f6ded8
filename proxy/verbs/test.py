"""`sluicegate test DIR`: the tests written beside the rules, run by the real engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from proxy.verbs.output import FINDINGS, OK, complain, paint, print_json

_MOST_CUTS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", metavar="DIR", type=Path, help="policies and tests, or one file of them")
    add("-k", dest="pattern", metavar="TEXT", default="", help="tests whose name or file has it")
    add("--cuts", metavar="N", type=_cuts, default=8, help="random cuts of each test (8)")
    add("--seed", metavar="N", type=int, default=0, help="of the random cuts (0)")
    add(
        "--min-coverage",
        metavar="PERCENT",
        type=_percent,
        default=0.0,
        help="fail when fewer of the rules acted in some test",
    )
    add("-q", "--quiet", action="store_true", help="only what failed, and the summary")
    add("--json", action="store_true", help="print JSON")


def _cuts(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MOST_CUTS:
        raise argparse.ArgumentTypeError(f"{text}: 0 to {_MOST_CUTS}")
    return number


def _percent(text: str) -> float:
    number = float(text.removesuffix("%"))
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text}: 0 to 100")
    return number


def run(arguments: argparse.Namespace) -> int:
    """0: every test holds and enough rules are covered; 1: not, or there is no test."""
    from proxy.policytest.load import load_suites
    from proxy.policytest.report import as_json, result_lines, summary_lines
    from proxy.policytest.run import Options, Result, run_suites

    def tell(result: Result) -> None:
        if not arguments.json and not (arguments.quiet and result.ok):
            print("\n".join(result_lines(result, paint)), flush=True)

    suites = load_suites(arguments.path)
    options = Options(arguments.cuts, arguments.seed, arguments.pattern)
    report = run_suites(suites, options, tell)
    if arguments.json:
        print_json(as_json(report, arguments.seed, arguments.cuts))
    elif report.results:
        print("\n".join(summary_lines(report, paint)))
    if not report.results:
        which = f" whose name has {arguments.pattern!r}" if arguments.pattern else ""
        complain(f"sluicegate: there is no test{which} in {arguments.path}")
        return FINDINGS
    if report.percent < arguments.min_coverage:
        wanted = f"{arguments.min_coverage:g}% are wanted"
        complain(f"sluicegate: {report.percent:.1f}% of the rules are covered, {wanted}")
        return FINDINGS
    return FINDINGS if report.failed else OK
