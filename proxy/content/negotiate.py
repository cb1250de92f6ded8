"""Accept-Encoding (RFC 9110 12.5.3), narrowed to what we can decode.

An edited or inspected response must come in a coding that we know, so the request asks for no
other one. What it refuses stays refused.
"""

from __future__ import annotations

import re

from proxy.content.codings import SUPPORTED

_MEMBER = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    rb"(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_KEPT = frozenset({b"identity", b"x-gzip", *(name.encode() for name in SUPPORTED)})


def narrow_accept_encoding(value: bytes) -> bytes:
    """`value` (several lines joined by commas) with the members that we can decode, as written.

    `*` is left out, as it stands for every coding there is; where it refused the identity
    (`*;q=0` without a member of its own for that), `identity;q=0` takes its place. Never empty:
    `identity` if nothing is left. Malformed members are left out.
    """
    kept: list[bytes] = []
    named = set()
    refuses_others = False
    for text in value.split(b","):
        member = _MEMBER.fullmatch(text.strip(b" \t"))
        if member is None:
            continue
        name, weight = member[1].lower(), member[2]
        if name in _KEPT:
            kept.append(member[0])
            named.add(name)
        elif name == b"*":
            refuses_others = weight is not None and not weight.strip(b"0.")
    if refuses_others and b"identity" not in named:
        kept.append(b"identity;q=0")
    return b", ".join(kept) or b"identity"
