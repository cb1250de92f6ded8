"""The header signer, through `proxy.testing`: run `pytest` in this directory."""

from __future__ import annotations

import hashlib
import hmac
from functools import partial

import pytest
from header_signer import HeaderSigner

from proxy.api import Interest
from proxy.testing import (
    Bench,
    check_http_callout,
    conversation,
    register_http,
    request,
    sample_flow,
)

SIGNER = partial(HeaderSigner, clock=lambda: 0.0)
OPTIONS = {"key": "k", "key_id": "gate"}
EPOCH = b"Thu, 01 Jan 1970 00:00:00 GMT"


def signed(*fields: bytes) -> bytes:
    """What the server gets."""
    registered = register_http(SIGNER, interest=Interest.REQUEST, options=OPTIONS)
    head = request(b"GET", path=b"/p?q=1", fields=b"".join(f + b"\r\n" for f in fields))
    return Bench(http=[registered]).run(conversation(("C", head))).outbound


def signature(date: bytes) -> bytes:
    text = b"GET\na.test\n/p?q=1\n" + date
    return b"keyid=gate, signature=%b" % hmac.new(b"k", text, hashlib.sha256).hexdigest().encode()


def test_the_server_can_recompute_the_signature() -> None:
    assert signed() == (
        b"GET /p?q=1 HTTP/1.1\r\nHost: a.test\r\n"
        b"Date: %b\r\nX-Gate-Signature: %b\r\n\r\n" % (EPOCH, signature(EPOCH))
    )


def test_a_date_of_the_client_is_signed_and_a_signature_of_its_own_is_replaced() -> None:
    date = b"Tue, 14 Nov 2023 22:13:20 GMT"
    out = signed(b"Date: " + date, b"X-Gate-Signature: forged")
    assert out.count(b"Date:") == out.count(b"X-Gate-Signature:") == 1
    assert signature(date) in out


def test_the_law_and_hostile_bytes() -> None:
    report = check_http_callout(SIGNER, interest=Interest.REQUEST, options=OPTIONS)
    assert report.calls > 100


def test_without_a_key_it_does_not_start() -> None:
    with pytest.raises(ValueError, match=r"options\.key"):
        HeaderSigner(sample_flow(), {})
