"""The strict layer around h11: well-formed heads that peers could read in two ways.

h11 alone lets through Transfer-Encoding with Content-Length, several equal lengths, odd
versions, Hosts and targets. Each check returns what it found together with the head as an
RFC reads it; whether that repaired head or a refusal follows is policy's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from proxy.callouts.http.framing import FRAMING_FIELDS, without_framing
from proxy.callouts.http.lines import Finding
from proxy.callouts.http.writer import make_field
from proxy.heads import Field, Head, RequestHead, ResponseHead

H = TypeVar("H", bound=Head)
Found = list[Finding]

# Visible ASCII but what RFC 3986 forbids and browsers encode. They do send | ^ ` { } \ and
# a lone % unencoded in queries, which every server reads the same way.
_TARGET = re.compile(rb"[^\x00-\x20\x7f-\xff\"#<>]+")
_ABSOLUTE = re.compile(rb"(?i)(http://)([^/?]*)(.*)", re.DOTALL)
_HOST = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
    rb"|[A-Za-z0-9_~!$&'()*+,;=-][A-Za-z0-9._~!$&'()*+,;=-]*)"
    rb"(?::([0-9]{0,5}))?"
)
_ALIASES = frozenset({b"transfer_encoding", b"content_length"})
_MAX_DIGITS = 18  # below 2**63, what the narrowest of the usual parsers hold


def check_request(head: RequestHead) -> tuple[Found, RequestHead]:
    """Everything wrong with a request head, first things first, and its canonical form."""
    found: Found = []
    for check in _REQUEST_CHECKS:
        found_now, head = check(head)
        found += found_now
    return found, head


def check_response(head: ResponseHead) -> tuple[Found, ResponseHead]:
    """The same for a response head."""
    found: Found = []
    for check in _RESPONSE_CHECKS:
        found_now, head = check(head)
        found += found_now
    return found, head


# --- start line


def _version(head: H) -> tuple[Found, H]:
    if head.version in (b"1.1", b"1.0"):
        return [], head
    detail = head.version.decode("ascii")
    if head.version.startswith(b"1."):
        return [Finding("http1.version_minor", detail)], replace(head, version=b"1.1")
    return [Finding("http1.version", detail)], head


def _target(head: RequestHead) -> tuple[Found, RequestHead]:
    target = head.target
    if not _TARGET.fullmatch(target):
        return [_finding("http1.target_char", target)], head
    if head.method == b"CONNECT":
        return _connect(head)
    if target.startswith(b"/") or (target == b"*" and head.method == b"OPTIONS"):
        return [], head
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return [_finding("http1.target_form", target)], head
    if b"@" in match[2]:
        return [_finding("http1.target_userinfo", match[2])], head
    if not is_authority(match[2]):
        return [_finding("http1.target_form", target)], head
    # The scheme is case-insensitive; rules and records see one spelling.
    return [], replace(head, target=b"http://" + match[2] + match[3], authority=match[2])


def _connect(head: RequestHead) -> tuple[Found, RequestHead]:
    if not is_authority(head.target) or not re.search(rb":[0-9]+$", head.target):
        return [_finding("http1.target_form", head.target)], head
    return [_finding("http1.connect", head.target)], replace(head, authority=head.target)


def _host(head: RequestHead) -> tuple[Found, RequestHead]:
    hosts = list(head.all(b"host"))
    if not hosts:
        return ([Finding("http1.host_missing")] if head.version != b"1.0" else []), head
    if len(hosts) > 1:
        return [_finding("http1.host_multiple", b" | ".join(hosts))], head
    if not is_authority(hosts[0]):
        return [_finding("http1.host_invalid", hosts[0])], head
    if not head.authority or same_authority(head.authority, hosts[0]):
        return [], head
    finding = _finding("http1.authority_mismatch", head.authority + b" | " + hosts[0])
    return [finding], replace(head, fields=with_host(head.fields, head.authority))


def is_authority(text: bytes) -> bool:
    """host[:port] as RFC 3986 3.2.2 has it, but no empty, dotted-away or encoded names."""
    match = _HOST.fullmatch(text)
    return match is not None and b".." not in text and int(match[1] or 0) <= 65535


def same_authority(one: bytes, other: bytes) -> bool:
    """Compared without case, trailing dot and the default port."""
    return _plain(one) == _plain(other)


def _plain(authority: bytes) -> bytes:
    host, _, port = authority.lower().partition(b":")
    if authority.startswith(b"["):
        host, _, port = authority.lower().rpartition(b"]")
        port = port.lstrip(b":")
    return host.rstrip(b".") + b":" + (port.lstrip(b"0") or b"80")


def with_host(fields: tuple[Field, ...], authority: bytes) -> tuple[Field, ...]:
    """The fields with Host saying `authority`."""
    return tuple(f._replace(value=authority) if f.key == b"host" else f for f in fields)


# --- framing


def _transfer_encoding(head: H) -> tuple[Found, H]:
    values = list(head.all(b"transfer-encoding"))
    if not values:
        return [], head
    found: Found = []
    if head.version == b"1.0":
        found.append(_finding("http1.te_http10", values[0]))
    joined = b",".join(values)
    members = [member.strip(b" \t").lower() for member in joined.split(b",")]
    if len(values) > 1 or members != [b"chunked"]:
        id_ = "http1.te_invalid"
        if members[-1:] == [b"chunked"] and members.count(b"chunked") == 1 and all(members):
            id_ = "http1.te_unknown"
        found.append(_finding(id_, joined))
    if any(True for _ in head.all(b"content-length")):
        found.append(_finding("http1.te_and_cl", joined))
        fields = tuple(f for f in head.fields if f.key != b"content-length")
        return found, replace(head, fields=fields)
    return found, head


def _content_length(head: H) -> tuple[Found, H]:
    values = list(head.all(b"content-length"))
    if not values:
        return [], head
    members = [m.strip(b" \t") for m in b",".join(values).split(b",")]
    shown = b", ".join(values)
    if any(not (m.isdigit() and m.isascii()) for m in members):
        return [_finding("http1.cl_invalid", shown)], head
    numbers = {m.lstrip(b"0") or b"0" for m in members}
    if len(numbers) > 1:
        return [_finding("http1.cl_invalid", shown)], head
    number = numbers.pop()
    if len(number) > _MAX_DIGITS:
        return [_finding("http1.cl_too_large", shown)], head
    found: Found = []
    if len(members) > 1:
        found.append(_finding("http1.cl_duplicate", shown))
    if any(member != number for member in members):
        found.append(_finding("http1.cl_leading_zero", shown))
    return found, _with_one_length(head, number) if found else head


def _with_one_length(head: H, number: bytes) -> H:
    fields: list[Field] = []
    seen = False
    for field in head.fields:
        if field.key != b"content-length":
            fields.append(field)
        elif not seen:
            fields.append(field._replace(value=number))
            seen = True
    return replace(head, fields=tuple(fields))


def _alias(head: H) -> tuple[Found, H]:
    aliases = [f.name for f in head.fields if f.key.replace(b"-", b"_") in _ALIASES]
    aliases = [name for name in aliases if name.lower() not in FRAMING_FIELDS]
    if not aliases:
        return [], head
    fields = tuple(f for f in head.fields if f.name not in aliases)
    return [_finding("http1.framing_alias", aliases[0])], replace(head, fields=fields)


def _upgrade_h2c(head: RequestHead) -> tuple[Found, RequestHead]:
    offered = head.tokens(b"upgrade")
    if b"h2c" not in offered:
        return [], head
    rest = b", ".join(token for token in offered if token != b"h2c")
    gone = {b"http2-settings"} if rest else {b"http2-settings", b"upgrade"}
    fields = [f for f in head.fields if f.key not in gone]
    fields = [f._replace(value=rest) if f.key == b"upgrade" else f for f in fields]
    named = [t for t in head.tokens(b"connection") if t not in gone]
    fields = [f for f in fields if f.key != b"connection"]
    if named:
        fields.append(make_field(b"Connection", b", ".join(named)))
    return [Finding("http1.upgrade_h2c")], replace(head, fields=tuple(fields))


# --- responses only


def _status(head: ResponseHead) -> tuple[Found, ResponseHead]:
    if 100 <= head.status <= 599:
        return [], head
    return [Finding("http1.status_code", str(head.status))], head


def _bodiless(head: ResponseHead) -> tuple[Found, ResponseHead]:
    if head.status >= 200 and head.status != 204:
        return [], head
    fields = without_framing(head.fields)
    if len(fields) == len(head.fields):
        return [], head
    return [Finding("http1.body_on_bodiless", str(head.status))], replace(head, fields=fields)


_REQUEST_CHECKS: tuple[Callable[[RequestHead], tuple[Found, RequestHead]], ...] = (
    _version,
    _target,
    _host,
    _transfer_encoding,
    _content_length,
    _alias,
    _upgrade_h2c,
)
_RESPONSE_CHECKS: tuple[Callable[[ResponseHead], tuple[Found, ResponseHead]], ...] = (
    _version,
    _status,
    _transfer_encoding,
    _content_length,
    _alias,
    _bodiless,
)


def _finding(id_: str, seen: bytes) -> Finding:
    return Finding(id_, ascii(seen[:60])[2:-1])
