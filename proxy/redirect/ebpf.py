"""eBPF at cgroup/connect4 and connect6: Linux 5.15, root (or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON).

The twin of a WFP callout at ALE_CONNECT_REDIRECT: what a process of the captured cgroup connects
to is rewritten to our listener before a packet is made, and the kernel remembers where it was
going and who made it. We ask for that with one getsockopt on the accepted socket; nothing is
looked up by scanning. deploy/redirector/README.md tells how it works.
"""

from __future__ import annotations

import errno
import socket
import sys

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect import ebpf_pins
from proxy.redirect.context import decode_context
from proxy.redirect.ebpf_redirector import SO_CONTEXT, Redirector
from proxy.redirect.nft import check_mark, for_direct_clients, set_mark
from proxy.redirect.options import RedirectOptions
from proxy.redirect.principal import Image, Principals
from proxy.redirect.provider import Health, Identified

_SOL_IP = 0
_MOST = 512  #: bytes of an answer
# ENOPROTOOPT: no such connection is remembered, or nobody answers. EOPNOTSUPP: the same, of
# other protocols' sockets.
_NOT_KNOWN = {errno.ENOPROTOOPT, errno.EOPNOTSUPP}


class EbpfProvider:
    """The redirect is a set of attached programs, in force from `install` to `remove`."""

    name = "ebpf"

    def __init__(self, options: RedirectOptions) -> None:
        self._options = options
        self._redirector: Redirector | None = None
        self._adopted: ebpf_pins.Pins | None = None
        self._direct = for_direct_clients(options)
        self._principals = Principals()

    def install(self) -> None:
        if self._redirector is not None:
            self._redirector.apply(self._options)
            return
        _check_listener(self._options)
        check_mark(self.name, self._options.mark)
        self._redirector = Redirector(self._options)

    def change(self, options: RedirectOptions) -> None:
        """Capture something else from now on, without a gap. Raises RedirectError.

        Cgroup, listener and on_crash stay what they were.
        """
        for name in ("cgroup", "listen", "on_crash", "block_quic"):
            if getattr(options, name) != getattr(self._options, name):
                raise RedirectError(f"redirect.{name} cannot change while the redirect is in force")
        if self._redirector is not None:
            self._redirector.apply(options)
        self._options = options

    def adopt(self) -> None:
        _check_platform()
        self._adopted = ebpf_pins.Pins(ebpf_pins.space_cookie(), self._options.listen.port)

    def remove(self) -> None:
        redirector, self._redirector = self._redirector, None
        if redirector is not None:
            redirector.close()
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            for folder in adopted.found():
                ebpf_pins.remove(folder)

    def health(self) -> Health:
        redirector = self._redirector  # another thread may take it away
        if redirector is not None:
            problem = redirector.problem()
            return Health(problem is None, problem or f"programs at {redirector.place}")
        if self._adopted is None:
            return Health(False, "the redirect is not installed")
        try:
            return Health(True, self.snapshot())
        except RedirectError as error:
            return Health(False, str(error))

    def snapshot(self) -> str:
        _check_platform()
        pins = self._adopted or ebpf_pins.Pins(ebpf_pins.space_cookie(), self._options.listen.port)
        found = [str(pin) for folder in pins.found() for pin in sorted(folder.iterdir())]
        if not found:
            raise RedirectError("the redirect is not installed")
        return "\n".join(found)

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        try:
            answer = sock.getsockopt(_SOL_IP, SO_CONTEXT, _MOST)
        except OSError as error:
            if error.errno not in _NOT_KNOWN:
                raise
            if self._direct is None:
                raise NotRedirected("the redirector has redirected no such connection") from error
            return await self._direct.identify(sock, client, within)
        context = decode_context(answer)
        info = RedirectInfo(
            self.name,
            context.original,
            client,
            principal=self._principals.of(context, Image.parse(answer)),
            raw_context=answer,
        )
        return Identified(info)

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        set_mark(sock, self._options)


def _check_platform() -> None:
    if not sys.platform.startswith("linux"):
        raise RedirectError(
            "provider ebpf works on Linux; on Windows the redirect that the same source makes "
            "there is read by provider wfp"
        )


def _check_listener(options: RedirectOptions) -> None:
    """A connection of either family must find a listener."""
    _check_platform()
    listen = options.listen
    wildcard = listen.host in ("0.0.0.0", "::")
    if options.ipv6 and ":" not in listen.host and listen.host != "127.0.0.1":
        raise RedirectError(
            f"{listen} takes no IPv6: listen on [::]:{listen.port}, or redirect IPv4 only"
        )
    if options.ipv4 and ":" in listen.host and not wildcard:
        raise RedirectError(
            f"{listen} takes no IPv4: listen on [::]:{listen.port}, or redirect IPv6 only"
        )
    for address in options.foreign:
        if not wildcard and address != listen.host:
            raise RedirectError(
                f"other network namespaces do not reach {listen} at {address}: "
                f"listen on [::]:{listen.port}"
            )
    if options.prerouting:
        raise RedirectError(
            "provider ebpf captures where connections are made, not what arrives on interfaces: "
            "leave redirect.prerouting empty, or use provider nft or tproxy"
        )
