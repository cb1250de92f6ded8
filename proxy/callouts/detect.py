"""What a flow is, from the client's own first bytes: three answers, one of them "not yet".

A function of the bytes only: the shortest prefix that settles the question decides, whatever
was delivered with it, so that no way of cutting a stream changes the answer. It never says
"not HTTP" of something that a tolerant server could still read as HTTP, and it never looks at
what the server sends (a fake greeting would free the client from inspection).

RFC 9112 3 (request line), RFC 9113 3.4 (HTTP/2 preface), RFC 8446 5.1 and RFC 5246 E.2 (TLS
records, the SSLv2 form of a ClientHello), RFC 4253 4.2 (SSH), RFC 5321 4.1.1.1 (SMTP).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.model import Protocol


@dataclass(frozen=True, slots=True)
class Detection:
    """`protocol` is None while undecided; `exhausted`: and no more bytes will be looked at."""

    protocol: Protocol | None = None
    exhausted: bool = False


UNDECIDED = Detection()
EXHAUSTED = Detection(exhausted=True)

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_BOM = b"\xef\xbb\xbf"  # some readers skip it: so do we

# RFC 9110 9.3, RFC 5789, RFC 4918 and its family.
_METHODS = (
    rb"GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PROPFIND|PROPPATCH|MKCOL|COPY|MOVE"
    rb"|LOCK|UNLOCK|SEARCH|REPORT|MKACTIVITY|CHECKOUT|CHECKIN|UNCHECKOUT|VERSION-CONTROL|MERGE"
    rb"|BASELINE-CONTROL|MKWORKSPACE|UPDATE|LABEL|ACL|BIND|UNBIND|REBIND|ORDERPATCH|MKCALENDAR"
    rb"|LINK|UNLINK|MKREDIRECTREF|UPDATEREDIRECTREF"
)
_KNOWN = re.compile(rb"(" + _METHODS + rb")[\x00-\x20]")
_PATH_FOLLOWS = re.compile(rb"[\x00-\x09\x0b-\x20]+/")
_BLANKS = b"\t\n\v\f\r "
# What may settle a first line that begins with no known method. Bytes above 0x7F count only on
# a line that begins with something binary: raw UTF-8 in a path is sloppy HTTP, not binary data.
_EVENT = re.compile(rb"\n|(?i:http/)|[\x00-\x08\x0e-\x1f\x7f-\xff]")
_HTTP = re.compile(rb"(?i:http/)")
_OVERLAP = len(b"HTTP/") - 1

# OPTIONS rtsp://a RTSP/1.0, OPTIONS sip:a SIP/2.0, OPTIONS * RTSP/1.0: the version must belong
# to the scheme. `GET / RTSP/1.0` stays HTTP: parsers in use take it for a request.
_OTHER_VERSION = re.compile(
    rb"\S+[ \t]+(?:\*|(?i:(?P<scheme>[a-z]+?)s?:\S*))[ \t]+(?P<name>[A-Za-z]+)/\d\.\d[ \t\r]*\Z"
)
# SOURCE /a ICE/1.0, ANNOUNCE /a RTSP/1.0: a path and some version, whatever the method.
_PATH_AND_VERSION = re.compile(rb"\S+[ \t]+/\S*[ \t]+[A-Za-z]+/\d")
# STOMP's `CONNECT` stands alone on its line, NATS's is followed by a JSON object.
_OTHER_CONNECT = re.compile(rb"CONNECT(?:[ \t]+\{|[ \t\r]*\Z)")

# One stray control byte may be somebody's idea of smuggling; two are a binary protocol. Every
# common one has them in its first message: PostgreSQL's SSLRequest is 00 00 00 08 04 D2 16 2F.
_BINARY_ENOUGH = 2
# XML and JSON streams need not have lines (XMPP, RFC 6120 4.2, waits for an answer to this).
_MARKUP = re.compile(rb'<\?xml[ \t]|<stream:stream[ \t]|\{[ \t]*"|\[[ \t]*[\[{"]')
_SSLV2_VERSIONS = (b"\x00\x02", b"\x03\x00", b"\x03\x01", b"\x03\x02", b"\x03\x03", b"\x03\x04")


class Detector:
    """Feed it everything the client sent so far, again and again: `feed(data, final)`.

    `limit` bytes are looked at, at most. Each byte is scanned once, however it arrives.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._scanned = 0
        self._binary = 0

    def feed(self, data: bytes | bytearray, final: bool) -> Detection:
        """`data`: all bytes from the first one on; `final`: nothing can follow them."""
        view = bytes(data[: self._limit])
        full = len(data) >= self._limit
        decided = self._decide(view, full or final)
        if decided is None and final and not full:
            decided = _text_line(view[_first_line(view) :])
        if decided is not None:
            return Detection(decided)
        return EXHAUSTED if full else UNDECIDED

    def _decide(self, view: bytes, at_end: bool) -> Protocol | None:
        if view.startswith(_PREFACE):
            return Protocol.HTTP2
        if not at_end and (_PREFACE.startswith(view) or _BOM.startswith(view)):
            return None
        tls = _tls(view)
        if tls is True:
            return Protocol.TLS
        if tls is None and not at_end:
            return None
        start = _first_line(view)
        known = _KNOWN.match(view, start)
        if known is not None:
            return _known_method(view, start, known.end(1), at_end)
        return self._unknown_word(view, start)

    def _unknown_word(self, view: bytes, start: int) -> Protocol | None:
        """The first of: HTTP/ on the line, the line's end, too much that is not text."""
        if _MARKUP.match(view, start):
            return Protocol.OPAQUE
        for event in _EVENT.finditer(view, max(start, self._scanned)):
            self._scanned = event.end()
            found = event[0]
            if found == b"\n":
                return _text_line(view[start : event.start()])
            if len(found) > 1:
                return Protocol.HTTP1
            if found < b"\x80" or not 0x20 < view[start] < 0x7F:
                self._binary += 1
                if self._binary >= _BINARY_ENOUGH:
                    return Protocol.OPAQUE
        self._scanned = max(self._scanned, len(view) - _OVERLAP)
        return None


def _first_line(view: bytes) -> int:
    """Where the first line begins: behind a byte order mark and empty lines (9112 2.2)."""
    mark = len(_BOM) if view.startswith(_BOM) else 0
    return len(view) - len(view[mark:].lstrip(_BLANKS))


def _known_method(view: bytes, start: int, name_end: int, at_end: bool) -> Protocol | None:
    """A first line that begins with an HTTP method and a blank."""
    if _PATH_FOLLOWS.match(view, name_end):
        return Protocol.HTTP1
    line_end = view.find(b"\n", start)
    if line_end < 0 and not at_end:
        return Protocol.HTTP1 if _HTTP.search(view, name_end) else None
    line = view[start : line_end if line_end >= 0 else len(view)]
    if _HTTP.search(line):
        return Protocol.HTTP1
    other = _OTHER_VERSION.match(line)
    if other is not None and (other["scheme"] or other["name"]).lower() == other["name"].lower():
        return Protocol.OPAQUE
    return Protocol.OPAQUE if _OTHER_CONNECT.match(line) else Protocol.HTTP1


def _text_line(line: bytes) -> Protocol:
    """A whole first line without HTTP/ in it, or all that will ever come of one."""
    if line.startswith(b"SSH-"):
        return Protocol.SSH
    if line[:5].upper() in (b"EHLO ", b"HELO ", b"LHLO "):
        return Protocol.SMTP
    if _PATH_AND_VERSION.match(line):
        return Protocol.HTTP1
    return Protocol.OPAQUE


def _tls(view: bytes) -> bool | None:
    """Whether this opens with a TLS handshake record; None: it may still turn out to."""
    if view[:1] == b"\x16":  # ContentType handshake, legacy_record_version 3.0 to 3.4
        if len(view) >= 3:
            return view[1] == 3 and view[2] <= 4
        return None if view[1:2] in (b"", b"\x03") else False
    return _sslv2_hello(view)


def _sslv2_hello(view: bytes) -> bool | None:
    """RFC 5246 E.2: two-byte length, 01, version, three lengths that must add up."""
    if not view or view[0] < 0x80 or view[2:3] not in (b"", b"\x01"):
        return False
    if not any(version.startswith(view[3:5]) for version in _SSLV2_VERSIONS):
        return False
    if len(view) < 11:
        return None
    length = int.from_bytes(view[:2], "big") & 0x7FFF
    ciphers, session, challenge = (int.from_bytes(view[i : i + 2], "big") for i in (5, 7, 9))
    fits = length == 9 + ciphers + session + challenge
    return fits and ciphers % 3 == 0 and session in (0, 16) and 16 <= challenge <= 32
