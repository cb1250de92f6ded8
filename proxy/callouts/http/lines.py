"""Heads as lines: is every byte where RFC 9112 wants it, and if not, what is wrong.

One anchored expression proves the ordinary head; only what it does not match is taken apart
to name the anomaly. `mend` gives the canonical bytes for the irregularities whose reading
an RFC settles (bare LF, folding, NUL); it never guesses for the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELDS = rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
_REQUEST = re.compile(TOKEN + rb" [\x21-\x7e]++ HTTP/[0-9]\.[0-9]\r\n" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/[0-9]\.[0-9] [0-9]{3}(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n" + _FIELDS)
_SECTION = re.compile(_FIELDS)
_TOKEN = re.compile(TOKEN)
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUS = re.compile(rb"(HTTP/[0-9]\.[0-9]) [0-9]{3}(?: .*)?", re.DOTALL)
_CTL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_DECIDES = re.compile(rb"(?i)(?:content-length|transfer-encoding|host)[ \t]*:")
_END = re.compile(rb"\n\r?\n")


@dataclass(frozen=True, slots=True)
class Finding:
    """An anomaly met: its id in proxy.anomalies, and what was seen, for the record."""

    id: str
    detail: str = ""


@dataclass(slots=True)
class EndOfHead:
    """Finds the empty line that ends a head; remembers how far it has looked."""

    limit: int
    seen: int = 0

    def find(self, data: bytes | bytearray) -> int | None:
        """Length of the head at the start of `data`, None if its end is not there yet.

        Looks at the first `limit` bytes only, however the stream was cut.
        """
        match = _END.search(data, max(self.seen - 3, 0), self.limit)
        if match is not None:
            self.seen = 0
            return match.end()
        self.seen = min(len(data), self.limit)
        return None


def request_is_canonical(raw: bytes) -> bool:
    return _REQUEST.fullmatch(raw) is not None


def response_is_canonical(raw: bytes) -> bool:
    return _RESPONSE.fullmatch(raw) is not None


def section_is_canonical(raw: bytes) -> bool:
    """Whether a trailer section, with its empty line, is made of well-formed field lines."""
    return _SECTION.fullmatch(raw) is not None


def name_request_faults(raw: bytes) -> list[Finding]:
    """What is wrong with a request head that is not canonical; never empty."""
    lines, findings = _split(raw)
    findings += _request_line(lines[0])
    findings += _field_lines(lines[1:])
    return findings or [Finding("http1.request_line", _show(raw))]


def name_response_faults(raw: bytes) -> list[Finding]:
    """What is wrong with a response head that is not canonical; never empty."""
    lines, findings = _split(raw)
    findings += _status_line(lines[0])
    findings += _field_lines(lines[1:])
    return findings or [Finding("http1.status_line", _show(raw))]


def mend(raw: bytes) -> bytes:
    """The head with LF as CRLF, folds joined by one blank (9112 5.2) and NUL as a blank.

    Not NUL in what decides over framing and routing: there it is part of no valid value.
    """
    out: list[bytes] = []
    for line in raw.split(b"\n"):
        line = line.removesuffix(b"\r")
        if line[:1] in (b" ", b"\t") and len(out) > 1:
            out[-1] = out[-1].rstrip(b" \t") + b" " + line.strip(b" \t")
        else:
            out.append(line.replace(b"\0", b" ") if out and not _DECIDES.match(line) else line)
    return b"\r\n".join(out)


def _split(raw: bytes) -> tuple[list[bytes], list[Finding]]:
    """Lines without their ends (the empty ones at the end left out), and faults of line ends."""
    findings: list[Finding] = []
    lines = raw.split(b"\n")[:-2]
    if any(not line.endswith(b"\r") for line in lines) or not raw.endswith(b"\r\n"):
        findings.append(Finding("http1.bare_lf"))
    lines = [line.removesuffix(b"\r") for line in lines]
    if any(b"\r" in line for line in lines):
        findings.append(Finding("http1.bare_cr"))
    return lines or [b""], findings


def _request_line(line: bytes) -> list[Finding]:
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1]:
        return [Finding("http1.request_line", _show(line))]
    if not _VERSION.fullmatch(parts[2]):
        return [Finding("http1.version", _show(parts[2]))]
    if any(not 0x21 <= byte <= 0x7E for byte in parts[1]):
        return [Finding("http1.target_char", _show(parts[1]))]
    return []


def _status_line(line: bytes) -> list[Finding]:
    if not _STATUS.fullmatch(line):
        return [Finding("http1.status_line", _show(line))]
    return [Finding("http1.value_ctl", _show(line))] if _CTL.search(line) else []


def _field_lines(lines: list[bytes]) -> list[Finding]:
    findings: dict[str, Finding] = {}
    for index, line in enumerate(lines):
        fault = _field_line(line, first=index == 0)
        for finding in fault:
            findings.setdefault(finding.id, finding)
    return list(findings.values())


def _field_line(line: bytes, *, first: bool) -> list[Finding]:
    findings: list[Finding] = []
    if b"\0" in line:
        findings.append(Finding("http1.nul", _show(line)))
    if _CTL.search(line.replace(b"\0", b"")):
        findings.append(Finding("http1.value_ctl", _show(line)))
    if line[:1] in (b" ", b"\t"):
        findings.append(Finding("http1.leading_blank" if first else "http1.obs_fold", _show(line)))
        return findings
    name, colon, _ = line.partition(b":")
    if not colon:
        findings.append(Finding("http1.field_line", _show(line)))
    elif name != name.rstrip(b" \t") and name.strip(b" \t"):
        findings.append(Finding("http1.space_before_colon", _show(name)))
    elif not _TOKEN.fullmatch(name):
        findings.append(Finding("http1.field_name", _show(name)))
    return findings


def _show(data: bytes) -> str:
    """The first bytes, readable, for a record's detail."""
    return ascii(data[:60])[2:-1]
