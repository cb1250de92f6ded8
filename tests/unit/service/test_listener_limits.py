"""The accept loop when the machine has no more descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket

from proxy.model import Endpoint
from proxy.redirect.provider import Listening
from proxy.service.listener import Listener, open_listeners


class Exhausted:
    """A listening socket whose accept() fails for want of descriptors, some times."""

    def __init__(self, listening: socket.socket, failures: int) -> None:
        self.listening = listening
        self.failures = failures
        self.calls = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.calls += 1
        if self.calls <= self.failures:
            raise OSError(errno.EMFILE, "too many open files")
        return self.listening.accept()

    def fileno(self) -> int:
        return self.listening.fileno()

    def close(self) -> None:
        self.listening.close()


async def test_accepting_pauses_at_the_descriptor_limit_and_goes_on() -> None:
    real = open_listeners(Endpoint("127.0.0.1", 0), Listening())[0]
    listening = Exhausted(real, failures=2)
    taken: asyncio.Queue[Endpoint] = asyncio.Queue()
    errors: list[None] = []

    def accepted(sock: socket.socket, client: Endpoint) -> None:
        sock.close()
        taken.put_nowait(client)

    listener = Listener(
        asyncio.get_running_loop(),
        [listening],  # type: ignore[list-item]
        accepted,
        lambda: errors.append(None),
    )
    listener.start()
    client = socket.create_connection(real.getsockname())
    try:
        assert await asyncio.wait_for(taken.get(), 5) == Endpoint.of(client.getsockname())
    finally:
        client.close()
        listener.close()
    assert len(errors) == 2
    assert listening.calls < 10  # it waited between, instead of spinning


async def test_a_listener_for_nft_takes_both_families_of_loopback() -> None:
    sockets = open_listeners(Endpoint("127.0.0.1", 0), Listening(both_loopbacks=True))
    try:
        hosts = [Endpoint.of(sock.getsockname()) for sock in sockets]
        assert [endpoint.host for endpoint in hosts] == ["127.0.0.1", "::1"]
        assert hosts[0].port == hosts[1].port
    finally:
        for sock in sockets:
            sock.close()
