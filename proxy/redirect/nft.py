"""nftables REDIRECT for IPv4 and IPv6: Linux, root (or CAP_NET_ADMIN).

Captured are connections made after `install`; those that are open already go on past us. Our
own upstream sockets carry SO_MARK and are exempt. The kernel does not say which process made
a connection, so the principal stays unknown: looking it up in /proc would be late and may
name the wrong one.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from proxy.errors import NotRedirected, RedirectError
from proxy.model import Endpoint, RedirectInfo
from proxy.redirect.explicit import ExplicitProvider
from proxy.redirect.nft_rules import table_line
from proxy.redirect.nft_table import NftTable
from proxy.redirect.options import RedirectOptions, Unredirected
from proxy.redirect.original_dst import original_destination
from proxy.redirect.provider import Health, Identified, Provider
from proxy.redirect.static import StaticProvider

SO_MARK = 36  # asm-generic/socket.h; the socket module has it on Linux only
_CGROUPS = Path("/sys/fs/cgroup")


class NftProvider:
    """The redirect is one table of ours, in force from `install` to `remove`."""

    name = "nft"

    def __init__(self, options: RedirectOptions) -> None:
        self._options = options
        self._table = NftTable(options.table, options.on_crash)
        self._direct = for_direct_clients(options)

    def install(self) -> None:
        options = self._options
        _check_listener(options)
        check_mark(self.name, options.mark)
        self._table.put(table_line(options, *_locate(options.cgroup)))

    def adopt(self) -> None:
        self._table.adopt()

    def remove(self) -> None:
        self._table.remove()

    def health(self) -> Health:
        return self._table.health()

    def snapshot(self) -> str:
        return self._table.text()

    async def identify(self, sock: socket.socket, client: Endpoint, within: float) -> Identified:
        try:
            original = original_destination(sock)
        except NotRedirected:
            if self._direct is None:
                raise
            return await self._direct.identify(sock, client, within)
        return Identified(RedirectInfo(self.name, original, client, captured=True))

    def prepare_upstream(self, sock: socket.socket, info: RedirectInfo) -> None:
        set_mark(sock, self._options)


def for_direct_clients(options: RedirectOptions) -> Provider | None:
    """What serves clients that were not redirected; None: they are refused."""
    if options.unredirected is Unredirected.REFUSE:
        return None
    return ExplicitProvider() if options.upstream is None else StaticProvider(options)


def _check_listener(options: RedirectOptions) -> None:
    """REDIRECT delivers to 127.0.0.1 and ::1, or to the interface it came in by."""
    listen = options.listen
    wildcard = listen.host in ("0.0.0.0", "::")
    if not wildcard and listen.host not in ("127.0.0.1", "::1"):
        raise RedirectError(
            f"nft redirects to this machine's loopback: listen on 127.0.0.1:{listen.port} "
            f"or [::]:{listen.port} instead of {listen}"
        )
    if options.prerouting and not wildcard:
        raise RedirectError(
            f"connections that arrive on {', '.join(options.prerouting)} are redirected to that "
            f"interface's address: listen on [::]:{listen.port} instead of {listen}"
        )
    if options.ipv6 and listen.host == "0.0.0.0":
        raise RedirectError(
            f"{listen} takes no IPv6: listen on [::]:{listen.port}, or redirect IPv4 only"
        )
    if options.ipv4 and listen.host == "::1":
        raise RedirectError(
            f"{listen} takes no IPv4: listen on [::]:{listen.port}, or redirect IPv6 only"
        )


def set_mark(sock: socket.socket, options: RedirectOptions) -> None:
    """Exempt our own connection from capture. Raises OSError."""
    if options.exempt_uid is not None and options.exempt_uid == os.geteuid():
        return  # the rules know us by our user
    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, options.mark)


def check_mark(provider: str, mark: int) -> None:
    """Could our own connections be told apart? Without the mark they would come back to us."""
    if not sys.platform.startswith("linux"):
        raise RedirectError(f"provider {provider} works on Linux only")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        except PermissionError as error:
            raise RedirectError(
                f"provider {provider} needs CAP_NET_ADMIN (SO_MARK, nftables): run as root or "
                "grant the capability; provider explicit needs no privileges"
            ) from error


def _locate(cgroup: str | None) -> tuple[int, str]:
    """Depth of a cgroup v2 path, and where v2 is mounted below /sys/fs/cgroup."""
    if cgroup is None:
        return 0, ""
    for root in ("", "unified/"):  # alone, or beside v1 (hybrid)
        mount = _CGROUPS / root
        if (mount / "cgroup.procs").is_file() and (mount / "cgroup.controllers").is_file():
            if not (mount / cgroup).is_dir():
                raise RedirectError(f"there is no cgroup {mount / cgroup}: make it first")
            return len(Path(cgroup).parts), root
    raise RedirectError(f"cgroup v2 is not mounted in {_CGROUPS}")
