"""Names and values of header fields that a policy may write (RFC 9110 5.1, 5.5, 7.6.1)."""

from __future__ import annotations

import re

from proxy.policy.scalars import kind_of
from proxy.policy.suggest import nearest
from proxy.policy.values import Unfit

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
MAX_VALUE = 8192

#: Fields of one connection, and those that say where a message ends. `http/framing` and the
#: exchange own them: a policy that changed them could smuggle a request past itself.
PROTECTED = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Hop-by-hop by custom and by name: Proxy-Connection, Proxy-Authorization and the like.
PROTECTED_PREFIX = "proxy-"

#: Where names are mistyped, one of these is usually meant.
# fmt: off
COMMON = (
    "Accept", "Accept-Encoding", "Accept-Language", "Age", "Allow", "Authorization",
    "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language",
    "Content-Security-Policy", "Content-Type", "Cookie", "Date", "ETag", "Expires", "Forwarded",
    "From", "Host", "If-Modified-Since", "If-None-Match", "Last-Modified", "Location", "Origin",
    "Permissions-Policy", "Range", "Referer", "Referrer-Policy", "Server", "Set-Cookie",
    "Strict-Transport-Security", "User-Agent", "Vary", "Via", "WWW-Authenticate",
    "X-Content-Type-Options", "X-Forwarded-For", "X-Frame-Options", "X-Powered-By",
    "X-Requested-With",
)
# fmt: on


def read_name(name: str) -> str:
    """A field name, which is a token. Raises Unfit."""
    if TOKEN.fullmatch(name):
        return name
    near = nearest(re.sub(r"[\s_:]+", "-", name.strip(" :")), COMMON)
    raise Unfit(
        f"{kind_of(name)} is not a header name",
        f"did you mean {near!r}?" if near else "letters, digits and - without blanks",
    )


def read_editable(name: str) -> str:
    """A field name that policy may change. Raises Unfit for framing and hop-by-hop fields."""
    read_name(name)
    if is_protected(name):
        raise Unfit(
            f"{name} cannot be changed by policy",
            "it belongs to one connection or frames the message (RFC 9110 7.6.1)",
        )
    return name


def is_protected(name: str) -> bool:
    lower = name.lower()
    return lower in PROTECTED or lower.startswith(PROTECTED_PREFIX)


def read_removable(name: str) -> str:
    """A field name, or the beginning of names followed by `*`, that may be removed."""
    if not name.endswith("*"):
        return not_host(read_editable(name))
    stem = name[:-1]
    if not stem:
        raise Unfit("'*' would remove every header", "name them, or their beginning: X-Debug-*")
    read_name(stem)
    lower = stem.lower()
    for kept in (*sorted(PROTECTED), PROTECTED_PREFIX, "host"):
        if kept.startswith(lower) or (kept == PROTECTED_PREFIX and lower.startswith(kept)):
            raise Unfit(
                f"{name} covers {kept}{'*' if kept == PROTECTED_PREFIX else ''} too,"
                " which cannot be removed",
                "give a longer beginning",
            )
    return name


def not_host(name: str) -> str:
    """A request has exactly one Host (RFC 9112 3.2): it can be set or replaced, nothing else."""
    if name.lower() == "host":
        raise Unfit("Host can be set or replaced only", "a request has exactly one (RFC 9112 3.2)")
    return name


def read_field_value(value: str) -> str:
    """A field value: no line end, no NUL or other control but tab, no outer blanks."""
    if len(value) > MAX_VALUE:
        raise Unfit(f"a header value of {len(value)} characters", f"at most {MAX_VALUE}")
    for char in value:
        if (char < " " and char != "\t") or char == "\x7f":
            raise Unfit(f"a header value with {char!r}", "no line end, NUL or other control")
    if value != value.strip(" \t"):
        raise Unfit(f"{kind_of(value)} begins or ends with a blank", "leave the blank out")
    return value
