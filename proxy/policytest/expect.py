"""What was expected against what was seen, as two lists of lines that are equal where they agree.

A difference of the lists is the report; one name on both sides is the context.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from proxy.limits import Cause
from proxy.policy.cases import (
    ExpectModel,
    HeaderExpect,
    RequestExpect,
    ResponseExpect,
    StreamExpect,
)
from proxy.policy.lists import octets as octet_string
from proxy.policy.regex import compile_regex
from proxy.policytest.given import ReadFile, octets
from proxy.policytest.messages import Seen
from proxy.policytest.outcome import Outcome

#: Bytes of a body that a report shows, and of them how many before the first difference.
_MOST = 4000
_BEFORE = 200


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation: its lines, and those of what was seen (the same when it holds)."""

    expected: tuple[str, ...]
    seen: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.expected == self.seen


def diff(checks: Iterable[Check]) -> list[str]:
    """A unified diff; empty when everything holds."""
    expected: list[str] = []
    seen: list[str] = []
    for check in checks:
        expected += check.expected
        seen += check.seen
    return list(difflib.unified_diff(expected, seen, "expected", "seen", lineterm=""))


def checks_of(expect: ExpectModel, outcome: Outcome, read_file: ReadFile) -> Iterator[Check]:
    """Every expectation in the order of the reference. Raises OSError for a file of the test.

    That no callout fails is always expected: an exception is a bug, whatever it comes to.
    """
    for failure in outcome.exceptions:
        if failure.startswith(Cause.CALLOUT_EXCEPTION):
            yield Check(("callouts: none failed",), (f"callouts: {failure}",))
    yield from _decisions(expect, outcome)
    yield from _results(expect, outcome)
    if expect.request is not None:
        yield from _request(expect.request, outcome.request, read_file)
    if expect.response is not None:
        yield from _response(expect.response, outcome.response, read_file)
    if expect.to_server is not None:
        yield from _stream("to_server", expect.to_server, outcome.to_server, read_file)
    if expect.to_client is not None:
        yield from _stream("to_client", expect.to_client, outcome.to_client, read_file)


# --- verdict and rules ---------------------------------------------------------------------


def _decisions(expect: ExpectModel, outcome: Outcome) -> Iterator[Check]:
    if expect.verdict is not None:
        yield _verdict(expect.verdict, outcome)
    if expect.rule is not None:
        yield _rule(expect.rule, outcome)
    for name in ("rules", "shadow_rules", "tags", "anomalies", "edits"):
        wanted = getattr(expect, name)
        if wanted is not None:
            yield _equal(name, _set(wanted), _set(getattr(outcome, name)))
    if expect.not_rules:
        acted = [rule for rule in expect.not_rules if rule in outcome.rules]
        yield _holds(f"not_rules: {_set(expect.not_rules)}", not acted, f"acted: {_set(acted)}")


def _results(expect: ExpectModel, outcome: Outcome) -> Iterator[Check]:
    if expect.status is not None:
        yield _equal("status", str(expect.status), _or_nothing(outcome.status))
    if expect.protocol is not None:
        yield _equal("protocol", expect.protocol, outcome.protocol)
    if expect.redirected_to is not None:
        yield _equal("redirected_to", expect.redirected_to, outcome.redirected_to or "nothing")
    if expect.server_sees_nothing:
        seen = f"server sees: {printable(outcome.to_server)}"
        yield _holds("server_sees_nothing: true", not outcome.to_server, seen)


def _verdict(wanted: str, outcome: Outcome) -> Check:
    seen = outcome.verdict
    if wanted in ("reset", "drop"):
        holds = wanted == outcome.ended and seen == "block"
        if outcome.ended:
            seen = f"{seen}, by {outcome.ended}"
    else:
        holds = wanted == seen
    return _holds(f"verdict: {wanted}", holds, f"verdict: {seen}")


def _rule(wanted: str, outcome: Outcome) -> Check:
    if outcome.rule is not None:
        return _equal("rule", wanted, outcome.rule)
    return _holds(f"rule: {wanted}", wanted in outcome.rules, f"rules: {_set(outcome.rules)}")


def _set(names: Iterable[str]) -> str:
    return f"[{', '.join(sorted(names))}]"


# --- messages ------------------------------------------------------------------------------


def _request(expect: RequestExpect, seen: Seen | None, read_file: ReadFile) -> Iterator[Check]:
    if seen is None:
        yield Check(("request: at the server",), ("request: none reached the server",))
        return
    method, target = seen.start
    if expect.method is not None:
        yield _equal("request.method", expect.method, method)
    if expect.path is not None:
        yield _equal("request.path", expect.path, target)
    yield from _message("request", expect, seen, read_file)


def _response(expect: ResponseExpect, seen: Seen | None, read_file: ReadFile) -> Iterator[Check]:
    if seen is None:
        yield Check(("response: at the client",), ("response: none reached the client",))
        return
    if expect.status is not None:
        yield _equal("response.status", str(expect.status), seen.start[0])
    yield from _message("response", expect, seen, read_file)


def _message(
    side: str, expect: RequestExpect | ResponseExpect, seen: Seen, read_file: ReadFile
) -> Iterator[Check]:
    for name, wanted in expect.headers.items():
        yield from _header(f"{side}.headers.{name}", wanted, seen.values(name))
    if expect.body is not None:
        yield _bytes(f"{side}.body", octets(expect.body, read_file), seen.body)
    yield from _contents(f"{side}.body", expect.body_contains, seen.body, True)
    yield from _contents(f"{side}.body", expect.body_not_contains, seen.body, False)
    if seen.problem and (expect.body or expect.body_contains or expect.body_not_contains):
        yield Check((f"{side}: complete",), (f"{side}: {seen.problem}",))


def _header(name: str, wanted: HeaderExpect, values: tuple[str, ...]) -> Iterator[Check]:
    shown = f"{name}: {', '.join(values)}" if values else f"{name}: absent"
    if wanted.exists is False:
        yield _holds(f"{name}: absent", not values, shown)
    elif wanted.exists:
        yield _holds(f"{name}: there", bool(values), shown)
    if wanted.exact is not None:
        text = f"{name}: {', '.join(wanted.exact)}"
        yield _holds(text, values == tuple(wanted.exact), f"{shown} ({len(values)} fields)")
    if wanted.regex is not None:
        found = compile_regex(wanted.regex)(octet_string(", ".join(values)))
        yield _holds(f"{name}: /{wanted.regex}/", found and bool(values), shown)


# --- bytes ---------------------------------------------------------------------------------


def _stream(name: str, expect: StreamExpect, seen: bytes, read_file: ReadFile) -> Iterator[Check]:
    if expect.exact is not None:
        yield _bytes(name, octets(expect.exact, read_file), seen)
    yield from _contents(name, expect.contains, seen, True)
    yield from _contents(name, expect.not_contains, seen, False)


def _bytes(name: str, wanted: bytes, seen: bytes) -> Check:
    if wanted == seen:
        line = (f"{name}: {len(wanted)} bytes as expected",)
        return Check(line, line)
    skipped = _common(wanted, seen)
    return Check(_lines(name, wanted, skipped), _lines(name, seen, skipped))


def _common(a: bytes, b: bytes) -> int:
    """Where to begin showing two bodies that differ: not long before they do."""
    pairs = enumerate(zip(a, b, strict=False))
    same = next((at for at, (left, right) in pairs if left != right), min(len(a), len(b)))
    return max(0, same - _BEFORE)


def _contents(name: str, texts: Iterable[str], seen: bytes, wanted: bool) -> Iterator[Check]:
    for text in texts:
        raw = text.encode("utf-8")
        line = f"{name} {'contains' if wanted else 'does not contain'} {printable(raw)}"
        if (raw in seen) is wanted:
            yield Check((line,), (line,))
        else:
            yield Check((line,), _lines(name, seen, max(0, seen.find(raw) - _BEFORE)))


def _lines(name: str, data: bytes, skipped: int = 0) -> tuple[str, ...]:
    shown = data[skipped : skipped + _MOST]
    title = f"{name}: {len(data)} bytes" + (f", from byte {skipped}" if skipped else "")
    lines = [f"  {printable(line)}" for line in shown.split(b"\n")] if shown else []
    return (title, *lines, *(["  …"] if skipped + _MOST < len(data) else []))


def printable(data: bytes) -> str:
    """Bytes for a terminal: no control character, and no two that look the same."""
    text = data[:_MOST].decode("utf-8", "surrogateescape")
    return "".join(char if char.isprintable() and char != "\\" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """`\\n`, or by octets for what was not UTF-8."""
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


# --- shared --------------------------------------------------------------------------------


def _equal(name: str, wanted: str, seen: str) -> Check:
    return Check((f"{name}: {wanted}",), (f"{name}: {seen}",))


def _holds(line: str, holds: bool, seen: str) -> Check:
    return Check((line,), (line,) if holds else (seen,))


def _or_nothing(value: object) -> str:
    return "nothing" if value is None else str(value)
