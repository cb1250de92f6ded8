"""`sluicegate explain --flow ID`: what the event records tell of a flow, and why it was so.

The story is what happened; the explanation is by the policies that are on disk now, which may
be others, and by what records hold, which is not everything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proxy.policy.explain import Explainer
from proxy.policy.explain_case import Case, Step, explain_case
from proxy.verbs.explain_json import case_json
from proxy.verbs.explain_text import print_case
from proxy.verbs.flow_events import Event, FlowRecords, case_of, read_flow
from proxy.verbs.flow_story import headline, line
from proxy.verbs.given import GivenError
from proxy.verbs.output import FINDINGS, OK, YELLOW, complain, count, paint, print_json

_MOST = 20  #: exchanges that are explained one by one
_NOT_HELD = (
    "records hold no header values but the user agent and the media types, no cookies, no bodies;"
    " rules that rest on those depend"
)


def run(
    arguments: argparse.Namespace,
    open_policies: Callable[[argparse.Namespace], Explainer],
) -> int:
    records = read_flow(_events_file(arguments), arguments.flow)
    if not records.events:
        complain(f"sluicegate explain: there is no record of the flow {arguments.flow}")
        return FINDINGS
    explainer = open_policies(arguments)
    asked = records.exchanges or records.events[-1:]
    explained = [(event, *_explain(explainer, event)) for event in asked[:_MOST]]
    if arguments.json:
        print_json(_as_json(records, explained))
    else:
        _print(records, explained, len(asked), everything=arguments.all)
    return OK


def _events_file(arguments: argparse.Namespace) -> Path:
    if arguments.events is not None:
        found: Path = arguments.events
        return found
    from proxy.settings import load_settings

    path = load_settings(arguments.config, serving=False).events.path
    if path is None or path == "-":
        raise GivenError("--flow needs --events FILE: the settings name no file of records")
    return Path(path)


def _explain(explainer: Explainer, event: Event) -> tuple[Case, tuple[Step, ...]]:
    case = case_of(event, explainer.sources.values())
    return case, explain_case(explainer, case)


Explained = tuple[Event, Case, tuple[Step, ...]]


def _print(
    records: FlowRecords, explained: Sequence[Explained], asked: int, *, everything: bool
) -> None:
    print(headline(records.events[-1]))
    for event in records.events:
        print(line(event))
    for note in _notes(records):
        print(paint(YELLOW, f"note: {note}"))
    for event, case, steps in explained:
        number = event.get("sluicegate.exchange")
        print(f"\n--- by the policies on disk now: {_named(number)}")
        print_case(case, steps, everything=everything)
        for difference in differences(event, steps):
            print(paint(YELLOW, difference))
    if asked > len(explained):
        print(f"\nand {count(asked - len(explained), 'exchange')} more")


def _named(number: object) -> str:
    return "the connection" if number is None else f"exchange {number}"


def _notes(records: FlowRecords) -> list[str]:
    """What may make the explanation differ from what happened."""
    notes = [_NOT_HELD]
    key = "sluicegate.policy.generation"
    used = {event[key] for event in records.events if isinstance(event.get(key), int)}
    told = ", ".join(map(str, sorted(used))) or "not told"
    if records.restarted:
        notes.append(f"the service was started again since; generations of this flow: {told}")
    elif records.generation is not None and used and records.generation not in used:
        notes.append(
            f"the policies have changed since: generation {told} decided then,"
            f" {records.generation} was the last one"
        )
    else:
        notes.append(f"generation {told} decided; the policies on disk may be others by now")
    if records.unread:
        notes.append(f"{count(records.unread, 'line')} of the file could not be read")
    return notes


def differences(event: Event, steps: Sequence[Step]) -> list[str]:
    """Rules that acted on the exchange then and not now, and the other way round."""
    if event.get("event.action") != "EXCHANGE":
        return []
    then = {*event.get("sluicegate.rules", ()), *event.get("sluicegate.shadow_rules", ())}
    now = {
        hit.rule
        for step in steps
        if step.layer.value.startswith("http_") and step.ruling is not None
        for hit in step.ruling.hits
    }
    found = []
    if then - now:
        found.append(f"acted then, and does not now: {', '.join(sorted(then - now))}")
    if now - then:
        found.append(f"acts now, and did not then: {', '.join(sorted(now - then))}")
    return found


def _as_json(records: FlowRecords, explained: Sequence[Explained]) -> dict[str, Any]:
    return {
        "flow": records.events[-1].get("sluicegate.flow.id"),
        "events": records.events,
        "notes": _notes(records),
        "explained": [
            {
                "exchange": event.get("sluicegate.exchange"),
                "differences": differences(event, steps),
                **case_json(case, steps),
            }
            for event, case, steps in explained
        ],
    }
