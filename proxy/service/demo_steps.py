"""The steps of `sluicegate demo`: each asks, checks, and yields what there is to see.

A step's docstring is its title. A step that does not see what it should raises Mismatch.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from proxy.service.demo_origin import PAGE, PLAIN, RECORD, SERVER
from proxy.service.demo_world import HOST, Answer, World, wait_until

_RELOAD_SECONDS = 5.0
_BANNER = "<p>Traffic on this network is inspected.</p>"
FIRST_POLICY = f"""\
version: 1
policy: demo
description: What the demo shows.
rules:
  - id: no-admin
    layer: http_request
    when: {{path: "/admin*"}}
    then: {{block: {{status: 403, reason: "Not from here."}}}}
  - id: hide-server
    layer: http_response
    then: {{headers: {{remove: [Server], set: {{X-Content-Type-Options: nosniff}}}}}}
  - id: banner
    layer: http_response
    when: {{all: [{{content_type: text/html}}, {{status: 200}}]}}
    then: {{inject_banner: {{html: "{_BANNER}", at: body_start}}}}
  - id: cards
    layer: http_response
    then: {{replace_body: [{{regex: '(?:\\d{{4}} ){{3}}(\\d{{4}})', by: '**** \\1'}}]}}
  - id: keys
    layer: http_request_body
    when: {{body: BEGIN PRIVATE KEY}}
    then: {{block: {{reason: "Keys stay here."}}}}
  - id: uploads
    description: Only says what it would do.
    layer: http_request
    mode: shadow
    when: {{method: POST}}
    then: {{block: {{status: 403}}}}
"""
_NEW_RULE = """\
  - id: no-coupons
    layer: http_request
    when: {path: /coupon}
    then: {block: {status: 451, reason: "Out of coupons."}}
"""
_BROKEN_RULE = """\
  - id: mistaken
    layer: http_reqest
    when: {pth: /coupon}
    then: {block: {status: 4030}}
"""


class Mismatch(Exception):
    """The step saw something else than it should."""


def _expect(seen: object, wanted: object, what: str) -> None:
    if seen != wanted:
        raise Mismatch(f"{what}: {seen!r} instead of {wanted!r}")


def _line(path: str, answer: Answer, method: str = "GET") -> str:
    return f"{method} http://{HOST}{path} -> {answer.status} {answer.reason}"


def permit(world: World) -> Iterator[str]:
    """A request that no rule minds passes, byte for byte"""
    answer = world.ask("/fox.txt")
    yield _line("/fox.txt", answer)
    yield answer.body.decode().strip()
    _expect((answer.status, answer.body), (200, PLAIN), "status and body")


def block(world: World) -> Iterator[str]:
    """A forbidden path gets a page; the origin never hears of it"""
    before = int(world.ask("/fox.txt").headers["X-Requests-Seen"])
    answer = world.ask("/admin/users")
    yield _line("/admin/users", answer)
    page = answer.body.decode()
    yield next((line.strip() for line in page.splitlines() if "Not from here." in line), "")
    _expect(answer.status, 403, "status")
    _expect("Not from here." in page, True, "the reason is on the page")
    after = int(world.ask("/fox.txt").headers["X-Requests-Seen"])
    yield f"requests that the origin saw meanwhile: {after - before - 1}"
    _expect(after - before, 1, "requests at the origin")


def rewrite(world: World) -> Iterator[str]:
    """Response headers are rewritten on their way"""
    answer = world.ask("/fox.txt")
    yield f"Server: {answer.headers['Server'] or '(removed)'} (the origin sent {SERVER})"
    yield f"X-Content-Type-Options: {answer.headers['X-Content-Type-Options']} (added)"
    _expect(answer.headers["Server"], None, "Server")
    _expect(answer.headers["X-Content-Type-Options"], "nosniff", "X-Content-Type-Options")


def banner(world: World) -> Iterator[str]:
    """An HTML page gets a banner"""
    answer = world.ask("/index.html")
    yield _line("/index.html", answer)
    yield answer.body.decode().strip()
    wanted = PAGE.replace(b"<body>", b"<body>" + _BANNER.encode())
    _expect(answer.body, wanted, "the page")


def redact(world: World) -> Iterator[str]:
    """A card number is taken out of a gzip body, in flight; the coding stays"""
    answer = world.ask("/record.json")
    yield _line("/record.json", answer)
    yield f"Content-Encoding: {answer.headers['Content-Encoding']}"
    text = gzip.decompress(answer.body)
    yield text.decode().strip()
    _expect(text, RECORD.replace(b"4111 1111 1111 1111", b"**** 1111"), "the record")


def search(world: World) -> Iterator[str]:
    """An upload is refused for what it holds; what was found never leaves"""
    body = b"x" * 1000 + b"-----BEGIN PRIVATE KEY-----" + b"y" * 1000
    answer = world.ask("/upload", "POST", body)
    yield _line("/upload", answer, "POST")
    _expect((answer.status, b"Keys stay here." in answer.body), (403, True), "status and page")


def shadow(world: World) -> Iterator[str]:
    """A rule in shadow mode lets pass, and says what it would have done"""
    answer = world.ask("/upload", "POST", b"x" * 100)
    yield _line("/upload", answer, "POST")
    _expect((answer.status, answer.body), (200, b"took 100 bytes\n"), "status and body")
    event = _event(world, lambda e: e.get("rule.id") == "uploads" and e.get("sluicegate.shadow"))
    yield _short(event, "event.action", "rule.id", "sluicegate.verdict", "sluicegate.shadow")
    _expect(event["sluicegate.verdict"], "block", "the verdict that would have been")


def hot_reload(world: World) -> Iterator[str]:
    """The policy file is edited: the next request of the same connection is judged by it"""
    connection = world.connect()
    first = world.ask("/coupon", on=connection)
    yield f"{_line('/coupon', first)}  (client port {first.port})"
    before = world.status()["generation"]
    world.write_policy(FIRST_POLICY + _NEW_RULE)
    after = wait_until(lambda: _newer_generation(world, before), _RELOAD_SECONDS)
    yield f"demo.yaml gets the rule no-coupons; generation {before} -> {after}"
    second = world.ask("/coupon", on=connection)
    yield f"{_line('/coupon', second)}  (client port {second.port})"
    connection.close()
    _expect((first.status, second.status), (200, 451), "statuses before and after")
    _expect(second.port, first.port, "the connection")


def refuse_broken(world: World) -> Iterator[str]:
    """A broken policy is refused with exact places; traffic goes on under the old one"""
    before = world.status()["generation"]
    world.write_policy(FIRST_POLICY + _NEW_RULE + _BROKEN_RULE)
    answer = world.reload()
    yield from (problem.replace(f"{world.policies}{os.sep}", "") for problem in answer["problems"])
    _expect(answer["ok"], False, "the reload")
    lines = (FIRST_POLICY + _NEW_RULE + _BROKEN_RULE).splitlines()
    for word in ("http_reqest", "pth", "4030"):
        line = next(number for number, text in enumerate(lines, 1) if word in text)
        place = f"demo.yaml:{line}:{lines[line - 1].index(word) + 1}:"
        _expect(any(place in problem for problem in answer["problems"]), True, f"told at {place}")
    passed, blocked = world.ask("/fox.txt"), world.ask("/coupon")
    yield f"meanwhile: {_line('/fox.txt', passed)}, {_line('/coupon', blocked)}"
    _expect((passed.status, blocked.status), (200, 451), "statuses")
    _expect(world.status()["generation"], before, "the generation in force")


def events(world: World) -> Iterator[str]:
    """Every exchange left its record (JSON lines; excerpt)"""
    blocked = _event(world, lambda e: e.get("url.path") == "/admin/users")
    closed = _event(world, lambda e: e.get("event.action") == "ENDPOINT_CLOSURE")
    refused = _event(
        world,
        lambda e: e.get("event.action") == "POLICY_RELOAD" and e.get("event.outcome") == "failure",
    )
    yield _short(blocked, "event.action", "url.path", "sluicegate.outcome", "rule.id")
    yield _short(closed, "event.action", "source.bytes", "destination.bytes", "sluicegate.outcome")
    yield _short(refused, "event.action", "event.outcome", "sluicegate.policy.problem_count")
    _expect(blocked.get("rule.id"), "no-admin", "the rule in the record")


def metrics(world: World) -> Iterator[str]:
    """Prometheus can scrape it (/metrics, excerpt)"""
    text = world.metrics()
    wanted = (
        'sluicegate_decisions_total{layer="http_request",rule="no-admin",verdict="block"} 1.0',
        'sluicegate_exchanges_total{outcome="blocked",protocol="http1"} 4.0',
        "sluicegate_policy_last_reload_successful 0.0",
    )
    samples = text.splitlines()
    yield from (line for line in samples if line.startswith(tuple(w.split(" ")[0] for w in wanted)))
    for line in wanted:
        _expect(line in samples, True, line)


def stop(world: World) -> Iterator[str]:
    """SIGTERM ends it, and leaves nothing behind"""
    code = world.stop()
    yield f"exit code {code}"
    _expect(code, 0, "exit code")
    leftovers = world.leftovers()
    yield f"left behind: {', '.join(leftovers) or 'no listener, no redirect'}"
    _expect(leftovers, [], "what is left")


STEPS: tuple[Callable[[World], Iterator[str]], ...] = (
    permit,
    block,
    rewrite,
    banner,
    redact,
    search,
    shadow,
    hot_reload,
    refuse_broken,
    events,
    metrics,
    stop,
)


def _newer_generation(world: World, before: int) -> int | None:
    number: int = world.status()["generation"]
    return number if number > before else None


def _event(world: World, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first such record; they are written a moment after they happen."""

    def look() -> dict[str, Any] | None:
        return next((event for event in world.events() if wanted(event)), None)

    found = wait_until(look, _RELOAD_SECONDS)
    if found is None:
        raise Mismatch("there is no such event")
    return found


def _short(event: dict[str, Any], *fields: str) -> str:
    shown = ", ".join(f'"{name}": {json.dumps(event.get(name))}' for name in fields)
    return f"{{..., {shown}, ...}}"
