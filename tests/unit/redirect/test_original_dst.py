"""Layouts of SO_ORIGINAL_DST's answer, and what is made of its errors."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint
from proxy.redirect.original_dst import (
    SOCKADDR_IN,
    SOCKADDR_IN6,
    decode_sockaddr,
    original_destination,
)


def sockaddr_in(host: str, port: int) -> bytes:
    return SOCKADDR_IN.pack(2, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET, host))


def sockaddr_in6(host: str, port: int) -> bytes:
    return SOCKADDR_IN6.pack(10, port.to_bytes(2, "big"), socket.inet_pton(socket.AF_INET6, host))


class FakeSocket:
    """A socket as original_destination sees one: the kernel's part is played from `answers`."""

    def __init__(self, local: tuple[Any, ...], answers: dict[tuple[int, int], bytes | int]) -> None:
        self.local = local
        self.answers = answers

    def getsockname(self) -> tuple[Any, ...]:
        return self.local

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        answer = self.answers.get((level, option), errno.ENOPROTOOPT)
        if isinstance(answer, int):
            raise OSError(answer, "fake")
        assert size == len(answer)
        return answer


def ask(local: tuple[Any, ...], answers: dict[tuple[int, int], bytes | int]) -> Endpoint:
    return original_destination(FakeSocket(local, answers))  # type: ignore[arg-type]


def test_the_kernels_struct_sizes() -> None:
    assert (SOCKADDR_IN.size, SOCKADDR_IN6.size) == (16, 28)  # netinet/in.h


def test_decode() -> None:
    assert decode_sockaddr(sockaddr_in("192.0.2.1", 443)) == Endpoint("192.0.2.1", 443)
    assert decode_sockaddr(sockaddr_in6("2001:db8::1", 80)) == Endpoint("2001:db8::1", 80)
    assert decode_sockaddr(sockaddr_in6("::ffff:192.0.2.1", 1)) == Endpoint("192.0.2.1", 1)


@pytest.mark.parametrize(
    "data", [b"", bytes(16), bytes(28), sockaddr_in("192.0.2.1", 1)[:15], b"\x0a\0" + bytes(14)]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RedirectError):
        decode_sockaddr(data)


def test_asked_by_the_packets_family() -> None:
    four, six = sockaddr_in("192.0.2.1", 80), sockaddr_in6("2001:db8::1", 80)
    both: dict[tuple[int, int], bytes | int] = {(0, 80): four, (41, 80): six}
    assert ask(("127.0.0.1", 8080), both) == Endpoint("192.0.2.1", 80)
    assert ask(("::ffff:127.0.0.1", 8080, 0, 0), both) == Endpoint("192.0.2.1", 80)
    assert ask(("::1", 8080, 0, 0), both) == Endpoint("2001:db8::1", 80)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOPROTOOPT])
def test_no_entry_is_not_redirected(number: int) -> None:
    with pytest.raises(NotRedirected):
        ask(("127.0.0.1", 8080), {(0, 80): number})


def test_our_own_address_is_not_redirected() -> None:
    for local in (("127.0.0.1", 8080), ("::ffff:127.0.0.1", 8080, 0, 0)):
        with pytest.raises(NotRedirected):
            ask(local, {(0, 80): sockaddr_in("127.0.0.1", 8080)})


def test_other_errors_are_the_sockets() -> None:
    with pytest.raises(OSError, match="fake"):
        ask(("127.0.0.1", 8080), {(0, 80): errno.ENOTCONN})
